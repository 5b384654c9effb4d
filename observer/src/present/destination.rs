//! The fields of a destination: a remote address and port, as seen from one local address.

use super::{Cell, Field, Fields};
use crate::model::{headroom::PortUse, snapshot::DestinationRow};

/// Where numbers of ports with a socket come from.
const PORTS: &str = "the connect and bind hooks, state changes and scans";

impl Fields for DestinationRow {
    const NOUN: &'static str = "destination";
    const FIELDS: &'static [Field<Self>] = FIELDS;
}

type Column = Field<DestinationRow>;

const FIELDS: &[Column] = &[
    Column::text(
        "destination",
        &["LOCAL → REMOTE"],
        "The local address, and the remote address and port.",
        |row, _| Cell::Towards(row.local_ip, row.device, row.remote),
    )
    .source("the sockets")
    .json(&["remote_ip", "remote_port"])
    .width(29, 40, 60),
    Column::service(|row, _| Cell::service(row.service.as_deref()))
        .json(&["service"])
        .width(12, 20, 32)
        .rank(10)
        .from(100),
    Column::netns(&["NAMESPACE"], |row, _| Cell::Namespace(row.netns_name.as_ref(), row.netns))
        .width(11, 11, 16)
        .rank(3),
    Column::number(
        "ratio",
        &["USED %"],
        "% of the range",
        "Share of the ports that connect() can no longer choose. From half on connect() is slow.",
        |row, _| row.ports.map_or(Cell::Unknown, |ports| Cell::Part(ports.ratio(), ports.level())),
    )
    .source("ports left / range")
    .width(8, 8, 8)
    .rank(1),
    Column::number(
        "left",
        &["PORTS LEFT", "LEFT"],
        "ports",
        "How many more connect() calls get a port; 22-23: chance decides.",
        |row, _| match row.ports {
            Some(ports) if ports.left().is_some() => Cell::Left(ports),
            _ => Cell::Unknown,
        },
    )
    .source("the range less the ports of the other columns, as __inet_hash_connect() chooses")
    .json(&["ports.left"])
    .width(9, 11, 12)
    .rank(2),
    Column::number("used", &["IN USE", "USED"], "ports", "Ports with a connection to this destination.", |row, _| {
        of_ports(row, |ports| ports.used)
    })
    .source(PORTS)
    .json(&["ports.used"])
    .width(8, 8, 10)
    .rank(4),
    Column::number(
        "time_wait",
        &["TIME_WAIT"],
        "ports",
        "Ports in TIME_WAIT, 60 s after their connection, that connect() cannot reuse.",
        |row, _| of_ports(row, |ports| ports.time_wait),
    )
    .source("scans (iter/tcp) and net.ipv4.tcp_tw_reuse")
    .json(&["ports.time_wait"])
    .rank(5),
    Column::number(
        "blocked",
        &["BLOCKED"],
        "ports",
        "Ports that a socket occupies via bind() or listen(): no destination gets them.",
        |row, _| row.ports.and_then(|ports| ports.blocked).map_or(Cell::Unknown, |blocked| Cell::Count(blocked.into())),
    )
    .source(PORTS)
    .json(&["ports.blocked"])
    .width(8, 9, 10)
    .rank(7),
    Column::number("reserved", &["RESERVED"], "ports", "Ports that connect() must not choose.", |row, _| {
        of_ports(row, |ports| ports.reserved)
    })
    .source("net.ipv4.ip_local_reserved_ports")
    .json(&["ports.reserved"])
    .rank(8),
    Column::number("range", &["RANGE"], "ports", "All ports that connect() chooses from.", |row, _| {
        of_ports(row, |ports| ports.range)
    })
    .source("net.ipv4.ip_local_port_range")
    .json(&["ports.range"])
    .width(8, 8, 10)
    .rank(9),
    Column::number("sockets", &["SOCKETS"], "sockets", "Full sockets, connected or connecting there.", |row, _| {
        Cell::Count(row.sockets.into())
    })
    .source("state changes (inet_sock_set_state), set right by each scan (iter/tcp)")
    .json(&["sockets"])
    .width(9, 9, 10)
    .rank(6),
];

fn of_ports(row: &DestinationRow, number: impl Fn(PortUse) -> u32) -> Cell<'_> {
    row.ports.map_or(Cell::Unknown, |ports| Cell::Count(number(ports).into()))
}
