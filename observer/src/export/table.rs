//! The snapshot as a plain table: for pipes, tickets and terminals too small for the screen.

use std::fmt::Write as _;

use super::hits;
use crate::{
    model::{
        limit::LimitKind,
        name::{columns, padded, padded_left},
        snapshot::Snapshot,
    },
    present::{
        Field, Fields, Order,
        field::{NETNS_ID, SERVICE_ID},
        format, service, sort,
    },
};

/// The fields of an endpoint that the table has.
const COLUMNS: [&str; 11] = [
    "local_endpoint",
    "direction",
    "process",
    SERVICE_ID,
    NETNS_ID,
    "established",
    "syn_sent",
    "close_wait",
    "time_wait",
    "other_states",
    "most_used_destination",
];

/// The fields of a service that the table has.
const OF_SERVICES: [&str; 13] = [
    SERVICE_ID,
    "kind",
    "sockets",
    "established",
    "syn_sent",
    "close_wait",
    "other_states",
    "listeners",
    "orphans",
    "failures_total",
    "left",
    "descriptors",
    "fullest_process",
];

/// Columns, padded to their widest cell, in the order of the field `sort`: endpoints, then services where one is known; then
/// the headroom and the data quality.
pub(super) fn render(snapshot: &Snapshot, sort: Option<&str>) -> String {
    let mut text = String::new();
    aligned(&COLUMNS, &snapshot.endpoints, snapshot, sort, &mut text);
    if snapshot.services.iter().any(|row| row.service.is_some()) {
        text.push('\n');
        aligned(&OF_SERVICES, &snapshot.services, snapshot, sort, &mut text);
    }
    // Writing to a String cannot fail.
    let _ = summary(snapshot, &mut text);
    text
}

fn aligned<R: Fields>(ids: &[&str], rows: &[R], snapshot: &Snapshot, sort: Option<&str>, text: &mut String) {
    let fields: Vec<&Field<R>> = ids.iter().filter_map(|id| R::field(id)).collect();
    let mut lines = vec![fields.iter().map(|field| field.title().to_owned()).collect::<Vec<_>>()];
    let cells = |row| fields.iter().map(|field| (field.get)(row, snapshot).plain()).collect();
    lines.extend(sort::by_id(rows, snapshot, sort).into_iter().map(cells));
    let orders: Vec<Order> = fields.iter().map(|field| field.order).collect();
    write_whole(&lines, &orders, text);
}

/// Lines of cells, each column as wide as its widest cell: what goes into a file or a pipe is whole.
pub(super) fn write_whole(lines: &[Vec<String>], orders: &[Order], text: &mut String) {
    let width = |column: usize| lines.iter().map(|row| columns(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..orders.len()).map(width).collect();
    for row in lines {
        let cells = row.iter().zip(orders).zip(&widths).map(|((cell, order), width)| match order {
            Order::Text | Order::None => padded(cell, *width),
            Order::Number | Order::Time | Order::Rank => padded_left(cell, *width),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// How much there can be, without grouping: other programs may read it.
fn plain(maximum: Option<u64>) -> String {
    maximum.map_or_else(|| format::NO_LIMIT.to_owned(), |maximum| maximum.to_string())
}

fn summary(snapshot: &Snapshot, text: &mut String) -> std::fmt::Result {
    let totals = &snapshot.totals;
    writeln!(text, "\n{} sockets, {} connections", totals.sockets, totals.connections)?;
    for row in &snapshot.namespaces {
        if let Some(range) = row.port_range {
            let found = match range.found() {
                (least, most) if least == most => most.to_string(),
                (least, most) => format!("{least}-{most}"),
            };
            writeln!(
                text,
                "ephemeral ports of {}: {}-{}, {found} for each destination, {} reserved, {} blocked by explicit binds; \
                 {} sockets in TIME_WAIT",
                row.netns.label(row.name.as_ref()),
                range.low,
                range.high,
                row.reserved_ports,
                row.blocked_ports.map_or_else(|| "an unknown number".to_owned(), |blocked| blocked.to_string()),
                row.time_wait
            )?;
        }
    }
    if let Some(process) = snapshot.host.fullest_process() {
        let most = snapshot.host.most_descriptors(process);
        let is_beyond = most.is_some_and(|most| process.open > most);
        let why = if is_beyond { format!(": {}", LimitKind::ProcessFiles.why_beyond()) } else { String::new() };
        let row = snapshot.processes.iter().find(|row| row.process.pid == process.process.pid);
        let within = service::within(row.and_then(|row| row.service.as_deref()));
        writeln!(text, "file descriptors: {}{within} has {} of {}{why}", process.process, process.open, plain(most))?;
    }
    if let Some(files) = snapshot.host.files {
        let max = plain(files.practical_max());
        writeln!(text, "open files of the host: {} of {max}", files.allocated)?;
    }
    for line in hits::lines(snapshot) {
        writeln!(text, "{line}")?;
    }
    let quality = &snapshot.quality;
    let hooks = quality.hooks.iter().map(|status| match status.method {
        Some(method) => format!("{} via {method}", status.hook),
        None => format!("{} missing", status.hook),
    });
    writeln!(text, "{}; {} records lost", hooks.collect::<Vec<_>>().join(", "), quality.lost_total())?;
    let gaps = &quality.gaps;
    for words in gaps.advice().into_iter().chain(gaps.skipped.sentence()).chain(quality.suspension()) {
        writeln!(text, "{words}")?;
    }
    Ok(())
}
