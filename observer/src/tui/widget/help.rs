//! The help: keys, columns and words, from the tables that make them true.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Clear, Widget},
};

use crate::tui::{
    format,
    keymap::{KEYMAP, Key},
    message::Move,
    screen::Endpoints,
    table::Source as _,
    text,
    theme::{Theme, ThemeName},
};

const WIDTH: u16 = 80;
const LABEL: usize = 15;

const WORDS: &[(&str, &str)] = &[
    ("socket", "One end of a connection. A connection within this host has both ends here: two sockets."),
    ("connection", "Two ends that are each other's peer, counted once."),
    (
        "N left",
        "How many connect()s towards that destination still get a port: those of the range that are not reserved, \
                  blocked, used or in TIME_WAIT. From half of the range on each of them is slow to find one.",
    ),
    (
        "blocked",
        "Ports that some socket has bound by hand or listens on, whatever its address: connect() passes them over.",
    ),
    (
        "limit",
        "Something that can run out. First those that are full within the hour at the slope of the last half minute, \
                  then the fullest. `observer limits` tells of each how to raise it.",
    ),
    (
        "notice",
        "Half of the ports towards a destination are in use: connect() is slow. Of any limit, warning is 80 % in use, \
                  critical 95 %, exhausted all of it.",
    ),
    (
        "! finding",
        "What looks wrong, and (+N) for N more: `i` on a row of Limits shows those of that row with their evidence and \
                  remedy, `observer limits` shows all.",
    ),
    ("lost", "Records of the kernel that did not arrive. The next scan puts the counts right."),
    ("drift", "What scans found that no event had told."),
    ("scan", "A look at the kernel's whole socket table."),
];

/// How far the help is scrolled after `to`.
pub(crate) fn scrolled(top: usize, to: Move, page: usize, lines: usize) -> usize {
    to.apply(top, page, lines.saturating_sub(page) + 1)
}

pub(crate) fn line_count(area: Rect) -> usize {
    lines(&Theme::new(ThemeName::Mono), inner(area).width).len()
}

fn outer(area: Rect) -> Rect {
    let width = WIDTH.min(area.width);
    let wanted = format::columns(lines(&Theme::new(ThemeName::Mono), width.saturating_sub(4)).len() + 2);
    area.centered(
        ratatui::layout::Constraint::Length(width),
        ratatui::layout::Constraint::Length(wanted.min(area.height.saturating_sub(1))),
    )
}

/// Where the text stands.
pub(crate) fn inner(area: Rect) -> Rect {
    let outer = outer(area);
    Rect {
        x: outer.x + 2,
        y: outer.y + 1,
        width: outer.width.saturating_sub(4),
        height: outer.height.saturating_sub(2),
    }
}

pub(crate) fn view(top: usize, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let (outer, inner) = (outer(area), inner(area));
    let lines = lines(theme, inner.width);
    let page = usize::from(inner.height);
    let top = top.min(lines.len().saturating_sub(page));
    let more = lines.len() - (top + page).min(lines.len());
    let foot = if more > 0 { format!(" ↓ {more} more lines ") } else { " the end ".to_owned() };
    Clear.render(outer, buf);
    Block::bordered()
        .border_style(theme.dim)
        .title(Line::styled(" Help ", theme.title))
        .title(Line::styled(" Esc closes ", theme.strong).right_aligned())
        .title_bottom(Line::styled(foot, theme.strong).right_aligned())
        .render(outer, buf);
    for (line, row) in lines.into_iter().skip(top).zip(inner.rows()) {
        text::put(line, row, buf);
    }
}

fn lines(theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let mut out = vec![Line::styled("KEYS", theme.title)];
    for binding in KEYMAP {
        let keys: Vec<_> = binding.keys.iter().copied().map(Key::label).collect();
        entry(&mut out, &keys.join(", "), binding.help, theme, width);
    }
    out.extend([Line::default(), Line::styled("COLUMNS", theme.title)]);
    for field in Endpoints::FIELDS {
        entry(&mut out, field.title(), field.help, theme, width);
    }
    out.extend([Line::default(), Line::styled("WORDS", theme.title)]);
    for (word, meaning) in WORDS {
        entry(&mut out, word, meaning, theme, width);
    }
    out
}

fn entry(out: &mut Vec<Line<'static>>, label: &str, text: &str, theme: &Theme, width: u16) {
    let room = usize::from(width).saturating_sub(LABEL).max(1);
    for (i, part) in format::wrapped(text, room).into_iter().enumerate() {
        let label = if i == 0 { label } else { "" };
        out.push(Line::from(vec![Span::styled(format!("{label:<LABEL$}"), theme.strong), Span::raw(part)]));
    }
}
