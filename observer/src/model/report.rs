//! The model as a snapshot.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime},
};

use rustc_hash::FxHashMap;

use super::{
    Model,
    endpoint::{Destination, Endpoint},
    namespace::Namespace,
    snapshot::{
        DestinationRow, Direction, EndpointKey, EndpointRow, NamespaceRow, OwnerRow, PortUse, Snapshot, Totals,
    },
    units::{NetnsId, Process, StateCounts, TcpState},
};

/// Groups of failures in a snapshot.
const FAILURES: usize = 64;

impl Model {
    /// Aggregates as they are now. Of each outbound endpoint the `destinations` most used destinations are listed.
    #[must_use]
    pub fn snapshot(&self, taken_at: SystemTime, uptime: Duration, destinations: usize) -> Snapshot {
        let mut by_endpoint = self.destinations_by_endpoint();
        let mut owners = self.owners_by_endpoint();
        let mut endpoints: Vec<EndpointRow> = self
            .endpoints
            .iter()
            .map(|(index, row)| {
                let all = by_endpoint.remove(&index).unwrap_or_default();
                self.endpoint_row(row, all, destinations, owners.remove(&index).unwrap_or_default())
            })
            .collect();
        endpoints.sort_unstable_by_key(|row| (Reverse(row.sockets), row.key));
        let namespaces = self.namespace_rows(&endpoints);
        Snapshot {
            taken_at,
            uptime,
            totals: Totals {
                sockets: self.len(),
                connections: self.len() - self.sockets.pairs().min(self.len()),
                peak_sockets: self.peak_sockets,
                opened_total: self.totals.opened,
                closed_total: self.totals.closed,
                failed_total: self.totals.failed,
                opened_per_second: self.totals.opened_per_second,
                closed_per_second: self.totals.closed_per_second,
            },
            walls: self.walls(),
            findings: self.findings(&endpoints, &namespaces),
            namespaces,
            endpoints,
            host: self.host.clone(),
            trust: self.trust.clone(),
            failures: self.failures.newest(FAILURES),
            failures_total: self.failures.total(),
        }
    }

    /// The ports of one destination.
    pub(super) fn ports_of(&self, destination: u32, netns: NetnsId) -> Option<PortUse> {
        port_use(self.destinations.get(destination)?, self.namespaces.get(&netns))
    }

    fn destinations_by_endpoint(&self) -> FxHashMap<u32, Vec<&Destination>> {
        let mut by_endpoint: FxHashMap<u32, Vec<&Destination>> = FxHashMap::default();
        for row in self.destinations.iter() {
            by_endpoint.entry(row.endpoint).or_default().push(row);
        }
        by_endpoint
    }

    fn owners_by_endpoint(&self) -> FxHashMap<u32, Owners> {
        let mut by_endpoint: FxHashMap<u32, Owners> = FxHashMap::default();
        for (endpoint, process, sockets) in self.owners.iter() {
            let owners = by_endpoint.entry(endpoint).or_default();
            match process {
                Some(process) => owners.processes.push(OwnerRow { process, sockets }),
                None => owners.orphans += sockets,
            }
        }
        for owners in by_endpoint.values_mut() {
            owners.processes.sort_unstable_by_key(|row| (Reverse(row.sockets), row.process.pid));
        }
        by_endpoint
    }

    fn endpoint_row(&self, row: &Endpoint, mut all: Vec<&Destination>, most: usize, owners: Owners) -> EndpointRow {
        let rank = |row: &&Destination| (Reverse(ports_taken(row)), Reverse(row.sockets), row.remote);
        let destination_count = all.len();
        if destination_count > most && most > 0 {
            all.select_nth_unstable_by_key(most - 1, rank);
        }
        all.truncate(most);
        all.sort_unstable_by_key(rank);
        let namespace = self.namespaces.get(&row.key.netns);
        EndpointRow {
            key: row.key,
            netns_name: namespace.and_then(|namespace| namespace.reading.name.clone()),
            listening: row.listeners > 0,
            sockets: row.states.sum(),
            peak: row.peak,
            states: row.states + row.minis.last,
            opened_total: row.flow.opened,
            closed_total: row.flow.closed,
            failed_total: row.flow.failed,
            opened_per_second: row.flow.opened_per_second,
            closed_per_second: row.flow.closed_per_second,
            process: self.process_of(row, &owners),
            owners: owners.processes,
            orphans: owners.orphans,
            history: row.history.clone(),
            destination_count,
            destinations: all.into_iter().map(|it| destination_row(it, row.key, namespace)).collect(),
        }
    }

    /// Inbound: the process that listens stands for connections not yet accepted too.
    fn process_of(&self, row: &Endpoint, owners: &Owners) -> Option<Process> {
        let listener = match (row.key.direction, row.key.local_port) {
            (Direction::Inbound, Some(port)) => {
                self.listeners.covering(row.key.netns, row.key.local_ip, port).and_then(|it| it.process)
            }
            _ => None,
        };
        listener.or_else(|| owners.processes.first().map(|row| row.process)).or(row.process)
    }

    fn namespace_rows(&self, endpoints: &[EndpointRow]) -> Vec<NamespaceRow> {
        let mut states: FxHashMap<NetnsId, StateCounts> = FxHashMap::default();
        for row in endpoints {
            let sum = states.entry(row.key.netns).or_default();
            *sum = *sum + row.states;
        }
        let count = |netns: &NetnsId, state: TcpState| states.get(netns).map_or(0, |states| states.get(state));
        let mut rows: Vec<NamespaceRow> = self
            .namespaces
            .iter()
            .map(|(netns, namespace)| NamespaceRow {
                netns: *netns,
                name: namespace.reading.name.clone(),
                port_range: namespace.reading.port_range,
                reserved_ports: namespace.reserved,
                tcp_tw_reuse: namespace.reading.tcp_tw_reuse,
                established: count(netns, TcpState::Established),
                time_wait: count(netns, TcpState::TimeWait),
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.netns);
        rows
    }
}

/// Who holds the sockets of an endpoint.
#[derive(Default)]
struct Owners {
    processes: Vec<OwnerRow>,
    orphans: u32,
}

/// Ports from the local ip towards the destination.
pub(super) fn port_use(row: &Destination, namespace: Option<&Namespace>) -> Option<PortUse> {
    namespace.and_then(|namespace| {
        Some(PortUse {
            range: namespace.reading.port_range?.size(),
            reserved: namespace.reserved,
            used: row.ports_used + row.minis.last.fin_wait_2_ports,
            time_wait: row.minis.last.time_wait_ports,
        })
    })
}

fn destination_row(row: &Destination, key: EndpointKey, namespace: Option<&Namespace>) -> DestinationRow {
    DestinationRow {
        netns: key.netns,
        netns_name: namespace.and_then(|namespace| namespace.reading.name.clone()),
        local_ip: key.local_ip,
        remote: row.remote,
        sockets: row.sockets,
        time_wait: row.minis.last.time_wait,
        ports: port_use(row, namespace),
    }
}

/// Ports that connect() cannot choose for this destination, for the sockets towards it.
fn ports_taken(row: &Destination) -> u32 {
    let minis = row.minis.last;
    row.ports_used + minis.fin_wait_2_ports + minis.time_wait_ports
}
