//! What the numbers of the selected row are, and where they come from.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Widget},
};

use crate::tui::{format, table, theme::Theme};

const WIDTH: u16 = 96;
const LABEL: usize = 16;

/// A box over the middle of the screen; what does not fit is cut.
pub(crate) fn view(title: &str, entries: &[table::Line], theme: &Theme, area: Rect, buf: &mut Buffer) {
    let width = WIDTH.min(area.width);
    let room = usize::from(width).saturating_sub(LABEL + 4).max(1);
    let mut lines: Vec<Line> = Vec::new();
    for entry in entries {
        for (i, part) in format::wrapped(&entry.text, room).into_iter().enumerate() {
            let label = if i == 0 { entry.label } else { "" };
            lines.push(Line::from(vec![Span::styled(format!("{label:<LABEL$}"), theme.strong), Span::raw(part)]));
        }
    }
    let height = format::columns(lines.len() + 2).min(area.height.saturating_sub(1));
    let outer = area.centered(Constraint::Length(width), Constraint::Length(height));
    let inner = Rect { x: outer.x + 2, y: outer.y + 1, width: outer.width - 4, height: outer.height.saturating_sub(2) };
    Clear.render(outer, buf);
    Block::bordered()
        .border_style(theme.dim)
        .title(Line::styled(format!(" {title} "), theme.title))
        .title(Line::styled(" Esc closes ", theme.strong).right_aligned())
        .render(outer, buf);
    for (line, row) in lines.into_iter().zip(inner.rows()) {
        line.render(row, buf);
    }
}
