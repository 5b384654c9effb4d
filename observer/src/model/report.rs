//! The model as a snapshot.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{
    Model,
    address::{Direction, EndpointKey, Local},
    endpoint::{Destination, Endpoint, Flow},
    failure::{Failed, FailureKind, FailureRow},
    hits::KernelHits,
    namespace::Namespace,
    quality::Quality,
    snapshot::{DestinationRow, EndpointRow, FlowRow, NamespaceRow, OwnerRow, ProcessRow, Snapshot, Totals},
    units::{NetnsId, Pid, Process, TcpState},
};

/// Groups of failures in a snapshot.
const FAILURES: usize = 64;

impl Model {
    /// Aggregates as they are now. Of each outbound endpoint the `destinations` most used destinations are listed.
    #[must_use]
    pub fn snapshot(&mut self, taken_at: SystemTime, uptime: Duration, destinations: usize) -> Snapshot {
        self.settle_ports(uptime);
        self.answer_questions();
        self.name_namespaces();
        self.find_services_of_namespaces();
        let sums = self.sums_by_namespace();
        let endpoints = self.endpoint_rows(destinations);
        let namespaces = self.namespace_rows(&sums);
        Snapshot {
            taken_at,
            uptime,
            totals: Totals {
                sockets: self.len(),
                connections: self.len() - self.sockets.pairs().min(self.len()),
                counted_since: self.ledger.counted_since(),
                peak_sockets: self.ledger.peak(),
                opened_total: self.ledger.flow().opened,
                closed_total: self.ledger.flow().closed,
                failed_total: self.ledger.flow().failed,
                opened_per_second: self.ledger.flow().opened_per_second,
                closed_per_second: self.ledger.flow().closed_per_second,
            },
            limits: self.limits(),
            findings: self.findings(&namespaces),
            namespaces,
            endpoints,
            host: self.readings.host.clone(),
            quality: Quality { coverage: self.coverage(), ..self.quality.clone() },
            processes: self.process_rows(),
            services: self.service_rows(),
            failures: self.failure_rows(),
            failures_total: self.diagnosis.failures.total(),
            failure_counts: self.diagnosis.failures.counts(),
            flows: flow_rows(&sums),
            own_hits: self.all_own_hits(),
        }
    }

    fn endpoint_rows(&self, destinations: usize) -> Vec<EndpointRow> {
        let mut by_endpoint = self.destinations_by_endpoint();
        let mut owners = self.owners_by_endpoint();
        // The keys beside each other: to compare them in their rows would read these many times.
        let key = |row: &Endpoint| (Reverse((row.states + row.minisocks).sum()), row.key);
        let mut order: Vec<_> = self.ledger.endpoints().iter().map(|(index, row)| (key(row), index)).collect();
        order.sort_unstable_by_key(|(key, _)| *key);
        let row = |(_, index): (_, u32)| {
            let all = by_endpoint.remove(&index).unwrap_or_default();
            let owners = owners.remove(&index).unwrap_or_default();
            self.endpoint_row(self.ledger.endpoints().get(index), all, destinations, owners)
        };
        order.into_iter().map(row).collect()
    }

    fn sums_by_namespace(&self) -> FxHashMap<NetnsId, Sums> {
        let namespaces = self.readings.namespaces.len();
        let mut sums: FxHashMap<NetnsId, Sums> = FxHashMap::with_capacity_and_hasher(namespaces, FxBuildHasher);
        for (_, row) in self.ledger.endpoints().iter() {
            let sum = sums.entry(row.key.netns).or_default();
            sum.established += row.states.get(TcpState::Established) + row.minisocks.get(TcpState::Established);
            sum.time_wait += row.states.get(TcpState::TimeWait) + row.minisocks.get(TcpState::TimeWait);
            sum.flow(row.key.direction).add(&row.flow);
        }
        for ((netns, direction), flow) in self.ledger.endpoints().evicted() {
            sums.entry(netns).or_default().flow(direction).add(flow);
        }
        sums
    }

    fn process_rows(&self) -> Vec<ProcessRow> {
        let new = |process| ProcessRow { process, sockets: 0, files: None, failures: 0, service: None };
        let mut rows: FxHashMap<Pid, ProcessRow> = FxHashMap::default();
        for (process, sockets) in self.ledger.owners().processes() {
            rows.entry(process.pid).or_insert_with(|| new(process)).sockets = sockets;
        }
        for (process, shared) in self.shared_by_process() {
            rows.entry(process.pid).or_insert_with(|| new(process)).sockets += shared;
        }
        for files in &self.readings.host.processes {
            rows.entry(files.process.pid).or_insert_with(|| new(files.process)).files = Some(*files);
        }
        for (process, count) in self.diagnosis.failures.by_process() {
            rows.entry(process.pid).or_insert_with(|| new(process)).failures += count;
        }
        let with_service = |row: ProcessRow| ProcessRow { service: self.service_of_process(row.process.pid), ..row };
        rows.into_values().map(with_service).collect()
    }

    /// Processes whose descriptors are worth a look: `most` of those that own the most sockets, and `most` of those that
    /// were refused something last.
    #[must_use]
    pub fn conspicuous(&self, most: usize) -> Vec<Pid> {
        let mut busiest: Vec<(u32, Pid)> =
            self.ledger.owners().processes().map(|(it, sockets)| (sockets, it.pid)).collect();
        busiest.sort_unstable_by_key(|it| Reverse(*it));
        let refused = self.diagnosis.failures.newest(most).into_iter().filter_map(|row| Some(row.key.process?.pid));
        let pids = busiest.into_iter().take(most).map(|(_, pid)| pid).chain(refused);
        // /proc has nothing of the others, and may have another process of the same number.
        pids.filter(|pid| !pid.is_outside()).collect()
    }

    /// The newest failures. What their calls found stays; what could not be read then is shown as it is now.
    fn failure_rows(&self) -> Vec<FailureRow> {
        let mut rows = self.diagnosis.failures.newest(FAILURES);
        for row in &mut rows {
            row.service = self.service_of_failure(row);
            row.key.local =
                row.key.local.map(|local| Local { device: self.named(row.key.netns, local.device), ..local });
            match (row.key.kind, row.failed) {
                (FailureKind::ProcessFds, Failed::Unknown) => {
                    let pid = row.key.process.map(|it| it.pid);
                    let files = self.readings.host.processes.iter().find(|files| Some(files.process.pid) == pid);
                    if let Some((open, limit)) =
                        files.and_then(|files| Some((files.open, self.readings.host.most_descriptors(files)?)))
                    {
                        row.failed = Failed::Descriptors(open, limit);
                    }
                }
                (_, Failed::PortOwner(owner)) => row.failed = Failed::PortOwner(owner.at(self.now)),
                _ => {}
            }
        }
        rows
    }

    fn destinations_by_endpoint(&self) -> FxHashMap<u32, Vec<&Destination>> {
        let mut by_endpoint: FxHashMap<u32, Vec<&Destination>> = FxHashMap::default();
        for row in self.ledger.destinations().iter() {
            by_endpoint.entry(row.endpoint).or_default().push(row);
        }
        by_endpoint
    }

    fn owners_by_endpoint(&self) -> FxHashMap<u32, Owners> {
        let mut by_endpoint: FxHashMap<u32, Owners> = FxHashMap::default();
        for (endpoint, process, sockets) in self.ledger.owners().iter() {
            let owners = by_endpoint.entry(endpoint).or_default();
            match process {
                Some(process) => owners.processes.push(OwnerRow { process, sockets, shared: 0 }),
                None => owners.orphans += sockets,
            }
        }
        for (endpoint, process) in self.shared_sockets() {
            let processes = &mut by_endpoint.entry(endpoint).or_default().processes;
            match processes.iter_mut().find(|row| row.process.pid == process.pid) {
                Some(row) => row.shared += 1,
                None => processes.push(OwnerRow { process, sockets: 0, shared: 1 }),
            }
        }
        for owners in by_endpoint.values_mut() {
            owners.processes.sort_unstable_by_key(|row| (Reverse((row.sockets, row.shared)), row.process.pid));
        }
        by_endpoint
    }

    /// The endpoint of each socket with several owners, with each owner beside the first.
    fn shared_sockets(&self) -> impl Iterator<Item = (u32, Process)> + '_ {
        self.co_owners
            .keys()
            .filter_map(|id| Some(self.sockets.get(self.sockets.find(*id)?)))
            .flat_map(|socket| self.co_fd_owners(socket.id, socket.owner).map(|process| (socket.endpoint, process)))
    }

    fn shared_by_process(&self) -> impl Iterator<Item = (Process, u32)> {
        let mut shared: FxHashMap<Pid, (Process, u32)> = FxHashMap::default();
        for (_, process) in self.shared_sockets() {
            shared.entry(process.pid).or_insert((process, 0)).1 += 1;
        }
        shared.into_values()
    }

    fn endpoint_row(&self, row: &Endpoint, mut all: Vec<&Destination>, most: usize, owners: Owners) -> EndpointRow {
        let rank = |row: &&Destination| (Reverse(row.ports.in_use()), Reverse(row.sockets), row.remote());
        let destination_count = all.len();
        if destination_count > most && most > 0 {
            all.select_nth_unstable_by_key(most - 1, rank);
        }
        all.truncate(most);
        all.sort_unstable_by_key(rank);
        let namespace = self.readings.namespaces.get(&row.key.netns);
        let listeners = self.listener_fd_owners(row.key);
        let services = self.ledger.members().most(&row.members);
        let services = services.and_then(|(most, others)| Some((most.service.as_ref()?, others)));
        EndpointRow {
            key: EndpointKey { device: self.named(row.key.netns, row.key.device), ..row.key },
            netns_name: namespace.and_then(Namespace::netns_name),
            listening: row.listeners > 0,
            sockets: row.states.sum(),
            peak: row.peak,
            beyond_port_numbers: row.beyond_port_numbers,
            states: row.states + row.minisocks,
            opened_total: row.flow.opened,
            closed_total: row.flow.closed,
            failed_total: row.flow.failed,
            opened_per_second: row.flow.opened_per_second,
            closed_per_second: row.flow.closed_per_second,
            process: owners.processes.first().map(|row| row.process).or(listeners.first().copied()).or(row.process),
            owners: owners.processes,
            listeners,
            orphans: owners.orphans,
            history: row.history.clone(),
            destination_count,
            service: services.map(|(most, _)| Arc::clone(most)),
            other_services: services.map_or(0, |(_, others)| others),
            destinations: all.into_iter().map(|it| self.destination_row(it, row.key, namespace)).collect(),
        }
    }

    /// The owners of an inbound row's listener: they stand for connections not yet accepted too.
    fn listener_fd_owners(&self, key: EndpointKey) -> Vec<Process> {
        match (key.direction, key.local_port) {
            (Direction::Inbound, Some(port)) => self.fd_owners_of_listener(key.netns, key.local_ip, port, key.device),
            _ => Vec::new(),
        }
    }

    fn destination_row(&self, row: &Destination, key: EndpointKey, namespace: Option<&Namespace>) -> DestinationRow {
        let most = self.ledger.members().most(&row.members);
        DestinationRow {
            service: most.and_then(|(member, _)| member.service.clone()),
            netns: key.netns,
            netns_name: namespace.and_then(Namespace::netns_name),
            local_ip: key.local_ip,
            device: self.named(key.netns, key.device),
            remote: row.remote(),
            sockets: row.sockets,
            time_wait: row.time_wait,
            ports: self.port_use(row, namespace),
        }
    }

    fn namespace_rows(&self, sums: &FxHashMap<NetnsId, Sums>) -> Vec<NamespaceRow> {
        let mut known: Vec<(NetnsId, &Namespace)> = self.readings.namespaces.iter().map(|(id, it)| (*id, it)).collect();
        known.sort_unstable_by_key(|(netns, _)| *netns);
        let row = |(netns, namespace): (NetnsId, &Namespace)| {
            let ports = self.ledger.ports(netns);
            let sum = sums.get(&netns);
            NamespaceRow {
                netns,
                name: namespace.netns_name(),
                service: namespace.service.clone(),
                port_range: namespace.reading.port_range,
                reserved_ports: ports.map_or(0, |ports| ports.reserved),
                blocked_ports: ports.and_then(|ports| self.blocked_ports(namespace, ports, 0)),
                tcp_tw_reuse: namespace.reading.tcp_tw_reuse,
                established: sum.map_or(0, |sum| sum.established),
                time_wait: sum.map_or(0, |sum| sum.time_wait),
                listen_drops: namespace.reading.listen.drops,
                hits: KernelHits::of(&namespace.reading),
            }
        };
        known.into_iter().map(row).collect()
    }
}

/// Over the endpoints of a namespace.
#[derive(Default)]
struct Sums {
    established: u32,
    time_wait: u32,
    /// By direction; `None` where there is and was no endpoint.
    flows: [Option<Flow>; 2],
}

impl Sums {
    fn flow(&mut self, direction: Direction) -> &mut Flow {
        let [inbound, outbound] = &mut self.flows;
        let flow = match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        };
        flow.get_or_insert_default()
    }
}

fn flow_rows(sums: &FxHashMap<NetnsId, Sums>) -> Vec<FlowRow> {
    let rows = sums.iter().flat_map(|(netns, sums)| {
        let flows = [Direction::Inbound, Direction::Outbound].into_iter().zip(&sums.flows);
        flows.filter_map(|(direction, flow)| {
            flow.map(|flow| FlowRow {
                netns: *netns,
                direction,
                opened_total: flow.opened,
                closed_total: flow.closed,
                failed_total: flow.failed,
            })
        })
    });
    let mut rows: Vec<FlowRow> = rows.collect();
    rows.sort_unstable_by_key(|row| (row.netns, row.direction));
    rows
}

/// The owners of an endpoint's sockets.
#[derive(Default)]
struct Owners {
    processes: Vec<OwnerRow>,
    orphans: u32,
}
