//! Data quality: one line at the bottom, and a banner when numbers may be wrong.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::parts::{self, Part};
use crate::{
    model::{
        gaps::Gaps,
        quality::{AttachMethod, HookStatus, Losses, Quality},
        snapshot::Snapshot,
    },
    tui::{format, text, theme::Theme},
};

const BAR: &str = " │ ";

/// A warning about all numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) text: String,
    /// Counts are wrong, or will be.
    pub(crate) is_critical: bool,
}

/// The gravest alarm, with the number of those behind it.
pub(crate) fn alarm(data: &Snapshot) -> Option<Alarm> {
    let quality = &data.quality;
    let mut alarms: Vec<Alarm> = quality
        .missing()
        .map(|status| Alarm { text: missing(status), is_critical: status.hook.spec().is_vital })
        .collect();
    if quality.is_unhealed() {
        alarms.push(Alarm { text: unhealed(quality), is_critical: true });
    }
    if let Some(text) = quality.suspension() {
        alarms.push(Alarm { text: capitalized(&text), is_critical: false });
    }
    if quality.is_skipping()
        && let Some(skipped) = quality.gaps.skipped.sentence()
    {
        let text = format!("{}: numbers are as old as the last scan", format::printable(&skipped));
        alarms.push(Alarm { text, is_critical: false });
    }
    alarms.sort_by_key(|alarm| !alarm.is_critical);
    let behind = alarms.len().saturating_sub(1);
    let mut first = alarms.into_iter().next()?;
    if behind > 0 {
        first.text = format!("(+{behind} more) {}", first.text);
    }
    Some(first)
}

fn capitalized(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

fn missing(status: &HookStatus) -> String {
    let because = status
        .failed
        .last()
        .map_or_else(String::new, |failed| format!(" ({}: {})", failed.method, format::printable(&failed.because)));
    format!("Hook {} is missing: {}{because}", status.hook, status.hook.spec().if_missing)
}

fn unhealed(quality: &Quality) -> String {
    let losses = &quality.losses;
    let Losses { ring_full, scan_ring_full, read_failed, undecodable, missed: _ } = *losses;
    let causes = [
        (ring_full + scan_ring_full, "ring full"),
        (losses.missed_if_reported(), "missed runs"),
        (read_failed, "unreadable"),
        (undecodable, "not decoded"),
        (quality.stream_lost, "on the way here"),
        (quality.skipped_events(), "hooks suspended"),
    ];
    let causes = causes.into_iter().filter(|(count, _)| *count > 0);
    let causes: Vec<_> = causes.map(|(count, cause)| format!("{} {cause}", format::count(count))).collect();
    let lost = format::count(quality.lost_total() + quality.skipped_events());
    format!("{lost} records lost: counts may be off until the next scan ({})", causes.join(", "))
}

pub(crate) fn banner(alarm: &Alarm, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let words = format!(" ! {}", alarm.text);
    let style = if alarm.is_critical { theme.critical } else { theme.warning };
    buf.set_style(area, theme.badge.patch(style));
    text::put(words, area, buf);
}

/// Numbers first; the hooks in a second line, or as a number where there is one line.
pub(crate) fn view(data: &Snapshot, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let mut numbers = numbers(data, theme);
    let lines = if area.height > 1 {
        vec![parts::fit(numbers, BAR, area.width), hooks(data, theme, area.width)]
    } else {
        numbers.push(Part::new(2, vec![working(data, theme)]));
        vec![parts::fit(numbers, BAR, area.width)]
    };
    for (line, row) in lines.into_iter().zip(area.rows()) {
        text::put(line, row, buf);
    }
}

fn numbers(data: &Snapshot, theme: &Theme) -> Vec<Part> {
    let quality = &data.quality;
    let alarming = |count: u64| {
        if count == 0 { Style::new() } else { theme.warning }
    };
    let (lost, drift) = (quality.lost_total(), quality.drift.total());
    let coverage = quality.coverage;
    let scan = match quality.last_scan {
        _ if !coverage.is_complete() => {
            let [scanned, all] = [coverage.scanned, coverage.namespaces].map(|count| format::count(count.into()));
            format!("scanned {scanned} of {all} namespaces")
        }
        None => "no scan yet".to_owned(),
        Some(scan) => {
            let age = data.uptime.saturating_sub(scan.finished_at);
            format!("last scan {} ago, took {}", format::duration(age), format::took(scan.took))
        }
    };
    let mut parts = vec![
        Part::new(3, vec![Span::raw(format!("{} events/s", format::rate(quality.events_per_second)))]),
        Part::new(0, vec![Span::styled(format!("lost {}", format::count(lost)), alarming(lost))]),
        Part::new(4, vec![Span::styled(format!("drift {}", format::count(drift)), alarming(drift))]),
        Part::new(1, vec![Span::raw(scan)]),
    ];
    parts.extend(gaps(&quality.gaps, theme));
    if quality.suspension().is_some() {
        parts.push(Part::new(0, vec![Span::styled("hooks suspended", theme.warning)]));
    }
    if quality.unseen_accepts > 0 {
        let unseen = format!("{} accepts unseen", format::count(quality.unseen_accepts));
        parts.push(Part::new(5, vec![Span::styled(unseen, theme.warning)]));
    }
    parts
}

/// What was not read, and rounds that were skipped: how many wherever there is room for anything, and which where there is
/// room for all.
fn gaps(gaps: &Gaps, theme: &Theme) -> Vec<Part> {
    let unread: u64 = gaps.unread().map(|(_, gap)| u64::from(gap.count)).sum();
    let mut kinds = gaps.unread();
    // One kind is named at once, and once.
    let (unread, sentences) = match (kinds.next(), kinds.next()) {
        (None, _) => (None, Vec::new()),
        (Some((kind, gap)), None) => (Some(kind.words(gap.count)), Vec::new()),
        _ => (Some(format!("{} not read", format::count(unread))), gaps.sentences()),
    };
    let skipped = Some(gaps.skipped.rounds).filter(|rounds| *rounds > 0);
    let skipped = skipped.map(|rounds| format!("{} rounds skipped", format::count(rounds)));
    let short = unread.into_iter().chain(skipped).map(|words| (0, words));
    let long = sentences.into_iter().chain(gaps.skipped.sentence());
    let long = long.map(|words| (6, format::printable(&words)));
    short.chain(long).map(|(rank, words)| Part::new(rank, vec![Span::styled(words, theme.warning)])).collect()
}

/// Every hook with its attach method, attach method by attach method where room is short; else those that are missing.
fn hooks(data: &Snapshot, theme: &Theme, width: u16) -> Line<'static> {
    let all = &data.quality.hooks;
    let list = |hooks: Vec<&HookStatus>, head: Span<'static>| {
        let named = hooks.into_iter().map(|status| named(status, theme));
        let spans = named.enumerate().flat_map(|(i, name)| [Span::raw(if i == 0 { " " } else { ", " }), name]);
        [head].into_iter().chain(spans).collect::<Line>()
    };
    let long = list(all.iter().collect(), Span::raw("hooks"));
    if long.width() <= usize::from(width) {
        return long;
    }
    let short = by_method(all, theme);
    if short.width() <= usize::from(width) {
        return short;
    }
    list(data.quality.missing().collect(), working(data, theme))
}

/// `raw_tp:state+destroy  iter:scan+fd_owners`
fn by_method(all: &[HookStatus], theme: &Theme) -> Line<'static> {
    let mut groups: Vec<(Option<AttachMethod>, Vec<String>)> = Vec::new();
    for status in all {
        let name = status.hook.to_string();
        match groups.iter_mut().find(|(method, _)| *method == status.method) {
            Some((_, names)) => names.push(name),
            None => groups.push((status.method, vec![name])),
        }
    }
    let group = |(i, (method, names)): (usize, (Option<AttachMethod>, Vec<String>))| {
        let (gap, names) = (if i == 0 { "" } else { "  " }, names.join("+"));
        match method {
            Some(method) => Span::raw(format!("{gap}{method}:{names}")),
            None => Span::styled(format!("{gap}MISSING:{names}"), theme.warning),
        }
    };
    groups.into_iter().enumerate().map(group).collect()
}

fn working(data: &Snapshot, theme: &Theme) -> Span<'static> {
    let all = data.quality.hooks.len();
    let missing = data.quality.missing().count();
    let style = if missing == 0 { Style::new() } else { theme.warning };
    Span::styled(format!("hooks {} of {all}", all - missing), style)
}

fn named(status: &HookStatus, theme: &Theme) -> Span<'static> {
    match status.method {
        Some(method) => Span::raw(format!("{}:{method}", status.hook)),
        None => Span::styled(format!("{}:MISSING", status.hook), theme.warning),
    }
}
