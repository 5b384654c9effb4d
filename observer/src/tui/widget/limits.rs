//! Limits, the most urgent first: as many lines as there is room for, from one to the whole list.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Borders, Widget},
};

use super::{gauge, headroom};
use crate::{
    model::{
        limit::{Limit, LimitKind, Scope, level::Level},
        snapshot::Snapshot,
    },
    present::service,
    tui::{format, screen_name::ScreenName, text, theme::Theme},
};

/// The kind of a limit, and a space.
const LABEL: u16 = 17;
/// From here on a limit has its numbers and a gauge.
const WIDE_FROM: u16 = 60;

/// The limits that the headroom above already shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// None: there is no headroom on the screen.
    Nothing,
    /// The fullest destination, the fullest process and the files of the host.
    Headroom,
}

impl Known {
    /// What it shows: whether a limit is among that.
    fn shown(self, data: &Snapshot) -> impl Fn(&Limit) -> bool {
        let is_headroom = self == Self::Headroom;
        let destination = if is_headroom { headroom::fullest_destination(data) } else { None };
        let process = data.host.fullest_process().map(|files| Scope::Process(files.process.pid));
        move |limit| {
            is_headroom
                && match limit.kind {
                    LimitKind::ProcessFiles => process == Some(limit.scope),
                    LimitKind::HostFiles => true,
                    LimitKind::Ports => destination == Some(limit.scope),
                    _ => false,
                }
        }
    }
}

/// Lines across the screen. Three or more have a title and are the complete list; fewer leave out what is `known`.
pub(crate) fn strip(data: &Snapshot, known: Known, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.height < 3 {
        return list(data, known, theme, area, buf);
    }
    let block = Block::new().borders(Borders::TOP).border_style(theme.dim).title(title(theme));
    let inner = block.inner(area);
    block.render(area, buf);
    list(data, Known::Nothing, theme, inner, buf);
}

/// The same in a box.
pub(crate) fn panel(data: &Snapshot, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let block = Block::bordered().border_style(theme.dim).title(title(theme));
    let inner = block.inner(area);
    block.render(area, buf);
    list(data, Known::Nothing, theme, Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }, buf);
}

fn title(theme: &Theme) -> Line<'static> {
    Line::styled(" Limits, the most urgent first ", theme.title)
}

/// The findings have the last line, or the only one; if there are more, it says so.
fn list(data: &Snapshot, known: Known, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let findings = u16::from(!data.findings.is_empty()).min(area.height);
    let limits = Rect { height: area.height - findings, ..area };
    let is_known = known.shown(data);
    let shown = data.limits.iter().filter(|limit| !is_known(limit));
    for (limit, row) in shown.zip(limits.rows()) {
        if area.width >= WIDE_FROM { wide(limit, theme, row, buf) } else { narrow(limit, theme, row, buf) }
    }
    for row in area.rows().skip(limits.height.into()) {
        text::put(Line::styled(finding(data, row.width), theme.warning), row, buf);
    }
}

/// `accept queue     0.0.0.0:80 nginx (12): 120 of 129, in 2 min   93 % warning ████`
fn wide(limit: &Limit, theme: &Theme, row: Rect, buf: &mut Buffer) {
    let gauge_width = if row.width >= 100 { 40 } else { 22 };
    text::put(Span::styled(limit.about().name, theme.dim), Rect { width: LABEL - 1, ..row }, buf);
    let room = usize::from(row.width - LABEL - gauge_width - 1);
    let maximum = format::maximum(limit.practical_maximum());
    let when = when(limit).map_or_else(String::new, |when| format!(", {when}"));
    let used = format::count(limit.used);
    let numbers = match limit.excess() {
        Some(_) => format!(": {used}, over the limit of {maximum}"),
        None => format!(": {used} of {maximum}{when}"),
    };
    let owner_room = room.saturating_sub(format::text_width(&numbers));
    let words = owner(limit, owner_room) + &numbers;
    text::put(words, Rect { x: row.x + LABEL, width: format::columns(room), ..row }, buf);
    gauge::view(
        limit.ratio(),
        limit.level(),
        theme,
        Rect { x: row.right() - gauge_width, width: gauge_width, ..row },
        buf,
    );
}

/// `accept queue 0.0.0.0:80 100 % exhausted`
fn narrow(limit: &Limit, theme: &Theme, row: Rect, buf: &mut Buffer) {
    let part = format::percent(limit.ratio());
    // When it is full says more than how urgent it is.
    let part = match (when(limit), limit.level()) {
        (Some(when), _) => format!("{part} {when}"),
        (None, Level::Ok) => part,
        (None, level) => format!("{part} {}", level.name()),
    };
    let room = usize::from(row.width).saturating_sub(format::text_width(&part) + 1);
    let name = limit.about().name;
    let owner = owner(limit, room.saturating_sub(name.len() + 1));
    text::put(format!("{name} {owner}"), Rect { width: format::columns(room), ..row }, buf);
    text::put(Line::styled(part, theme.level(limit.level())).right_aligned(), row, buf);
}

/// The scope of a limit with its service, or as much of it as fits: what distinguishes it from others of its kind.
fn owner(limit: &Limit, width: usize) -> String {
    let whole = format::printable(&limit.owner());
    let with_service = whole.clone() + &service::within(limit.service.as_deref());
    if format::text_width(&with_service) <= width {
        return with_service;
    }
    if format::text_width(&whole) <= width {
        return whole;
    }
    let short = match limit.scope {
        Scope::Destination { remote, .. } => format!("→ {remote}"),
        Scope::Listener { local, device, .. } => format::address(local.ip(), Some(local.port()), device),
        Scope::Process(pid) => {
            limit.process.map_or(whole, |process| format::distinct_process(&format::comm(process.comm), pid, width))
        }
        Scope::Namespace(_) | Scope::Host => whole,
    };
    format::cut_middle(&short, width)
}

/// When it is reached, if it is not yet: `in 2 min`.
fn when(limit: &Limit) -> Option<String> {
    let time = limit.time_to_full().filter(|time| !time.is_zero())?;
    Some(format!("in {}", format::forecast(time)))
}

fn finding(data: &Snapshot, width: u16) -> String {
    let more = data.findings.len().saturating_sub(1);
    // That screen has them in full, with evidence and remedy.
    let place = ScreenName::Limits.digit();
    let more = if more > 0 { format!(" (+{more}: {place})") } else { format!(" ({place})") };
    let first = data.findings.first();
    let first =
        first.map_or_else(String::new, |finding| format::printable(&service::sentence_on_screen(data, finding)));
    format::cut_end(&format!("! {first}"), usize::from(width).saturating_sub(more.len())) + &more
}
