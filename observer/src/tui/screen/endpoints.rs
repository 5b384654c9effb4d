//! The local endpoints and what happens at each of them.

use crate::{
    model::{
        filter::{Filter, Subject},
        snapshot::{EndpointKey, EndpointRow, Snapshot},
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
    const SORT: usize = SOCKETS;
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
        let owners = row.owners.iter().map(|owner| owner.process);
        let processes: Vec<Process> = owners.chain(row.process).collect();
        filter.lets_through(&Subject {
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
        if data.trust.last_scan.is_some() {
            "Nothing listens and nothing is connected. New connections appear here at once."
        } else {
            "Waiting for the first scan of the kernel's socket table…"
        }
    }

    fn explain(row: &EndpointRow, data: &Snapshot) -> Vec<Line> {
        let Some(at) = row.beyond_port_numbers else { return Vec::new() };
        let ago = format::duration(data.uptime.saturating_sub(at));
        let passed = format!(
            "passed {ago} ago: more sockets than there are port numbers. They share this one local address and differ in \
             their remote address and port: a connection is a four-tuple, and no port is used up by being connected to"
        );
        vec![Line::new("65,536", passed)]
    }

    fn netns(row: &EndpointRow) -> Option<NetnsId> {
        Some(row.key.netns)
    }
}

/// Its place in the list.
const SOCKETS: usize = 4;

type Column = Field<EndpointRow>;

const FIELDS: &[Column] = &[
    Column::text(
        &["LOCAL ENDPOINT"],
        "Local address and port. For outgoing connections, which each have a port of their own: the local address and \
         where they go.",
        |row, _| Value::Endpoint(row),
    )
    .width(18, 24, 48),
    Column::text(&["PROCESS"], "The process that listens, or that last connected or accepted here, and its pid.", process)
        .width(9, 15, 24)
        .rank(3),
    Column::text(&["DIRECTION", "DIR"], "in: the other end connected to us. out: we connected.", |row, _| {
        Value::Direction(row.key.direction)
    })
    .width(4, 4, 10)
    .rank(7),
    Column::text(&[NAMESPACE], NAMESPACE_HELP, |row, _| Value::Namespace(row.netns_name.as_deref(), row.key.netns))
        .width(11, 11, 16)
        .rank(4)
        .from(60),
    Column::number(
        &["SOCKETS"],
        "Sockets that are connected or connecting: ESTABLISHED and other states, without TIME-WAIT and without half-open \
         requests.",
        |row, _| Value::Count(row.sockets.into()),
    )
    .rank(10)
    .from(92),
    Column::number(
        &["ESTABLISHED", "ESTAB"],
        "Sockets in ESTABLISHED; LISTEN for a listener that has no sockets.",
        established,
    )
    .width(8, 8, 12)
    .rank(1),
    Column::number(
        &["OTHER STATES", "OTHER"],
        "Sockets that open or close: SYN-SENT, SYN-RECEIVED, FIN-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING.",
        |row, _| Value::Count(other(row).into()),
    )
    .width(6, 6, 13)
    .rank(8),
    Column::number(
        &["TIME-WAIT"],
        "Closed here first; the kernel keeps the addresses for 60 s. Counted at each scan.",
        |row, _| Value::Count(row.states.get(TcpState::TimeWait).into()),
    )
    .rank(5),
    Column::number(&["OPENED/s", "OPEN/s"], "Handshakes completed over the last second.", |row, _| {
        Value::Rate(row.opened_per_second)
    })
    .width(7, 7, 9)
    .rank(2),
    Column::number(&["CLOSED/s", "CLOSE/s"], "Connections ended over the last second.", |row, _| {
        Value::Rate(row.closed_per_second)
    })
    .width(8, 8, 9)
    .rank(6),
    Column::number(&["PEAK"], "The most sockets that were seen at once.", |row, _| Value::Count(row.peak.into()))
        .width(9, 9, 10)
        .rank(11)
        .from(116),
    Column::number(
        &["FAILED"],
        "Connections that ended before their handshake was complete, since observer started.",
        |row, _| Value::Count(row.failed_total),
    )
    .width(8, 8, 10)
    .rank(12)
    .from(120),
    Column::picture(
        &["LAST MINUTE", "1 MIN"],
        "Sockets over the last minute, against the row's own highest; now is at the right.",
        |row, _| Value::Minute(&row.history),
    )
    .width(8, 16, 61)
    .rank(9),
];

/// Everything that is neither ESTABLISHED nor `TIME_WAIT`.
fn other(row: &EndpointRow) -> u32 {
    let known = row.states.get(TcpState::Established) + row.states.get(TcpState::TimeWait);
    row.states.sum().saturating_sub(known)
}

fn established<'a>(row: &'a EndpointRow, _: &'a Snapshot) -> Value<'a> {
    if row.listening && row.states.sum() == 0 {
        Value::Listening
    } else {
        Value::Count(row.states.get(TcpState::Established).into())
    }
}

fn process<'a>(row: &'a EndpointRow, _: &'a Snapshot) -> Value<'a> {
    if row.sockets > 0 && row.orphans == row.sockets { Value::Orphans } else { Value::process(row.process) }
}
