//! How far every number on the other screens can be trusted, and what the observer itself costs.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Block, Borders, Widget},
};

use crate::{
    errno,
    model::{
        filter::Filter,
        quality::{HookStatus, Quality},
        snapshot::Snapshot,
    },
    tui::{
        format,
        message::Message,
        pane::Pane,
        text,
        theme::{Theme, ThemeName},
    },
};

/// How far the text is scrolled.
#[derive(Debug, Default)]
pub(crate) struct State {
    top: usize,
}

const LABEL: usize = 14;
const VALUE: usize = 12;
const BEFORE_MEANING: usize = LABEL + VALUE + 3;

impl Pane for State {
    fn update(&mut self, data: &Snapshot, _: &Filter, area: Rect, message: Message) {
        if let Message::Move(to) = message {
            let page = usize::from(area.height.saturating_sub(1));
            let lines = lines(data, &Theme::new(ThemeName::Mono), area.width).len();
            self.top = to.apply(self.top, page, lines.saturating_sub(page) + 1);
        }
    }

    fn view(&self, data: &Snapshot, _: &Filter, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
        let block = block.title(Line::styled(" Data quality: what these numbers rest on ", theme.title));
        let inner = block.inner(area);
        block.render(area, buf);
        let lines = lines(data, theme, inner.width);
        let top = self.top.min(lines.len().saturating_sub(inner.height.into()));
        for (line, row) in lines.into_iter().skip(top).zip(inner.rows()) {
            text::put(line, row, buf);
        }
    }
}

fn lines(data: &Snapshot, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let quality = &data.quality;
    let mut out = vec![Line::styled("LOSSES", theme.title)];
    out.extend(losses(quality, theme));
    let unread = unread(quality, theme, width);
    if !unread.is_empty() {
        out.extend([Line::default(), Line::styled("NOT READ", theme.title)]);
        out.extend(unread);
    }
    out.extend([Line::default(), Line::styled("SCANS", theme.title)]);
    out.extend(scans(data, theme));
    if let Some(missing) = quality.processes.missing() {
        out.extend([Line::default(), Line::styled("NOT VISIBLE", theme.title)]);
        out.extend(format::wrapped(missing, width.into()).into_iter().map(|line| Line::styled(line, theme.warning)));
    }
    out.extend([Line::default(), Line::styled("COST", theme.title)]);
    out.extend(cost(quality, theme));
    out.extend([Line::default(), Line::styled("HOOKS", theme.title)]);
    for status in &quality.hooks {
        out.extend(hook(status, theme, width));
    }
    out
}

fn entry(label: &str, value: &str, style: Style, meaning: &str, theme: &Theme) -> Line<'static> {
    Line::from(vec![
        Span::raw(format!("{label:<LABEL$}")),
        Span::styled(format!("{value:>VALUE$}"), style),
        Span::styled(format!("   {meaning}"), theme.dim),
    ])
}

/// As [`entry`], with all of a meaning that needs several lines.
fn long_entry(label: &str, value: &str, style: Style, meaning: &str, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let room = usize::from(width).saturating_sub(BEFORE_MEANING).max(1);
    let mut parts = format::wrapped(meaning, room).into_iter();
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| Line::styled(format!("{:BEFORE_MEANING$}{part}", ""), theme.dim));
    [entry(label, value, style, &first, theme)].into_iter().chain(rest).collect()
}

fn losses(quality: &Quality, theme: &Theme) -> Vec<Line<'static>> {
    let alarming = |count: u64| if count == 0 { Style::new() } else { theme.warning };
    let losses = quality.losses;
    let line = |label, count, meaning| entry(label, &format::count(count), alarming(count), meaning, theme);
    let missed = match losses.missed {
        Some(missed) => line("not run", missed, "hooks that the kernel did not run (recursion_misses, nmissed)"),
        None => entry("not run", "unknown", theme.warning, "this kernel does not tell (5.12 and later do)", theme),
    };
    vec![
        entry("events", &format::count(quality.events_total), Style::new(), "records of hooks since start", theme),
        line("ring full", losses.ring_full, "records of hooks that found no room in the ring buffer"),
        line("scan cut", losses.scan_ring_full, "records of scans that found no room: that scan removed nothing"),
        missed,
        line("unreadable", losses.read_failed, "fields of the kernel that could not be read"),
        line("not decoded", losses.undecodable, "records that made no sense"),
        line("accepts", quality.unseen_accepts, "accept() calls that no hook saw; a scan found their process"),
    ]
}

/// Nothing where all was read.
fn unread(quality: &Quality, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let kinds = quality.gaps.unread().flat_map(|(kind, gap)| {
        let why = gap.errno.map_or_else(|| "hidden".to_owned(), errno::name);
        let meaning = format!("{} ({why}): {}; {}", kind.id(), kind.consequence(), kind.remedy());
        long_entry("not read", &format::count(gap.count.into()), theme.warning, &meaning, theme, width)
    });
    let skipped = &quality.gaps.skipped;
    let meaning = format!("{}: {}", format::printable(&skipped.operation), format::printable(&skipped.cause));
    let rounds = format::count(skipped.rounds);
    let skipped = (skipped.rounds > 0).then(|| long_entry("skipped", &rounds, theme.warning, &meaning, theme, width));
    kinds.chain(skipped.into_iter().flatten()).collect()
}

fn scans(data: &Snapshot, theme: &Theme) -> Vec<Line<'static>> {
    let quality = &data.quality;
    let drift = quality.drift;
    let plain = |label, value: &str, meaning| entry(label, value, Style::new(), meaning, theme);
    let (age, took, found) = match quality.last_scan {
        None => ("none yet".to_owned(), "–".to_owned(), "–".to_owned()),
        Some(scan) => (
            format::duration(data.uptime.saturating_sub(scan.finished_at)),
            format::took(scan.took),
            format::count(scan.found.into()),
        ),
    };
    vec![
        plain("age", &age, "since the last scan, which made every count exact"),
        plain("took", &took, "the last scan; they take 2 % of a CPU at most"),
        plain("found", &found, "sockets in the kernel's tables, TIME_WAIT included"),
        plain("scans", &format::count(quality.scans_total), "since start"),
        plain(
            "drift",
            &format::count(drift.total()),
            "what scans changed beyond what events explain: added, removed, corrected",
        ),
    ]
}

fn cost(quality: &Quality, theme: &Theme) -> Vec<Line<'static>> {
    let plain = |label, value: &str, meaning| entry(label, value, Style::new(), meaning, theme);
    let Some(own) = quality.own else {
        return vec![plain("cpu", "unknown", "two readings of the host, a second apart, will tell")];
    };
    let each = own.ns_per_event.map_or_else(|| "–".to_owned(), |each| format!("{} ns", format::rate(each)));
    vec![
        plain(
            "cpu",
            &format!("{:.1} %", own.cpu * 100.0),
            "of one CPU over the last second, this screen and scans included",
        ),
        plain("each event", &each, "of that for each event; told from 10,000 events a second on"),
        plain("memory", &format!("{} MiB", format::count(own.resident >> 20)), "resident"),
    ]
}

fn hook(status: &HookStatus, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let (method, style) = match status.method {
        Some(method) => (method.to_string(), Style::new()),
        None => ("MISSING".to_owned(), theme.warning),
    };
    let mut out = vec![entry(&status.hook.to_string(), &method, style, status.hook.spec().purpose, theme)];
    for failed in &status.failed {
        let words = format::printable(&format!("not {}: {}", failed.method, failed.because));
        let parts = format::wrapped(&words, usize::from(width).saturating_sub(LABEL).max(1));
        out.extend(parts.into_iter().map(|part| Line::styled(format!("{:LABEL$}{part}", ""), theme.dim)));
    }
    out
}
