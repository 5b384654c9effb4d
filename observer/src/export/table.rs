//! The snapshot as a plain table: for pipes, tickets and terminals too small for the screen.

use std::fmt::Write as _;

use super::hits;
use crate::model::{
    name::{columns, padded, padded_left},
    snapshot::{Direction, EndpointRow, OwnerNames, Snapshot},
    units::{NetnsId, TcpState},
};

/// Columns, padded to their widest cell, then the headroom and the trust line.
pub(super) fn render(snapshot: &Snapshot) -> String {
    let mut rows = vec![
        [
            "LOCAL ENDPOINT",
            "DIR",
            "PROCESS",
            "NAMESPACE",
            "ESTABLISHED",
            "SYN_SENT",
            "CLOSE_WAIT",
            "TIME_WAIT",
            "OTHER",
            "MOST USED DESTINATION",
        ]
        .map(str::to_owned),
    ];
    rows.extend(snapshot.endpoints.iter().map(cells));
    let mut text = String::new();
    aligned(&rows, &mut text);
    // Writing to a String cannot fail.
    let _ = summary(snapshot, &mut text);
    text
}

/// Cells from here on are numbers, and stand to the right; the last is text again.
const NUMBERS: std::ops::Range<usize> = 4..9;

fn aligned<const N: usize>(rows: &[[String; N]], text: &mut String) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| columns(&row[column])).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if NUMBERS.contains(&column) { padded_left(cell, width) } else { padded(cell, width) }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn cells(row: &EndpointRow) -> [String; 10] {
    let local = match row.key.local_port {
        Some(port) => row.key.device.endpoint(row.key.local_ip, port),
        None => format!("{} (any port)", row.key.device.scoped(row.key.local_ip)),
    };
    let direction = match (row.key.direction, row.listening) {
        (Direction::Inbound, true) => "listen",
        (Direction::Inbound, false) => "in",
        (Direction::Outbound, _) => "out",
    };
    let count = |state| row.states.get(state).to_string();
    let destination = row.destinations.first().map_or_else(String::new, |most_used| match most_used.ports {
        Some(ports) => format!(
            "{}: {} ports left, {} used, {} in TIME_WAIT",
            most_used.remote,
            match ports.left() {
                Some(_) => ports.left_text(|count| count.to_string()),
                None => format!("at most {}", ports.left_at_most()),
            },
            ports.used,
            ports.time_wait
        ),
        None => most_used.remote.to_string(),
    });
    [
        local,
        direction.to_owned(),
        row.owner_names().map_or_else(|| "-".to_owned(), fd_owners),
        namespace(row.netns_name.as_deref(), row.key.netns),
        count(TcpState::Established),
        count(TcpState::SynSent),
        count(TcpState::CloseWait),
        count(TcpState::TimeWait),
        row.other_states().to_string(),
        destination,
    ]
}

/// `nginx (812)`, `nginx`, `wrk +1`.
fn fd_owners(OwnerNames { process, namesakes, others }: OwnerNames) -> String {
    match (namesakes, others) {
        (1, 0) => process.to_string(),
        (_, 0) => process.comm.to_string(),
        _ => format!("{} +{others}", process.comm),
    }
}

/// A namespace as people know it.
fn namespace(name: Option<&str>, netns: NetnsId) -> String {
    name.map_or_else(|| netns.0.to_string(), str::to_owned)
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
                namespace(row.name.as_deref(), row.netns),
                range.low,
                range.high,
                row.reserved_ports,
                row.blocked_ports.map_or_else(|| "an unknown number".to_owned(), |blocked| blocked.to_string()),
                row.time_wait
            )?;
        }
    }
    if let Some(process) = snapshot.host.fullest_process() {
        let limit = snapshot.host.most_descriptors(process);
        let limit = limit.map_or_else(|| "no practical limit".to_owned(), |limit| limit.to_string());
        writeln!(text, "file descriptors: {} has {} of {limit}", process.process, process.open)?;
    }
    if let Some(files) = snapshot.host.files {
        let max = files.practical_max().map_or_else(|| "no practical limit".to_owned(), |max| max.to_string());
        writeln!(text, "open files of the host: {} of {max}", files.allocated)?;
    }
    for line in hits::lines(snapshot) {
        writeln!(text, "{line}")?;
    }
    let quality = &snapshot.quality;
    let hooks = quality.hooks.iter().map(|status| match status.method {
        Some(method) => format!("{} by {method}", status.hook),
        None => format!("{} missing", status.hook),
    });
    writeln!(text, "{}; {} records lost", hooks.collect::<Vec<_>>().join(", "), quality.losses.total())?;
    for words in quality.gaps.advice().into_iter().chain(quality.gaps.skipped.sentence()) {
        writeln!(text, "{words}")?;
    }
    Ok(())
}
