//! Where clients of this host connect to, and how many local ports are left to do so.

use std::net::{IpAddr, SocketAddr};

use crate::{
    model::{
        device::Device,
        filter::{Filter, Scope},
        headroom::PortUse,
        limit::level::Level,
        snapshot::{DestinationRow, Direction, Snapshot},
        units::{NetnsId, TcpState},
    },
    tui::{
        format,
        table::{Field, Line, NAMESPACE, NAMESPACE_HELP, Source, Value},
    },
};

/// The destinations of all local addresses.
#[derive(Debug)]
pub(crate) struct Destinations;

impl Source for Destinations {
    type Row = DestinationRow;
    type Key = (NetnsId, IpAddr, Device, SocketAddr);

    const NAME: &'static str = "Destinations";
    const SORT: usize = TAKEN;
    const FIELDS: &'static [Column] = FIELDS;

    fn rows(data: &Snapshot) -> Vec<&DestinationRow> {
        data.endpoints.iter().flat_map(|row| &row.destinations).collect()
    }

    fn key(row: &DestinationRow) -> Self::Key {
        (row.netns, row.local_ip, row.device, row.remote)
    }

    fn passes(row: &DestinationRow, filter: &Filter, _: &Snapshot) -> bool {
        filter.lets_through(&Scope {
            addresses: &[(row.local_ip, None), (row.remote.ip(), Some(row.remote.port()))],
            processes: &[],
            netns: Some(row.netns),
            netns_name: row.netns_name.as_deref(),
            direction: Some(Direction::Outbound),
            device: row.device,
            has_state: &|state| state == TcpState::TimeWait && row.time_wait > 0,
            text: "",
        })
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No process of this host has connected anywhere. Only clients take ports of the ephemeral range; servers do not."
    }

    fn explain(row: &DestinationRow, _: &Snapshot) -> Vec<Line> {
        let Some(ports) = row.ports else { return Vec::new() };
        let count = |count: u32| format::count(count.into());
        let known = |number: Option<u32>| number.map_or_else(|| "?".to_owned(), count);
        let sum = format!(
            "{} left = {} in the range - {} reserved - {} blocked - {} in use - {} in TIME_WAIT",
            ports.left_text(count),
            count(ports.range),
            count(ports.reserved),
            known(ports.blocked),
            count(ports.used),
            count(ports.time_wait),
        );
        let reusable = format!(
            "{} more wait, and connect() takes them over (net.ipv4.tcp_tw_reuse)",
            count(ports.time_wait_reusable)
        );
        let mut lines = vec![
            Line::new("the sum", sum),
            Line::new("uncertain", by_chance(ports)),
            Line::new("TIME_WAIT", reusable),
            Line::new("from", "__inet_hash_connect() in net/ipv4/inet_hashtables.c: the port that connect() chooses"),
        ];
        lines.retain(|line| !line.text.is_empty());
        if ports.level() >= Level::Notice {
            lines.push(Line::new(
                "the cliff",
                "more than half is taken: connect() walks every second port in vain first, and is many times dearer",
            ));
        }
        lines
    }

    fn netns(row: &DestinationRow) -> Option<NetnsId> {
        Some(row.netns)
    }
}

type Column = Field<DestinationRow>;

/// Its place in the list.
const TAKEN: usize = 2;

const FIELDS: &[Column] =
    &[
        Column::text(
            &["FROM → TO"],
            "The local address, and the remote address and port that it is connected to.",
            |row, _| Value::Towards(row.local_ip, row.device, row.remote),
        )
        .width(29, 40, 60),
        Column::text(&[NAMESPACE], NAMESPACE_HELP, |row, _| Value::Namespace(row.netns_name.as_deref(), row.netns))
            .width(11, 11, 16)
            .rank(3),
        Column::number(&["TAKEN"], "The part of the ports that connect() cannot choose any more.", |row, _| {
            row.ports.map_or(Value::Unknown, |ports| Value::Part(ports.ratio(), ports.level()))
        })
        .width(8, 8, 8)
        .rank(1),
        Column::number(&["PORTS LEFT", "LEFT"], "How many more connect()s get a port; 22-23: by chance.", |row, _| {
            match row.ports {
                Some(ports) if ports.left().is_some() => Value::Left(ports),
                _ => Value::Unknown,
            }
        })
        .width(9, 11, 12)
        .rank(2),
        Column::number(&["IN USE", "USED"], "Ports with a connection to this destination.", |row, _| {
            of_ports(row, |ports| ports.used)
        })
        .width(8, 8, 10)
        .rank(4),
        Column::number(&["TIME_WAIT"], "Ports that wait out the 60 s after their connection.", |row, _| {
            of_ports(row, |ports| ports.time_wait)
        })
        .rank(5),
        Column::number(
            &["BLOCKED"],
            "Ports that a socket holds by bind() or listen(): no destination gets them.",
            |row, _| {
                row.ports.and_then(|ports| ports.blocked).map_or(Value::Unknown, |blocked| Value::Count(blocked.into()))
            },
        )
        .width(8, 9, 10)
        .rank(7),
        Column::number(&["RESERVED"], "Ports set apart by net.ipv4.ip_local_reserved_ports.", |row, _| {
            of_ports(row, |ports| ports.reserved)
        })
        .rank(8),
        Column::number(&["RANGE"], "All ports of net.ipv4.ip_local_port_range.", |row, _| {
            of_ports(row, |ports| ports.range)
        })
        .width(8, 8, 10)
        .rank(9),
        Column::number(&["SOCKETS"], "Sockets that are connected or connecting there.", |row, _| {
            Value::Count(row.sockets.into())
        })
        .width(9, 9, 10)
        .rank(6),
    ];

/// Why what is left is no single number; empty where it is one.
fn by_chance(ports: PortUse) -> String {
    if ports.left().is_none() || ports.left() == Some(ports.left_at_most()) {
        return String::new();
    }
    if !ports.is_left_to_chance() {
        return "the ports of some sockets on other devices, or the age of TIME_WAITs, are not known yet".to_owned();
    }
    "each call passes over the lowest or the highest port of a range of odd size, by chance: the last one may fail while \
     one of these is left"
        .to_owned()
}

fn of_ports(row: &DestinationRow, number: impl Fn(PortUse) -> u32) -> Value<'_> {
    row.ports.map_or(Value::Unknown, |ports| Value::Count(number(ports).into()))
}
