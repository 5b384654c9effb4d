//! The local endpoints and what happens at each of them.

use crate::{
    model::{
        filter::{Filter, Scope},
        snapshot::{EndpointKey, EndpointRow, OwnerRow, Snapshot},
        units::{NetnsId, Process, TcpState},
    },
    tui::{
        format,
        table::{Field, Line, NAMESPACE, NAMESPACE_HELP, Source, Value},
    },
};

/// The rows of the main screen.
#[derive(Debug)]
pub(crate) struct Endpoints;

impl Source for Endpoints {
    type Row = EndpointRow;
    type Key = EndpointKey;

    const NAME: &'static str = "Endpoints";
    const SORT: usize = ALL;
    const FIELDS: &'static [Column] = FIELDS;

    fn rows(data: &Snapshot) -> Vec<&EndpointRow> {
        data.endpoints.iter().collect()
    }

    fn key(row: &EndpointRow) -> EndpointKey {
        row.key
    }

    fn passes(row: &EndpointRow, filter: &Filter, _: &Snapshot) -> bool {
        let mut addresses = vec![(row.key.local_ip, row.key.local_port)];
        addresses.extend(row.destinations.iter().map(|it| (it.remote.ip(), Some(it.remote.port()))));
        // Who holds the listener too: it is asked for by its own name, whoever took the connections.
        let processes: Vec<Process> = row.fd_owners().into_iter().chain(row.listeners.iter().copied()).collect();
        filter.lets_through(&Scope {
            addresses: &addresses,
            processes: &processes,
            netns: Some(row.key.netns),
            netns_name: row.netns_name.as_deref(),
            direction: Some(row.key.direction),
            device: row.key.device,
            has_state: &|state| row.states.get(state) > 0 || state == TcpState::Listen && row.listening,
            text: "",
        })
    }

    fn nothing(data: &Snapshot) -> &'static str {
        if data.quality.last_scan.is_some() {
            "Nothing listens and nothing is connected. New connections appear here at once."
        } else {
            "Waiting for the first scan of the kernel's socket table…"
        }
    }

    fn explain(row: &EndpointRow, data: &Snapshot) -> Vec<Line> {
        let mut lines = Vec::new();
        if row.all_sockets() > 0 {
            let states =
                row.states.iter().map(|(state, count)| format!("{} {}", state.label(), format::count(count.into())));
            lines.push(Line::new("STATES", states.collect::<Vec<_>>().join(", ")));
        }
        if !row.owners.is_empty() {
            lines.push(Line::new("HELD BY", listed(row.owners.iter().map(held_by))));
        }
        if !row.listeners.is_empty() {
            lines.push(Line::new("LISTENER OF", listed(row.listeners.iter().map(Process::to_string))));
        }
        if let Some(at) = row.beyond_port_numbers {
            let ago = format::duration(data.uptime.saturating_sub(at));
            let passed = format!(
                "passed {ago} ago: more sockets than there are port numbers. They share this one local address and differ \
                 in their remote address and port: a connection is a four-tuple, and no port is used up by being \
                 connected to"
            );
            lines.push(Line::new("65,536", passed));
        }
        lines
    }

    fn netns(row: &EndpointRow) -> Option<NetnsId> {
        Some(row.key.netns)
    }
}

/// Its place in the list.
const ALL: usize = 4;

type Column = Field<EndpointRow>;

const FIELDS: &[Column] = &[
    Column::text(
        &["LOCAL ENDPOINT"],
        "Local address and port. For outgoing connections, which each have a port of their own: the local address and \
         where they go.",
        |row, _| Value::Endpoint(row),
    )
    .width(17, 24, 48),
    Column::text(
        &["PROCESS"],
        "The process that holds most of the sockets, and +N for N other names; processes of one name are one. Where no \
         process holds any: who holds the listener, or last connected or accepted here.",
        process,
    )
    .width(9, 16, 24)
    .tight(9)
    .rank(7),
    Column::text(&["DIRECTION", "DIR"], "in: the other end connected to us. out: we connected.", |row, _| {
        Value::Direction(row.key.direction)
    })
    .width(4, 4, 10)
    .rank(9),
    Column::text(&[NAMESPACE, "NETNS"], NAMESPACE_HELP, |row, _| {
        Value::Namespace(row.netns_name.as_deref(), row.key.netns)
    })
    .width(9, 11, 16)
    .rank(6)
    .from(60),
    Column::number(
        &["ALL SOCKETS", "ALL"],
        "All sockets of the row: the sum of its states. The table begins in this order.",
        |row, _| Value::Count(row.all_sockets().into()),
    )
    .width(9, 9, 12)
    .rank(12)
    .from(92),
    Column::number(
        &["SOCKETS"],
        "Full sockets that are connected or connecting: without TIME_WAIT, and without requests in SYN_RECV.",
        |row, _| Value::Count(row.sockets.into()),
    )
    .rank(13)
    .from(128),
    Column::number(
        &["ESTABLISHED", "ESTAB"],
        "Sockets in ESTABLISHED; LISTEN for a listener that has no sockets.",
        established,
    )
    .width(7, 8, 12)
    .rank(1),
    Column::number(
        &["SYN_SENT", "SYN_S"],
        "connect() sent a SYN and has no answer yet: many of them wait for a destination that does not answer.",
        |row, _| Value::Count(row.states.get(TcpState::SynSent).into()),
    )
    .width(9, 9, 10)
    .tight(6)
    .rank(2),
    Column::number(
        &["CLOSE_WAIT", "CLOSE_W"],
        "The other end closed, the process here has not: many of them that stay are sockets that it forgot to close.",
        |row, _| Value::Count(row.states.get(TcpState::CloseWait).into()),
    )
    .width(11, 11, 12)
    .tight(8)
    .rank(3),
    Column::number(
        &["TIME_WAIT", "TIME_W"],
        "Closed here first; the kernel keeps the addresses for 60 s. Counted at each scan.",
        |row, _| Value::Count(row.states.get(TcpState::TimeWait).into()),
    )
    .width(10, 10, 11)
    .tight(7)
    .rank(4),
    Column::number(
        &["OTHER STATES", "OTHER"],
        "The rest: SYN_RECV, FIN_WAIT1, FIN_WAIT2, LAST_ACK and CLOSING, sockets that open or close.",
        |row, _| Value::Count(row.other_states().into()),
    )
    .width(6, 6, 13)
    .tight(6)
    .rank(5),
    Column::number(&["OPENED/s", "OPEN/s"], "Handshakes completed over the last second.", |row, _| {
        Value::Rate(row.opened_per_second)
    })
    .width(7, 7, 9)
    .rank(8),
    Column::number(&["CLOSED/s", "CLOSE/s"], "Connections ended over the last second.", |row, _| {
        Value::Rate(row.closed_per_second)
    })
    .width(8, 8, 9)
    .rank(10),
    Column::number(&["PEAK"], "The most sockets that were seen at once.", |row, _| Value::Count(row.peak.into()))
        .width(9, 9, 10)
        .rank(14)
        .from(138),
    Column::number(
        &["UNOPENED", "UNOPEN"],
        "Ended before their handshake was complete, since observer started: refused, timed out, or given up by the application.",
        |row, _| Value::Count(row.failed_total),
    )
    .width(8, 8, 10)
    .rank(15)
    .from(148),
    Column::picture(
        &["LAST MINUTE", "1 MIN"],
        "Sockets over the last minute, against the row's own highest; now is at the right.",
        |row, _| Value::Minute(&row.history),
    )
    .width(8, 16, 61)
    .rank(11),
];

fn established<'a>(row: &'a EndpointRow, _: &'a Snapshot) -> Value<'a> {
    if row.listening && row.states.sum() == 0 {
        Value::Listening
    } else {
        Value::Count(row.states.get(TcpState::Established).into())
    }
}

fn process<'a>(row: &'a EndpointRow, _: &'a Snapshot) -> Value<'a> {
    if row.sockets > 0 && row.orphans == row.sockets { Value::Orphans } else { Value::fd_owners(row.owner_names()) }
}

/// As many processes are listed.
const LISTED: usize = 8;

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let text = names.take(LISTED).collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format::printable(&format!("{text}{more}"))
}

fn held_by(owner: &OwnerRow) -> String {
    let OwnerRow { process, sockets, shared } = owner;
    match (sockets, shared) {
        (_, 0) => format!("{process} {}", format::count((*sockets).into())),
        (0, _) => format!("{process} {} with others", format::count((*shared).into())),
        _ => format!(
            "{process} {} and {} with others",
            format::count((*sockets).into()),
            format::count((*shared).into())
        ),
    }
}
