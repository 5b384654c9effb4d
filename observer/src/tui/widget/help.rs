//! The help: keys and columns from their definitions, and terms.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Clear, Widget},
};

use crate::{
    model::snapshot::EndpointRow,
    present::{Fields as _, format, labelled::labelled},
    tui::{
        keymap::{KEYMAP, Key},
        message::Move,
        text,
        theme::{Theme, ThemeName},
    },
};

const WIDTH: u16 = 80;
const LABEL: usize = 15;

const TERMS: &[(&str, &str)] = &[
    ("socket", "One end of a connection. A connection within this host has both ends here: two sockets."),
    ("connection", "Two ends that are each other's peer, counted once."),
    (
        "N left",
        "How many more connect() calls to that destination get a port: the ports of the range that are not reserved, \
         blocked, in use or in TIME_WAIT. connect() is slow once half of the range is in use.",
    ),
    ("blocked", "Ports that a socket occupies via bind() or listen(), whatever its address: connect() skips them."),
    (
        "limit",
        "Something that can run out. Limits that are full within the hour come first, predicted from the slope of the last \
         half minute; the fullest follow. `observer limits` shows how to raise each.",
    ),
    (
        "notice",
        "Half of the ports towards a destination are in use: connect() is slow. For every limit, warning is 80 % in use, \
         critical 95 %, exhausted 100 %.",
    ),
    (
        "! finding",
        "What looks wrong; (+N) counts further findings. `i` on a row of Limits shows the findings of that row with \
         evidence and remedy, `observer limits` shows all.",
    ),
    (
        "service",
        "What a socket's cgroup names: a systemd unit, a pod, a container, a machine. TIME_WAIT sockets and requests in \
         SYN_RECV belong to no cgroup: no service counts them.",
    ),
    ("lost", "Records from the kernel that did not arrive. The next scan corrects the counts."),
    ("drift", "Sockets that a scan added, removed or corrected because no event reported the change."),
    ("scan", "A pass over the kernel's whole socket table (iter/tcp)."),
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

/// The area of the text.
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
    out.extend([Line::default(), Line::styled("COLUMNS OF ENDPOINTS", theme.title)]);
    for field in EndpointRow::FIELDS.iter().filter(|field| field.is_on_screen()) {
        entry(&mut out, field.title(), &field.explanation(), theme, width);
    }
    out.extend([Line::default(), Line::styled("TERMS", theme.title)]);
    for (term, meaning) in TERMS {
        entry(&mut out, term, meaning, theme, width);
    }
    out
}

fn entry(out: &mut Vec<Line<'static>>, label: &str, text: &str, theme: &Theme, width: u16) {
    let lines = labelled(label, LABEL, text, width.into()).into_iter();
    out.extend(lines.map(|line| Line::from(vec![Span::styled(line.label, theme.strong), Span::raw(line.text)])));
}
