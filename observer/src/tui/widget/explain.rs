//! Explains the numbers of the selected row: what they are and where they come from.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Clear, Widget},
};

use crate::{
    model::name::padded,
    present::{format, labelled::labelled},
    tui::{
        pane::{self, Explained},
        text,
        theme::{Theme, ThemeName},
    },
};

const WIDTH: u16 = 96;
/// Columns of the names, and of the values of most lines: a longer value has a line of its own, and what it means follows
/// below it.
const LABEL: usize = pane::LABEL + 1;
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
    pub(crate) fn new(entries: &[Explained], theme: &Theme, area: Rect) -> Self {
        let width = WIDTH.min(area.width);
        let inside = usize::from(width).saturating_sub(4);
        let lines: Vec<Line> = entries.iter().flat_map(|entry| paragraph(entry, inside, theme)).collect();
        let height = format::columns(lines.len() + 2).min(area.height.saturating_sub(1));
        let outer = area.centered(Constraint::Length(width), Constraint::Length(height));
        Self { lines, outer }
    }

    /// Its lines and the lines in sight, whatever the colours.
    pub(crate) fn measure(entries: &[Explained], area: Rect) -> (usize, usize) {
        let it = Explanation::new(entries, &Theme::new(ThemeName::Mono), area);
        (it.lines.len(), it.page())
    }

    fn page(&self) -> usize {
        usize::from(self.outer.height.saturating_sub(2))
    }
}

/// A value that is short enough stands between the label and the words; a longer one has lines of its own above them.
fn paragraph<'a>(entry: &Explained, width: usize, theme: &Theme) -> Vec<Line<'a>> {
    let Explained { label, value, text } = entry;
    let has_room = width >= LABEL + VALUE + GAP + MEANING;
    let strong = |label: String| Span::styled(label, theme.strong);
    let mut lines: Vec<Line> = Vec::new();
    let (indent, head, style) = match value {
        None => (LABEL, vec![strong(padded(label, LABEL))], Style::new()),
        Some(value) if has_room && format::text_width(value) <= VALUE => {
            let value = Span::styled(padded(value, VALUE + GAP), theme.title);
            (LABEL + VALUE + GAP, vec![strong(padded(label, LABEL)), value], theme.dim)
        }
        Some(value) => {
            let parts = labelled(label, LABEL, value, width).into_iter();
            lines.extend(parts.map(|part| Line::from(vec![strong(part.label), Span::styled(part.text, theme.title)])));
            (LABEL + if has_room { VALUE + GAP } else { GAP }, Vec::new(), theme.dim)
        }
    };
    for (i, part) in labelled("", indent, text, width).into_iter().enumerate() {
        let before = if i == 0 && !head.is_empty() { head.clone() } else { vec![Span::raw(part.label)] };
        lines.push(before.into_iter().chain([Span::styled(part.text, style)]).collect());
    }
    lines
}

/// A box over the middle of the screen, scrolled down by `top` lines.
pub(crate) fn view(title: &str, entries: &[Explained], top: usize, theme: &Theme, area: Rect, buf: &mut Buffer) {
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
