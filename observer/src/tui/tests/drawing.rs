//! Screens as buffers and as text.

use std::sync::Arc;

use ratatui::{buffer::Buffer, layout::Rect};

use crate::{
    frame::Frame,
    tui::{
        theme::{Theme, ThemeName},
        ui::Ui,
        view,
    },
};

pub(super) fn ui(width: u16, height: u16) -> Ui {
    Ui::new(Rect::new(0, 0, width, height))
}

pub(super) fn buffer(ui: &Ui, data: &Frame, theme: &Theme) -> Buffer {
    let mut buf = Buffer::empty(ui.area);
    view::view(ui, data, theme, ui.area, &mut buf);
    buf
}

/// The screen as text, without the blanks at the ends of lines.
pub(super) fn text(ui: &Ui, data: &Frame) -> String {
    rows(&buffer(ui, data, &Theme::new(ThemeName::Mono)))
}

/// The lines of a buffer, without the blanks at their ends.
pub(super) fn rows(buf: &Buffer) -> String {
    let row = |y| (0..buf.area.width).map(|x| buf[(x, y)].symbol()).collect::<String>();
    let rows: Vec<String> = (0..buf.area.height).map(|y| row(y).trim_end().to_owned()).collect();
    rows.join("\n")
}

pub(super) fn arc(data: Frame) -> Arc<Frame> {
    Arc::new(data)
}
