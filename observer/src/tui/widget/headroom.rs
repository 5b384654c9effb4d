//! Headroom: ephemeral ports towards one destination, file descriptors of a process, files of the host.

use std::cmp::Ordering;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Borders, Widget},
};

use super::gauge;
use crate::{
    model::{
        headroom::PortUse,
        limit::{LimitKind, Scope, level::Level},
        snapshot::{DestinationRow, EndpointKey, EndpointRow, FileUse, NamespaceRow, ProcessFiles, Snapshot},
    },
    tui::{format, text, theme::Theme},
};

/// Between text and gauge.
const GAP: u16 = 1;

/// A destination and the local address that it is reached from.
type Pair<'a> = (&'a EndpointRow, &'a DestinationRow);

/// Destinations with the highest share of their ports in use first; those whose ports are unknown come last.
fn fullest_first(data: &Snapshot) -> Vec<Pair<'_>> {
    let mut pairs: Vec<Pair<'_>> = pairs(data).collect();
    pairs.sort_by(by_fullness);
    pairs
}

fn fullest(data: &Snapshot) -> Option<Pair<'_>> {
    pairs(data).min_by(by_fullness)
}

fn pairs(data: &Snapshot) -> impl Iterator<Item = Pair<'_>> {
    data.endpoints.iter().flat_map(|row| row.destinations.iter().map(move |destination| (row, destination)))
}

fn by_fullness(a: &Pair<'_>, b: &Pair<'_>) -> Ordering {
    let part = |(_, destination): &Pair<'_>| destination.ports.map_or(-1.0, PortUse::ratio);
    part(b).total_cmp(&part(a)).then(b.1.sockets.cmp(&a.1.sockets)).then(a.0.key.cmp(&b.0.key))
}

/// The ports that the headroom shows first, as the scope of their limit.
pub(super) fn fullest_destination(data: &Snapshot) -> Option<Scope> {
    let (row, destination) = fullest(data)?;
    let EndpointKey { netns, local_ip, device, .. } = row.key;
    Some(Scope::Destination { netns, local_ip, device, remote: destination.remote })
}

/// The namespace that the first lines speak of: that of the fullest destination, else the first.
fn namespace<'a>(data: &'a Snapshot, fullest: Option<&Pair<'_>>) -> Option<&'a NamespaceRow> {
    let of_fullest = fullest.and_then(|(row, _)| data.namespaces.iter().find(|ns| ns.netns == row.key.netns));
    of_fullest.or_else(|| data.namespaces.first())
}

/// The ephemeral ports of a namespace, in words.
struct Range {
    /// "this namespace", or its name where there are several.
    of: String,
    ends: String,
    size: String,
    /// Ports that connect() skips for every destination.
    kept: String,
}

fn range(data: &Snapshot, namespace: Option<&NamespaceRow>) -> Option<Range> {
    let namespace = namespace?;
    let range = namespace.port_range?;
    let of = if data.namespaces.len() > 1 {
        namespace.netns.label(namespace.name.as_ref())
    } else {
        "this namespace".to_owned()
    };
    Some(Range {
        of,
        ends: format!("{}–{}", range.low, range.high),
        size: format::count(range.size().into()),
        kept: kept(namespace),
    })
}

fn kept(namespace: &NamespaceRow) -> String {
    let reserved = format!("{} reserved", format::count(namespace.reserved_ports.into()));
    match namespace.blocked_ports {
        Some(blocked) => format!("{reserved}, {} blocked", format::count(blocked.into())),
        None => reserved,
    }
}

fn in_use_of_ports(ports: PortUse) -> String {
    let used = format::count(ports.used.into());
    match ports.time_wait {
        0 => format!("{used} in use"),
        time_wait => format!("{used} in use, {} TIME_WAIT", format::count(time_wait.into())),
    }
}

fn left(ports: PortUse) -> String {
    format!("{} left", ports.left_text(|count| format::count(count.into())))
}

/// [`left`], and the cost of a connect() once half of the ports are in use.
fn left_and_cost(ports: PortUse) -> String {
    match ports.level() {
        Level::Ok => left(ports),
        Level::Exhausted => format!("{}, connect() fails", left(ports)),
        Level::Notice | Level::Warning | Level::Critical => format!("{}, connect() slow", left(ports)),
    }
}

/// How full something is.
#[derive(Clone, Copy)]
struct Fill {
    ratio: f64,
    level: Level,
}

impl Fill {
    fn of_ports(ports: PortUse) -> Self {
        Self { ratio: ports.ratio(), level: ports.level() }
    }

    fn of(kind: LimitKind, ratio: f64) -> Self {
        Self { ratio, level: kind.level(ratio) }
    }

    fn of_process(data: &Snapshot, files: &ProcessFiles) -> Option<Self> {
        data.host.descriptor_ratio(files).map(|ratio| Self::of(LimitKind::ProcessFiles, ratio))
    }

    fn of_host(data: &Snapshot) -> Option<Self> {
        Some(Self::of(LimitKind::HostFiles, data.host.files?.ratio()?))
    }
}

fn descriptors(data: &Snapshot, files: &ProcessFiles, noun: &str) -> String {
    in_use(files.open, data.host.most_descriptors(files), noun)
}

fn host_files(files: Option<FileUse>, noun: &str) -> String {
    let Some(files) = files else {
        return "unknown".to_owned();
    };
    in_use(files.allocated, files.practical_max(), noun)
}

/// `12 of 1,024 files`, `49 files, over the limit of 48`, `12 files, no limit`
fn in_use(used: u64, maximum: Option<u64>, noun: &str) -> String {
    match maximum {
        None => format!("{} {noun}, {}", format::count(used), format::NO_LIMIT),
        Some(maximum) if used > maximum => {
            format!("{} {noun}, over the limit of {}", format::count(used), format::count(maximum))
        }
        Some(maximum) => format!("{} of {} {noun}", format::count(used), format::count(maximum)),
    }
}

const NO_DESTINATION: &str = "no outgoing connections";
const NO_RANGE: &str = "port range unknown";

/// A line of the short form: words, and a gauge at the right if there is one.
struct Entry {
    label: &'static str,
    text: String,
    fill: Option<Fill>,
}

/// Five lines under a title, or three.
pub(crate) fn compact(data: &Snapshot, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let is_long = area.height > 3;
    let (area, label) = if is_long {
        let block = Block::new().borders(Borders::TOP).border_style(theme.dim);
        let block = block.title(Line::styled(" Headroom ", theme.title));
        let inner = block.inner(area);
        block.render(area, buf);
        (inner, 16)
    } else {
        (area, 8)
    };
    let gauge_width = if area.width >= 100 { 40 } else { 22 };
    let room = usize::from(area.width.saturating_sub(label + gauge_width + GAP));
    let entries = if is_long { long_entries(data, room) } else { short_entries(data, room) };
    for (entry, row) in entries.into_iter().zip(area.rows()) {
        text::put(Span::styled(entry.label, theme.dim), Rect { width: label, ..row }, buf);
        let has_gauge = entry.fill.is_some();
        let text_width = row.width - label - if has_gauge { gauge_width + GAP } else { 0 };
        text::put(entry.text, Rect { x: row.x + label, width: text_width, ..row }, buf);
        if let Some(Fill { ratio, level }) = entry.fill {
            let right = Rect { x: row.right() - gauge_width, width: gauge_width, ..row };
            gauge::view(ratio, level, theme, right, buf);
        }
    }
}

fn long_entries(data: &Snapshot, room: usize) -> Vec<Entry> {
    let fullest = fullest(data);
    let range = range(data, namespace(data, fullest.as_ref())).map_or_else(
        || "range unknown".to_owned(),
        |Range { of, ends, size, kept }| format!("{size} in {of} ({ends}), {kept}"),
    );
    let (towards, ports, fill) = match fullest {
        None => (NO_DESTINATION.to_owned(), String::new(), None),
        Some((row, destination)) => (
            format::towards(row.key.local_ip, row.key.device, destination.remote, room),
            destination.ports.map_or_else(
                || format!("{} sockets", format::count(destination.sockets.into())),
                |ports| format!("{}, {}", in_use_of_ports(ports), left_and_cost(ports)),
            ),
            destination.ports.map(Fill::of_ports),
        ),
    };
    vec![
        Entry { label: "ephemeral ports", text: range, fill: None },
        Entry { label: "top destination", text: towards, fill },
        Entry { label: "", text: ports, fill: None },
        process_entry("fullest process", data, room),
        Entry { label: "whole host", text: host_files(data.host.files, "files"), fill: Fill::of_host(data) },
    ]
}

fn short_entries(data: &Snapshot, room: usize) -> Vec<Entry> {
    let fullest = fullest(data);
    let (text, fill) = match fullest {
        None => (
            range(data, namespace(data, None)).map_or(NO_RANGE.to_owned(), |range| format!("{} ephemeral", range.size)),
            None,
        ),
        Some((_, destination)) => {
            let left = destination.ports.map_or_else(|| NO_RANGE.to_owned(), left);
            let remote_room = room.saturating_sub(format::text_width(&left) + " to ".len());
            let remote = format::cut_middle(&destination.remote.to_string(), remote_room);
            (format!("{left} to {remote}"), destination.ports.map(Fill::of_ports))
        }
    };
    vec![
        Entry { label: "ports", text, fill },
        process_entry("process", data, room),
        Entry { label: "host", text: host_files(data.host.files, "files"), fill: Fill::of_host(data) },
    ]
}

fn process_entry(label: &'static str, data: &Snapshot, room: usize) -> Entry {
    let Some(files) = data.host.fullest_process() else {
        return Entry { label, text: "unknown".to_owned(), fill: None };
    };
    let numbers = descriptors(data, files, "files");
    let name_room = room.saturating_sub(format::text_width(&numbers) + 2);
    let name = format::process(&format::comm(files.process.comm), files.process.pid, name_room);
    Entry { label, text: format!("{name}: {numbers}"), fill: Fill::of_process(data, files) }
}

/// The long form, beside the table. The lower parts are cut where the terminal is low, so the most urgent comes first.
pub(crate) fn panel(data: &Snapshot, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let block = Block::bordered().border_style(theme.dim).title(Line::styled(" Headroom ", theme.title));
    let inner = block.inner(area);
    block.render(area, buf);
    let width = usize::from(inner.width.saturating_sub(2));
    let mut items = panel_items(data, theme, width);
    let rows = usize::from(inner.height);
    if items.len() > rows && rows > 0 {
        items.truncate(rows - 1);
        items.push(Item::Text(Line::raw("…")));
    }
    for (item, row) in items.into_iter().zip(inner.rows()) {
        let row = Rect { x: row.x + 1, width: row.width.saturating_sub(2), ..row };
        match item {
            Item::Text(line) => text::put(line, row, buf),
            Item::Gauge(Fill { ratio, level }) => gauge::view(ratio, level, theme, row, buf),
        }
    }
}

enum Item {
    Text(Line<'static>),
    Gauge(Fill),
}

/// How many destinations follow the fullest one.
const RUNNERS_UP: usize = 8;

fn panel_items(data: &Snapshot, theme: &Theme, width: usize) -> Vec<Item> {
    let pairs = fullest_first(data);
    let mut items = Vec::new();
    let title = |text: &str| Item::Text(Line::styled(format::cut_end(text, width), theme.strong));
    let text = |text: String| Item::Text(Line::raw(format::cut_end(&text, width)));
    let gap = || Item::Text(Line::default());

    match range(data, namespace(data, pairs.first())) {
        None => items.extend([title("Ephemeral ports"), text(NO_RANGE.to_owned())]),
        Some(Range { of, ends, size, kept }) => {
            items.push(title(&format!("Ephemeral ports of {of}")));
            items.extend([text(format!("{ends}: {size}")), text(kept)]);
        }
    }
    items.extend([gap(), title("Most used destination")]);
    match pairs.first() {
        None => items.push(text(NO_DESTINATION.to_owned())),
        Some((row, destination)) => {
            let local = format::scoped(row.key.local_ip, row.key.device);
            let both = format!("{local} → {}", destination.remote);
            if format::text_width(&both) <= width {
                items.push(text(both));
            } else {
                items.push(text(local));
                items.push(text(format::cut_middle(&format!("→ {}", destination.remote), width)));
            }
            match destination.ports {
                None => items.push(text(NO_RANGE.to_owned())),
                Some(ports) => {
                    items.extend([
                        text(in_use_of_ports(ports)),
                        text(left_and_cost(ports)),
                        Item::Gauge(Fill::of_ports(ports)),
                    ]);
                }
            }
        }
    }
    items.extend([gap(), title("Fullest process")]);
    match data.host.fullest_process() {
        None => items.push(text("unknown".to_owned())),
        Some(files) => {
            items.push(text(format::process(&format::comm(files.process.comm), files.process.pid, width)));
            items.push(text(descriptors(data, files, "open files")));
            if let Some(fill) = Fill::of_process(data, files) {
                let is_own = data.host.most_descriptors(files) == files.soft_limit;
                let source = if is_own { "(its soft limit, ulimit -n)" } else { "(the kernel's limit, fs.nr_open)" };
                items.extend([text(source.to_owned()), Item::Gauge(fill)]);
            }
        }
    }
    items.extend([gap(), title("Whole host"), text(host_files(data.host.files, "open files"))]);
    items.extend(Fill::of_host(data).map(Item::Gauge));
    if pairs.len() > 1 {
        items.extend([gap(), title("Next destinations, ports used %")]);
        items.extend(pairs.iter().skip(1).take(RUNNERS_UP).map(|pair| Item::Text(runner_up(pair, width))));
    }
    items
}

fn runner_up((row, destination): &Pair<'_>, width: usize) -> Line<'static> {
    let part = destination.ports.map_or_else(|| "?".to_owned(), |ports| format::percent(ports.ratio()));
    let towards =
        format::towards(row.key.local_ip, row.key.device, destination.remote, width.saturating_sub(part.len() + 1));
    let room = width.saturating_sub(format::text_width(&towards));
    Line::raw(format!("{towards}{part:>room$}"))
}
