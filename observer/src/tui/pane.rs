//! The interface of all screens.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{message::Message, theme::Theme};
use crate::{frame::Frame, model::filter::Filter};

/// Columns of the longest label of an explanation.
pub(crate) const LABEL: usize = 15;

/// A paragraph of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) label: &'static str,
    /// The row's value, where the paragraph is about a field.
    pub(crate) value: Option<String>,
    pub(crate) text: String,
}

impl Explained {
    pub(crate) fn new(label: &'static str, text: impl Into<String>) -> Self {
        Self { label, value: None, text: text.into() }
    }
}

/// A screen, with the user's choices.
pub(crate) trait Pane {
    /// Whether a row is selected.
    fn has_cursor(&self) -> bool {
        false
    }

    fn update(&mut self, data: &Frame, filter: &Filter, area: Rect, message: Message);

    fn view(&self, data: &Frame, filter: &Filter, theme: &Theme, area: Rect, buf: &mut Buffer);

    /// Every number of the selected row, explained.
    fn explained(&self, _data: &Frame, _filter: &Filter) -> Option<Vec<Explained>> {
        None
    }
}
