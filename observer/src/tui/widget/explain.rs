//! What the numbers of the selected row are, and where they come from.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Widget},
};

use crate::tui::{
    format, table, text,
    theme::{Theme, ThemeName},
};

const WIDTH: u16 = 96;
/// Columns of the names, and of the values of most lines: a longer value has a line of its own, and what it means follows
/// below it.
const LABEL: usize = 16;
const VALUE: usize = 14;
const GAP: usize = 2;
/// With less room than this for the meaning, it stands below every value.
const MEANING: usize = 32;

/// The box, and what is in it.
pub(crate) struct Explanation<'a> {
    pub(crate) lines: Vec<Line<'a>>,
    outer: Rect,
}

impl Explanation<'_> {
    pub(crate) fn new(entries: &[table::Line], theme: &Theme, area: Rect) -> Self {
        let width = WIDTH.min(area.width);
        let room = usize::from(width).saturating_sub(LABEL + 4).max(1);
        let lines: Vec<Line> = entries.iter().flat_map(|entry| entry_lines(entry, room, theme)).collect();
        let height = format::columns(lines.len() + 2).min(area.height.saturating_sub(1));
        let outer = area.centered(Constraint::Length(width), Constraint::Length(height));
        Self { lines, outer }
    }

    /// Its lines and the lines in sight, whatever the colours.
    pub(crate) fn measure(entries: &[table::Line], area: Rect) -> (usize, usize) {
        let it = Explanation::new(entries, &Theme::new(ThemeName::Mono), area);
        (it.lines.len(), it.page())
    }

    fn page(&self) -> usize {
        usize::from(self.outer.height.saturating_sub(2))
    }
}

fn entry_lines<'a>(entry: &table::Line, room: usize, theme: &Theme) -> Vec<Line<'a>> {
    let label = Span::styled(format!("{:<LABEL$}", entry.label), theme.strong);
    let indent = |columns: usize| Span::raw(" ".repeat(columns));
    let mut lines: Vec<Line> = Vec::new();
    let is_wide = room >= VALUE + GAP + MEANING;
    let (beside, style) = match &entry.value {
        None => {
            lines.push(Line::from(label));
            (0, ratatui::style::Style::new())
        }
        Some(value) if is_wide && format::text_width(value) <= VALUE => {
            let gap = VALUE + GAP - format::text_width(value);
            lines.push(Line::from(vec![label, Span::styled(value.clone(), theme.title), indent(gap)]));
            (VALUE + GAP, theme.dim)
        }
        Some(value) => {
            for (i, part) in format::wrapped(value, room).into_iter().enumerate() {
                let before = if i == 0 { label.clone() } else { indent(LABEL) };
                lines.push(Line::from(vec![before, Span::styled(part, theme.title)]));
            }
            let beside = if is_wide { VALUE + GAP } else { GAP };
            lines.push(Line::from(indent(LABEL + beside)));
            (beside, theme.dim)
        }
    };
    for (i, part) in format::wrapped(&entry.text, room.saturating_sub(beside).max(1)).into_iter().enumerate() {
        let part = Span::styled(part, style);
        match lines.last_mut() {
            Some(line) if i == 0 => line.push_span(part),
            _ => lines.push(Line::from(vec![indent(LABEL + beside), part])),
        }
    }
    lines
}

/// A box over the middle of the screen, scrolled down by `top` lines.
pub(crate) fn view(title: &str, entries: &[table::Line], top: usize, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let explanation = Explanation::new(entries, theme, area);
    let page = explanation.page();
    let Explanation { lines, outer } = explanation;
    let inner = Rect { x: outer.x + 2, y: outer.y + 1, width: outer.width - 4, height: outer.height.saturating_sub(2) };
    let last = lines.len().saturating_sub(page);
    let top = top.min(last);
    Clear.render(outer, buf);
    let mut block = Block::bordered()
        .border_style(theme.dim)
        .title(Line::styled(format!(" {title} "), theme.title))
        .title(Line::styled(" Esc closes ", theme.strong).right_aligned());
    if last > 0 {
        let more = last - top;
        let foot = if more > 0 { format!(" … {more} more lines: PgDn ") } else { " the end ".to_owned() };
        block = block.title_bottom(Line::styled(foot, theme.strong).right_aligned());
    }
    block.render(outer, buf);
    for (line, row) in lines.into_iter().skip(top).zip(inner.rows()) {
        text::put(line, row, buf);
    }
}
