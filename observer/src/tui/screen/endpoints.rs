//! Local endpoints and their connections.

use crate::{
    frame::Frame,
    model::{
        filter::{Filter, Filterable},
        service::Service,
        snapshot::{EndpointKey, EndpointRow, OwnerRow, Snapshot},
        units::{NetnsId, Process, TcpState},
    },
    present::format,
    tui::{pane::Explained, table::TableSource},
};

/// The rows of the main screen.
#[derive(Debug)]
pub(crate) struct Endpoints;

impl TableSource for Endpoints {
    type Row = EndpointRow;
    type Key = EndpointKey;

    const NAME: &'static str = "Endpoints";
    const SORT: &'static str = "all_sockets";

    fn rows(data: &Frame) -> Vec<&EndpointRow> {
        data.snapshot.endpoints.iter().collect()
    }

    fn key(row: &EndpointRow) -> EndpointKey {
        row.key
    }

    fn passes(row: &EndpointRow, filter: &Filter, _: &Snapshot) -> bool {
        let mut addresses = vec![(row.key.local_ip, row.key.local_port)];
        addresses.extend(row.destinations.iter().map(|it| (it.remote.ip(), Some(it.remote.port()))));
        // The listener's owner matches too, whichever process accepted the connections.
        let processes: Vec<Process> = row.fd_owners().into_iter().chain(row.listeners.iter().copied()).collect();
        filter.lets_through(&Filterable {
            addresses: &addresses,
            processes: &processes,
            netns: Some(row.key.netns),
            netns_name: row.netns_name.as_deref(),
            service: row.service.as_deref(),
            direction: Some(row.key.direction),
            device: row.key.device,
            has_state: &|state| row.states.get(state) > 0 || state == TcpState::Listen && row.listening,
            text: "",
        })
    }

    fn service(row: &EndpointRow) -> Option<&Service> {
        row.service.as_deref()
    }

    fn nothing(data: &Snapshot) -> &'static str {
        if data.quality.last_scan.is_some() {
            "No listeners and no connections. New ones appear here at once."
        } else {
            "Waiting for the first scan of the kernel's socket table…"
        }
    }

    fn explain(row: &EndpointRow, data: &Snapshot) -> Vec<Explained> {
        let mut lines = Vec::new();
        if row.all_sockets() > 0 {
            let states =
                row.states.iter().map(|(state, count)| format!("{} {}", state.label(), format::count(count.into())));
            lines.push(Explained::new("STATES", states.collect::<Vec<_>>().join(", ")));
        }
        if !row.owners.is_empty() {
            lines.push(Explained::new("OWNERS", listed(row.owners.iter().map(owner))));
        }
        if !row.listeners.is_empty() {
            lines.push(Explained::new("LISTENERS", listed(row.listeners.iter().map(Process::to_string))));
        }
        if row.other_services > 0 {
            let others = match row.other_services {
                1 => "1 other service has sockets here".to_owned(),
                many => format!("{} other services have sockets here", format::count(many as u64)),
            };
            lines.push(Explained::new("SERVICES", others));
        }
        if let Some(at) = row.beyond_port_numbers {
            let ago = format::duration(data.uptime.saturating_sub(at));
            let passed = format!(
                "passed {ago} ago: more sockets than port numbers. They share this one local address and differ in their \
                 remote address and port: a connection is a four-tuple, and an incoming connection uses no port"
            );
            lines.push(Explained::new("65,536", passed));
        }
        lines
    }

    fn netns(row: &EndpointRow) -> Option<NetnsId> {
        Some(row.key.netns)
    }
}

/// As many processes are listed.
const LISTED: usize = 8;

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let text = names.take(LISTED).collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format::printable(&format!("{text}{more}"))
}

fn owner(row: &OwnerRow) -> String {
    let OwnerRow { process, sockets, shared } = row;
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
