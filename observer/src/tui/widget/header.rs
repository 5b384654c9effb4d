//! The sums of the host.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::parts::{self, Part};
use crate::{
    model::snapshot::Snapshot,
    tui::{format, text, theme::Theme},
};

/// Three lines; the first, which only says who speaks, is left out where there are two. In the first that is there, the
/// `reserved` columns on the right stay free.
pub(crate) fn view(data: &Snapshot, theme: &Theme, area: Rect, reserved: u16, buf: &mut Buffer) {
    let lines = [title, present, past];
    let hidden = lines.len().saturating_sub(usize::from(area.height));
    for (i, (line, row)) in lines.into_iter().skip(hidden).zip(area.rows()).enumerate() {
        let width = if i == 0 { row.width.saturating_sub(reserved) } else { row.width };
        text::put(line(data, theme, width), Rect { width, ..row }, buf);
    }
}

fn title(data: &Snapshot, theme: &Theme, width: u16) -> Line<'static> {
    let parts = vec![
        Part::new(0, vec![Span::styled("observer", theme.title)]),
        Part::new(2, vec![Span::raw(format!("Linux {}", format::printable(&data.host.kernel)))]),
        Part::new(1, vec![Span::raw(format!("observed for {}", format::duration(data.uptime)))]),
    ];
    parts::fit(parts, "   ", width)
}

fn present(data: &Snapshot, theme: &Theme, width: u16) -> Line<'static> {
    let totals = &data.totals;
    let number = |n: u32| Span::styled(format::count(n.into()), theme.strong);
    let time_wait = data.namespaces.iter().map(|namespace| namespace.time_wait).sum();
    let parts = vec![
        Part::new(0, vec![number(totals.sockets), Span::raw(" sockets")]),
        Part::new(3, vec![Span::raw("peak "), number(totals.peak_sockets)]),
        Part::new(1, vec![number(totals.connections), Span::raw(" connections")]),
        Part::new(2, vec![number(time_wait), Span::raw(" in TIME_WAIT")]),
    ];
    parts::fit(parts, "   ", width)
}

fn past(data: &Snapshot, theme: &Theme, width: u16) -> Line<'static> {
    let totals = &data.totals;
    let rate = |rate: f64| Span::styled(format!("{}/s", format::rate(rate)), theme.strong);
    let so_far = if totals.counted_since.is_zero() {
        "so far".to_owned()
    } else {
        format!("in {}", format::duration(data.uptime.saturating_sub(totals.counted_since)))
    };
    let total = |n: u64| Span::raw(format!(" ({} {so_far})", format::count(n)));
    let unopened = Span::styled(format::count(totals.failed_total), theme.strong);
    let opened = |total| vec![Span::raw("sockets opened "), rate(totals.opened_per_second), total];
    let closed = |total| vec![Span::raw("closed "), rate(totals.closed_per_second), total];
    let line = |total: &dyn Fn(u64) -> Span<'static>| {
        vec![
            Part::new(0, opened(total(totals.opened_total))),
            Part::new(1, closed(total(totals.closed_total))),
            Part::new(2, vec![unopened.clone(), Span::raw(" unopened")]),
        ]
    };
    let long = line(&total);
    if parts::width(&long, "   ") <= usize::from(width) {
        return parts::fit(long, "   ", width);
    }
    parts::fit(line(&|n| Span::raw(format!(" ({})", format::count(n)))), "   ", width)
}
