//! Data quality: losses, scan age, drift and attach methods, and what observer itself costs.

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
        filter::Filter,
        name::{padded, padded_left},
        quality::{HookStatus, Quality},
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

const LABEL: usize = 14;
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
        let block = block.title(Line::styled(" Data quality: losses, scans, cost, hooks ", theme.title));
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
    [
        writer.plain("events", &format::count(quality.events_total), "records from hooks since start"),
        writer.loss("ring full", losses.ring_full, "records from hooks lost: the ring buffer was full"),
        writer.loss("scan lost", losses.scan_ring_full, "records from scans lost: that scan removes nothing"),
        missed,
        writer.loss("unreadable", losses.read_failed, "kernel fields that a hook could not read"),
        writer.loss("not decoded", losses.undecodable, "records that observer could not decode"),
        writer.loss("accepts", quality.unseen_accepts, "accept() calls without an event; a scan found them"),
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
    let (age, took, found) = match quality.last_scan {
        None => ("none yet".to_owned(), absent(), absent()),
        Some(scan) => (
            format::duration(data.uptime.saturating_sub(scan.finished_at)),
            format::took(scan.took),
            format::count(scan.found.into()),
        ),
    };
    let drift = format::count(quality.drift.total());
    [
        writer.plain("age", &age, "since the last scan; it made every count exact"),
        writer.plain("took", &took, "the last scan; scans use 2 % of a CPU at most"),
        writer.plain("found", &found, "sockets in the kernel's tables, including TIME_WAIT"),
        writer.plain("scans", &format::count(quality.scans_total), "scans since start"),
        writer.plain("drift", &drift, "sockets that scans changed without an event"),
    ]
    .concat()
}

fn cost(quality: &Quality, writer: &Writer) -> Vec<Line<'static>> {
    let Some(own) = quality.own else {
        return writer.plain("cpu", "unknown", "known after the second reading of the host");
    };
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
