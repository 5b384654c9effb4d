//! The fields of a local endpoint.

use super::{Cell, Field, Fields};
use crate::model::{
    snapshot::{EndpointRow, Snapshot},
    units::TcpState,
};

/// Where counts of sockets come from.
const COUNTS: &str = "state changes (inet_sock_set_state), set right by each scan (iter/tcp)";

impl Fields for EndpointRow {
    const NOUN: &'static str = "endpoint";
    const FIELDS: &'static [Field<Self>] = FIELDS;
}

type Column = Field<EndpointRow>;

const FIELDS: &[Column] = &[
    Column::text(
        "local_endpoint",
        &["LOCAL ENDPOINT"],
        "Local address and port. Each outgoing connection has a port of its own: these rows show the local address and \
         the destination.",
        |row, _| Cell::Endpoint(row),
    )
    .source("the socket")
    .json(&["local_ip", "local_port", "device"])
    .width(17, 24, 48),
    Column::text(
        "process",
        &["PROCESS"],
        "The process that owns most of the sockets, and +N for N other names; processes with one name count as one. If \
         none owns any: the listener's owner, or the last process that connected or accepted here.",
        process,
    )
    .source("the connect and accept hooks, and the fd scan (iter/task_file)")
    .json(&["process"])
    .width(12, 18, 24)
    .tight(9)
    .rank(7),
    Column::text(
        "direction",
        &["DIRECTION", "DIR"],
        "in: the other end connected to this host. out: this host connected.",
        |row, _| Cell::Direction(row.key.direction),
    )
    .source("the first states of the socket, and the listeners")
    .json(&["direction"])
    .width(4, 4, 10)
    .rank(10),
    Column::service(|row, _| Cell::service(row.service.as_deref())).json(&["service"]).width(12, 16, 24).rank(9).from(100),
    Column::netns(&["NAMESPACE", "NETNS"], |row, _| Cell::Namespace(row.netns_name.as_ref(), row.key.netns))
        .json(&["netns"])
        .width(9, 11, 16)
        .rank(6)
        .from(60),
    Column::number(
        "all_sockets",
        &["ALL SOCKETS", "ALL"],
        "sockets",
        "All sockets of the row: the sum of its states. The table starts in this order.",
        |row, _| Cell::Count(row.all_sockets().into()),
    )
    .source(COUNTS)
    .width(9, 9, 12)
    .rank(13)
    .from(92),
    Column::number(
        "sockets",
        &["SOCKETS"],
        "sockets",
        "Full sockets, connected or connecting: without TIME_WAIT and without requests in SYN_RECV.",
        |row, _| Cell::Count(row.sockets.into()),
    )
    .source(COUNTS)
    .json(&["sockets"])
    .rank(14)
    .from(128),
    Column::number(
        "established",
        &["ESTABLISHED", "ESTAB"],
        "sockets",
        "Sockets in ESTABLISHED; LISTEN for a listener without sockets.",
        established,
    )
    .source(COUNTS)
    .json(&["states.established"])
    .width(7, 8, 12)
    .rank(1),
    Column::number(
        "syn_sent",
        &["SYN_SENT", "SYN_S"],
        "sockets",
        "connect() sent a SYN and has no answer yet. Many of them: a destination does not answer.",
        |row, _| state(row, TcpState::SynSent),
    )
    .source(COUNTS)
    .json(&["states.syn_sent"])
    .width(9, 9, 10)
    .tight(6)
    .rank(2),
    Column::number(
        "close_wait",
        &["CLOSE_WAIT", "CLOSE_W"],
        "sockets",
        "The other end closed, the process here has not. Many of them that stay: the process forgets to close them.",
        |row, _| state(row, TcpState::CloseWait),
    )
    .source(COUNTS)
    .json(&["states.close_wait"])
    .width(11, 11, 12)
    .tight(8)
    .rank(3),
    Column::number(
        "time_wait",
        &["TIME_WAIT", "TIME_W"],
        "sockets",
        "Closed here first; the kernel keeps the addresses for 60 s.",
        |row, _| state(row, TcpState::TimeWait),
    )
    .source("scans (iter/tcp)")
    .json(&["states.time_wait"])
    .width(10, 10, 11)
    .tight(7)
    .rank(4),
    Column::number(
        "other_states",
        &["OTHER STATES", "OTHER"],
        "sockets",
        "SYN_RECV, FIN_WAIT1, FIN_WAIT2, LAST_ACK and CLOSING: sockets that open or close.",
        |row, _| Cell::Count(row.other_states().into()),
    )
    .source(COUNTS)
    .width(6, 6, 13)
    .tight(6)
    .rank(5),
    Column::number(
        "opened_per_second",
        &["OPENED/s", "OPEN/s"],
        "connections per second",
        "Handshakes completed over the last second.",
        |row, _| Cell::Rate(row.opened_per_second),
    )
    .source("state changes (inet_sock_set_state)")
    .width(7, 7, 9)
    .rank(8),
    Column::number(
        "closed_per_second",
        &["CLOSED/s", "CLOSE/s"],
        "connections per second",
        "Connections ended over the last second.",
        |row, _| Cell::Rate(row.closed_per_second),
    )
    .source("state changes (inet_sock_set_state)")
    .width(8, 8, 9)
    .rank(11),
    Column::number(
        "peak",
        &["PEAK"],
        "sockets",
        "The most sockets at one time, since observer started or the last reset (R).",
        |row, _| Cell::Count(row.peak.into()),
    )
    .source(COUNTS)
    .width(9, 9, 10)
    .rank(15)
    .from(138),
    Column::number(
        "unopened_total",
        &["UNOPENED", "UNOPEN"],
        "connections",
        "Connections that ended before their handshake was complete, since observer started or the last reset (R): refused, \
         timed out, or given up by the application.",
        |row, _| Cell::Count(row.failed_total),
    )
    .source("state changes (inet_sock_set_state)")
    .json(&["unopened_total"])
    .width(8, 8, 10)
    .rank(16)
    .from(148),
    Column::picture(
        "last_minute",
        &["LAST MINUTE", "1 MIN"],
        "Sockets over the last minute, against the row's own highest; now is at the right.",
        |row, _| Cell::Minute(&row.history),
    )
    .source("one sample of SOCKETS a second")
    .width(8, 16, 61)
    .rank(12),
    Column::text(
        "most_used_destination",
        &["MOST USED DESTINATION", "TOP DESTINATION"],
        "The destination that uses the most local ports, with the ports that are left towards it.",
        |row, _| Cell::Destination(row.destinations.first()),
    )
    .source("the fields of destinations")
    .rank(17)
    .off_screen(),
];

fn state(row: &EndpointRow, state: TcpState) -> Cell<'_> {
    Cell::Count(row.states.get(state).into())
}

fn established<'a>(row: &'a EndpointRow, _: &'a Snapshot) -> Cell<'a> {
    if row.listening && row.states.sum() == 0 { Cell::Listening } else { state(row, TcpState::Established) }
}

fn process<'a>(row: &'a EndpointRow, _: &'a Snapshot) -> Cell<'a> {
    if row.sockets > 0 && row.orphans == row.sockets { Cell::Orphans } else { Cell::fd_owners(row.owner_names()) }
}
