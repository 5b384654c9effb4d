//! What every screen can do, whatever it shows.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{message::Message, table::Line, theme::Theme};
use crate::model::{filter::Filter, snapshot::Snapshot};

/// A screen, with what the user chose to see of it.
pub(crate) trait Pane {
    /// Whether a row is selected.
    fn has_cursor(&self) -> bool {
        false
    }

    fn update(&mut self, data: &Snapshot, filter: &Filter, area: Rect, message: Message);

    fn view(&self, data: &Snapshot, filter: &Filter, theme: &Theme, area: Rect, buf: &mut Buffer);

    /// Every number of the selected row, with what it is.
    fn explained(&self, _data: &Snapshot, _filter: &Filter) -> Option<Vec<Line>> {
        None
    }
}
