//! Data quality: losses, scan age, drift and attach methods, and what observer itself costs.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Block, Borders, Widget},
};

use crate::{
    frame::Frame,
    model::{
        capability::{Capability, Holding},
        cost::Cost,
        filter::Filter,
        name::{padded, padded_left},
        quality::{HookStatus, OwnCost, Quality, REGULAR_SCANS},
        snapshot::Snapshot,
    },
    present::{
        format,
        labelled::{LabelledLine, labelled},
    },
    tui::{
        message::Message,
        pane::Pane,
        text,
        theme::{Theme, ThemeName},
    },
};

/// How far the text is scrolled.
#[derive(Debug, Default)]
pub(crate) struct QualityState {
    top: usize,
}

const LABEL: usize = 16;
const VALUE: usize = 12;
const GAP: usize = 3;
const BEFORE_MEANING: usize = LABEL + VALUE + GAP;

impl Pane for QualityState {
    fn update(&mut self, data: &Frame, _: &Filter, area: Rect, message: Message) {
        if let Message::Move(to) = message {
            let page = usize::from(area.height.saturating_sub(1));
            let lines = lines(&data.snapshot, &Theme::new(ThemeName::Mono), area.width).len();
            self.top = to.apply(self.top, page, lines.saturating_sub(page) + 1);
        }
    }

    fn view(&self, data: &Frame, _: &Filter, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
        let block = block.title(Line::styled(" Data quality: losses, scans, cost, rights, hooks ", theme.title));
        let inner = block.inner(area);
        block.render(area, buf);
        let lines = lines(&data.snapshot, theme, inner.width);
        let top = self.top.min(lines.len().saturating_sub(inner.height.into()));
        for (line, row) in lines.into_iter().skip(top).zip(inner.rows()) {
            text::put(line, row, buf);
        }
    }
}

fn lines(data: &Snapshot, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let quality = &data.quality;
    let writer = Writer { theme, width };
    let mut out = vec![Line::styled("LOSSES", theme.title)];
    out.extend(losses(quality, &writer));
    let mut section = |title, lines: Vec<Line<'static>>| {
        if !lines.is_empty() {
            out.extend([Line::default(), Line::styled(title, theme.title)]);
            out.extend(lines);
        }
    };
    section("NOT READ", unread(quality, &writer));
    section("SCANS", scans(data, &writer));
    let missing = quality.processes.missing().map(|missing| labelled("", 0, missing, width.into()));
    let missing = missing.into_iter().flatten().map(|line| Line::styled(line.text, theme.warning));
    section("NOT VISIBLE", missing.collect());
    section("COST", cost(quality, &writer));
    section("RIGHTS", rights(quality, &writer));
    section("HOOKS", quality.hooks.iter().flat_map(|status| hook(status, &writer)).collect());
    out
}

/// A label, a value and what it means, which wraps where it needs several lines.
struct Writer<'a> {
    theme: &'a Theme,
    width: u16,
}

impl Writer<'_> {
    fn entry(&self, label: &str, value: &str, style: Style, meaning: &str) -> Vec<Line<'static>> {
        let head = [Span::raw(padded(label, LABEL)), Span::styled(padded_left(value, VALUE), style)];
        let lines = labelled("", BEFORE_MEANING, meaning, self.width.into()).into_iter().enumerate();
        let line = |(i, part): (usize, LabelledLine)| {
            let text = Span::styled(part.text, self.theme.dim);
            match i {
                0 => head.iter().cloned().chain([Span::raw(" ".repeat(GAP)), text]).collect(),
                _ => Line::from(vec![Span::raw(part.label), text]),
            }
        };
        lines.map(line).collect()
    }

    fn plain(&self, label: &str, value: &str, meaning: &str) -> Vec<Line<'static>> {
        self.entry(label, value, Style::new(), meaning)
    }

    /// A count that should be zero.
    fn loss(&self, label: &str, count: u64, meaning: &str) -> Vec<Line<'static>> {
        let style = if count == 0 { Style::new() } else { self.theme.warning };
        self.entry(label, &format::count(count), style, meaning)
    }
}

fn losses(quality: &Quality, writer: &Writer) -> Vec<Line<'static>> {
    let losses = quality.losses;
    let missed = match losses.missed {
        Some(missed) => writer.loss("missed runs", missed, "hook runs that the kernel skipped"),
        None => writer.entry(
            "missed runs",
            "unknown",
            writer.theme.warning,
            "this kernel does not count them (5.12 and later do)",
        ),
    };
    let on_the_way = if quality.stream_lost == 0 {
        Vec::new()
    } else {
        writer.loss("on the way", quality.stream_lost, "inputs lost here: more came than this observer took")
    };
    [
        writer.plain("events", &format::count(quality.events_total), "records from hooks since start"),
        writer.loss("ring full", losses.ring_full, "records from hooks lost: the ring buffer was full"),
        writer.loss("scan lost", losses.scan_ring_full, "records from scans lost: that scan removes nothing"),
        missed,
        writer.loss("unreadable", losses.read_failed, "kernel fields that a hook could not read"),
        writer.loss("not decoded", losses.undecodable, "records that observer could not decode"),
        writer.loss("accepts", quality.unseen_accepts, "accept() calls without an event; a scan found them"),
        on_the_way,
    ]
    .concat()
}

/// Nothing where all was read.
fn unread(quality: &Quality, writer: &Writer) -> Vec<Line<'static>> {
    let style = writer.theme.warning;
    let kinds = quality.gaps.unread().flat_map(|(kind, gap)| {
        let meaning = format!("{}. Consequence: {}", quality.gaps.advice_about(kind, gap), kind.consequence());
        writer.entry("not read", &format::count(gap.count.into()), style, &meaning)
    });
    let skipped = &quality.gaps.skipped;
    let meaning = format!("{}: {}", format::printable(&skipped.operation), format::printable(&skipped.cause));
    let rounds = format::count(skipped.rounds);
    let skipped = (skipped.rounds > 0).then(|| writer.entry("skipped", &rounds, style, &meaning));
    kinds.chain(skipped.into_iter().flatten()).collect()
}

fn scans(data: &Snapshot, writer: &Writer) -> Vec<Line<'static>> {
    let quality = &data.quality;
    let absent = || format::ABSENT.to_owned();
    let age_of = |at: Duration| format::duration(data.uptime.saturating_sub(at));
    let (age, took) = match quality.last_scan {
        None => ("none yet".to_owned(), absent()),
        Some(scan) => (age_of(scan.finished_at), format::took(scan.took)),
    };
    let coverage = quality.coverage;
    let [scanned, all] = [coverage.scanned, coverage.namespaces].map(|count| format::count(count.into()));
    let (oldest, of) = match coverage.oldest {
        None => ("none yet".to_owned(), String::new()),
        Some(scan) => {
            let name = format::printable(&scan.netns.label(data.name_of(scan.netns)));
            (age_of(scan.finished_at), format!(": {name}"))
        }
    };
    let oldest_meaning = format!("since the oldest scan of a namespace{of}");
    let queues = quality.last_fd_scan_at.map_or_else(absent, age_of);
    let drift = format::count(quality.drift.total());
    let at_most = f64::from(REGULAR_SCANS) / 10.0;
    [
        writer.plain("age", &age, "since the last scan; it made its counts exact"),
        writer.plain("oldest", &oldest, &oldest_meaning),
        writer.plain("namespaces", &format!("{scanned} of {all}"), "scanned since start"),
        writer.plain("queues", &queues, "since accept and SYN queues were read"),
        writer.plain("took", &took, &format!("the last scan; scans use {at_most} % of a CPU at most")),
        writer.plain("found", &format::count(coverage.found), "sockets in the kernel's tables, including TIME_WAIT"),
        writer.plain("scans", &format::count(quality.scans_total), "scans since start"),
        writer.plain("drift", &drift, "sockets that scans changed without an event"),
    ]
    .concat()
}

fn cost(quality: &Quality, writer: &Writer) -> Vec<Line<'static>> {
    let own = quality.own.map_or_else(
        || writer.plain("cpu", "unknown", "known after the second reading of the host"),
        |own| own_cost(own, writer),
    );
    let limited = quality.cost.iter().flat_map(|cost| limited_cost(cost, writer));
    own.into_iter().chain(limited).collect()
}

fn own_cost(own: OwnCost, writer: &Writer) -> Vec<Line<'static>> {
    let each = own.ns_per_event.map_or_else(|| format::ABSENT.to_owned(), |each| format!("{} ns", format::rate(each)));
    let cpu = format!("{:.1} %", own.cpu * 100.0);
    let memory = format!("{} MiB", format::count(own.resident >> 20));
    [
        writer.plain("cpu", &cpu, "of one CPU over the last second, all of observer"),
        writer.plain("per event", &each, "of that per event; known from 10,000 events/s on"),
        writer.plain("memory", &memory, "resident memory of observer"),
    ]
    .concat()
}

/// What the hooks cost, and what `--max-cost` made of it.
fn limited_cost(cost: &Cost, writer: &Writer) -> Vec<Line<'static>> {
    let source = if cost.is_measured { "as the kernel measured it" } else { "a figure of docs/cost.md" };
    let with = if cost.is_suspended { "it would be with hooks" } else { "with its hooks" };
    let total = format!("of all CPUs over the last second, {with}; --max-cost is {}", cost.at_most);
    let times = format!("times suspended, with {} events not recorded", format::count(cost.skipped));
    let mut out = [
        writer.plain("hooks", &format!("{} ns", format::count(cost.hook_ns.into())), &format!("a record, {source}")),
        writer.plain("in all", &cost.share.to_string(), &total),
        writer.loss("suspended", cost.suspensions, &times),
    ]
    .concat();
    if let Some(sentence) = cost.sentence() {
        out.extend(writer.entry("now", "SUSPENDED", writer.theme.warning, &sentence));
    }
    out
}

fn rights(quality: &Quality, writer: &Writer) -> Vec<Line<'static>> {
    let entry = |(capability, holding): (Capability, Holding)| {
        let style = if holding == Holding::Missing { writer.theme.warning } else { Style::new() };
        // All of them begin alike, and the column is narrow.
        let label = capability.name.trim_start_matches("CAP_");
        writer.entry(label, holding.name(), style, holding.meaning(capability))
    };
    quality.capabilities().flat_map(entry).collect()
}

fn hook(status: &HookStatus, writer: &Writer) -> Vec<Line<'static>> {
    let (method, style) = match status.method {
        Some(method) => (method.to_string(), Style::new()),
        None => ("MISSING".to_owned(), writer.theme.warning),
    };
    let mut out = writer.entry(&status.hook.to_string(), &method, style, status.hook.spec().purpose);
    for failed in &status.failed {
        let words = format::printable(&format!("not {}: {}", failed.method, failed.because));
        let lines = labelled("", LABEL, &words, writer.width.into());
        out.extend(lines.iter().map(|line| Line::styled(line.joined(), writer.theme.dim)));
    }
    out
}
