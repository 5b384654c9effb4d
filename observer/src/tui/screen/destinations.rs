//! Destinations of this host's clients, and the local ports that are left towards each.

use std::net::{IpAddr, SocketAddr};

use crate::{
    frame::Frame,
    model::{
        device::Device,
        filter::{Filter, Filterable},
        headroom::PortUse,
        limit::level::Level,
        service::Service,
        snapshot::{DestinationRow, Direction, Snapshot},
        units::{NetnsId, TcpState},
    },
    present::format,
    tui::{pane::Explained, table::TableSource},
};

/// The destinations of all local addresses.
#[derive(Debug)]
pub(crate) struct Destinations;

impl TableSource for Destinations {
    type Row = DestinationRow;
    type Key = (NetnsId, IpAddr, Device, SocketAddr);

    const NAME: &'static str = "Destinations";
    const SORT: &'static str = "ratio";

    fn rows(data: &Frame) -> Vec<&DestinationRow> {
        data.snapshot.endpoints.iter().flat_map(|row| &row.destinations).collect()
    }

    fn key(row: &DestinationRow) -> Self::Key {
        (row.netns, row.local_ip, row.device, row.remote)
    }

    fn passes(row: &DestinationRow, filter: &Filter, _: &Snapshot) -> bool {
        filter.lets_through(&Filterable {
            addresses: &[(row.local_ip, None), (row.remote.ip(), Some(row.remote.port()))],
            processes: &[],
            netns: Some(row.netns),
            netns_name: row.netns_name.as_deref(),
            service: row.service.as_deref(),
            direction: Some(Direction::Outbound),
            device: row.device,
            has_state: &|state| state == TcpState::TimeWait && row.time_wait > 0,
            text: "",
        })
    }

    fn part_of(data: &Frame) -> Option<(&'static str, usize)> {
        let whole = data.snapshot.endpoints.iter().map(|row| row.destination_count).sum();
        (whole > Self::rows(data).len()).then_some(("the fullest", whole))
    }

    fn service(row: &DestinationRow) -> Option<&Service> {
        row.service.as_deref()
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No process of this host has connected anywhere. Only clients use ephemeral ports; servers do not."
    }

    fn explain(row: &DestinationRow, _: &Snapshot) -> Vec<Explained> {
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
            "{} more are in TIME_WAIT and reusable: connect() takes them (net.ipv4.tcp_tw_reuse)",
            count(ports.time_wait_reusable)
        );
        let mut lines = vec![
            Explained::new("the sum", sum),
            Explained::new("uncertain", by_chance(ports)),
            Explained::new("TIME_WAIT", reusable),
            Explained::new(
                "source",
                "__inet_hash_connect() in net/ipv4/inet_hashtables.c, which chooses the port for connect()",
            ),
        ];
        lines.retain(|line| !line.text.is_empty());
        if ports.level() >= Level::Notice {
            lines.push(Explained::new(
                "slow",
                "at least half of the ports are in use: connect() first tries every second port in vain, and takes many times longer",
            ));
        }
        lines
    }

    fn netns(row: &DestinationRow) -> Option<NetnsId> {
        Some(row.netns)
    }
}

/// Why the number of ports left is a range; empty where it is one number.
fn by_chance(ports: PortUse) -> String {
    if ports.left().is_none() || ports.left() == Some(ports.left_at_most()) {
        return String::new();
    }
    if !ports.is_left_to_chance() {
        return "the ports of some sockets on other devices, or the age of sockets in TIME_WAIT, are not known yet"
            .to_owned();
    }
    "the range has an odd size: each call skips its lowest or its highest port at random. The last call may fail while one \
     port is left"
        .to_owned()
}
