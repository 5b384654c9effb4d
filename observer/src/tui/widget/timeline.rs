//! Where a replay of a recorder's directory stands: the last line of the screen.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use crate::{
    frame::timeline::Timeline,
    present::format,
    tui::{layout::MIN_HEIGHT, text, theme::Theme},
};

/// An incident is named while it is shown, and so long before and after.
const NEAR: Duration = Duration::from_mins(1);
/// Columns of the words behind the line.
const WORDS: usize = 36;

/// The parts of a terminal: the screen, and the line where there is one and room for it.
pub(crate) fn split(area: Rect, timeline: Option<&Timeline>) -> (Rect, Option<Rect>) {
    if timeline.is_none() || area.height <= MIN_HEIGHT {
        return (area, None);
    }
    let [screen, line] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    (screen, Some(line))
}

/// `2026-11-27 03:12:07  ─────!────█──┊───  2 of 3: ports exhausted  < >`
pub(crate) fn view(timeline: &Timeline, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let now = format::local_time(timeline.now);
    let words = words(timeline);
    let taken = format::text_width(&now) + 2 + WORDS.min(format::text_width(&words)) + 2;
    let width = usize::from(area.width).saturating_sub(taken);
    let mut spans = vec![Span::styled(now, theme.strong), Span::raw("  ")];
    spans.extend(line(timeline, width, theme));
    spans.extend([Span::raw("  "), Span::raw(words)]);
    text::put(Line::from(spans), area, buf);
}

fn words(timeline: &Timeline) -> String {
    let incidents = timeline.incidents.len();
    match timeline.incident_near(NEAR) {
        Some(mark) => format::cut_end(&format!("incident {}: {}", mark.number, mark.name()), WORDS),
        None if incidents == 0 => "no incidents".to_owned(),
        None if incidents == 1 => "1 incident: < > go to it".to_owned(),
        None => format!("{incidents} incidents: < > go there"),
    }
}

fn line(timeline: &Timeline, width: usize, theme: &Theme) -> Vec<Span<'static>> {
    let mut cells = vec![Span::styled("─", theme.dim); width];
    let mut put = |position: Duration, cell: Span<'static>| {
        if let Some(place) = cells.get_mut(column(position, timeline.end, width)) {
            *place = cell;
        }
    };
    for gap in &timeline.gaps {
        put(*gap, Span::styled("│", theme.dim));
    }
    for mark in &timeline.incidents {
        put(mark.position, Span::styled("!", theme.warning));
    }
    put(timeline.position, Span::styled("█", theme.strong));
    cells
}

/// Which of so many columns has a position.
fn column(position: Duration, end: Duration, width: usize) -> usize {
    let (position, end) = (position.min(end).as_millis(), end.as_millis().max(1));
    let last = width.saturating_sub(1);
    usize::try_from(position * last as u128 / end).unwrap_or(last)
}
