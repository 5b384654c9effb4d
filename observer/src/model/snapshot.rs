//! What screens and exports see: aggregates at one moment, never a clone of the sockets.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use super::{
    address::{Direction, EndpointKey},
    reading::{FileUse, Host, Memory, OwnUse, ProcessFiles},
};
use super::{
    device::Device,
    failure::{FailureCount, FailureRow},
    finding::Finding,
    headroom::PortUse,
    history::History,
    hits::{Hits, KernelHits, OwnHits},
    limit::Limit,
    name::NetnsName,
    quality::Quality,
    service::Service,
    units::{Comm, NetnsId, PortRange, Process, StateCounts, TcpState},
};

/// The state of the host at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Wall-clock time.
    pub taken_at: SystemTime,
    /// Time since `observer` started.
    pub uptime: Duration,
    /// Sums over all endpoints.
    pub totals: Totals,
    /// Local endpoints, those with the most sockets first.
    pub endpoints: Vec<EndpointRow>,
    /// Network namespaces.
    pub namespaces: Vec<NamespaceRow>,
    /// Readings that belong to the whole host.
    pub host: Host,
    /// Processes that own sockets, or that are near to their limit of descriptors.
    pub processes: Vec<ProcessRow>,
    /// Services, those with the most sockets first; the sockets of nobody that is known last.
    pub services: Vec<ServiceRow>,
    /// What can run out, the most urgent first.
    pub limits: Vec<Limit>,
    /// What is likely to be wrong, and what to do about it.
    pub findings: Vec<Finding>,
    /// How far the numbers are known to be right.
    pub quality: Quality,
    /// What the kernel refused, the newest first; without older groups.
    pub failures: Vec<FailureRow>,
    /// All that it refused since start.
    pub failures_total: u64,
    /// The same by namespace and kind, in this order; without namespaces that are gone.
    pub failure_counts: Vec<FailureCount>,
    /// Connections by namespace and direction, in this order; without namespaces that are gone.
    pub flows: Vec<FlowRow>,
    /// How often observer has seen that limits were hit; [`Self::hits`] has all.
    pub own_hits: OwnHits,
}

impl Snapshot {
    /// The name of a network namespace, where it is known and has one.
    #[must_use]
    pub fn name_of(&self, netns: NetnsId) -> Option<&NetnsName> {
        self.namespaces.iter().find(|row| row.netns == netns)?.name.as_ref()
    }

    /// How often limits were hit: of each namespace what the kernel counts, in the order of their ids, and then what observer
    /// has counted itself. Made when somebody asks, because the screen shows none of it.
    pub fn hits(&self) -> impl Iterator<Item = Hits<'_>> {
        let of_kernel = self.namespaces.iter().flat_map(|row| row.hits.iter(row.netns, row.name.as_ref()));
        of_kernel.chain(self.own_hits.iter())
    }

    /// The name of a failure's namespace; of one that has ended, the name that it had.
    #[must_use]
    pub fn netns_name_of<'a>(&'a self, failure: &'a FailureRow) -> Option<&'a NetnsName> {
        match &failure.ended {
            Some(ended) => ended.name.as_ref(),
            None => self.name_of(failure.key.netns),
        }
    }
}

/// Sums over all endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Full sockets that are connected or connecting.
    pub sockets: u32,
    /// Distinct connections among them: two sockets of this namespace that are each other's peer are one.
    pub connections: u32,
    /// When peaks and totals began: time since start, zero unless they were reset.
    pub counted_since: Duration,
    /// The most sockets that were seen at once.
    pub peak_sockets: u32,
    /// Handshakes completed since then.
    pub opened_total: u64,
    /// Connections ended since then, after their handshake.
    pub closed_total: u64,
    /// Connections that ended before their handshake was complete: refused, timed out, out of ports, closed before. What
    /// of these was a failed call, and why, is in [`Snapshot::failures`].
    pub failed_total: u64,
    /// Handshakes completed per second, over the last second.
    pub opened_per_second: f64,
    /// Connections ended per second, over the last second.
    pub closed_per_second: f64,
}

/// Connections of a namespace in one direction. Unlike a sum over endpoints it never falls while the namespace lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// The namespace.
    pub netns: NetnsId,
    /// Which end called connect().
    pub direction: Direction,
    /// Handshakes completed, since [`Totals::counted_since`].
    pub opened_total: u64,
    /// Connections ended since then, after their handshake.
    pub closed_total: u64,
    /// Connections that ended before their handshake was complete.
    pub failed_total: u64,
}

/// A local endpoint.
#[derive(Clone, Debug)]
pub struct EndpointRow {
    /// Its identity.
    pub key: EndpointKey,
    /// The name of its namespace, if that is known.
    pub netns_name: Option<NetnsName>,
    /// A listener is bound to exactly this address.
    pub listening: bool,
    /// Full sockets that are connected or connecting.
    pub sockets: u32,
    /// The most sockets that were seen at once.
    pub peak: u32,
    /// When it first had more sockets than there are port numbers ([`PORT_NUMBERS`](super::PORT_NUMBERS)).
    pub beyond_port_numbers: Option<Duration>,
    /// Sockets by state, with TIME_WAIT and request sockets (which `sockets` leaves out), without listeners.
    pub states: StateCounts,
    /// Handshakes completed since start.
    pub opened_total: u64,
    /// Connections ended since start, after their handshake.
    pub closed_total: u64,
    /// Connections that ended before their handshake was complete.
    pub failed_total: u64,
    /// Handshakes completed per second, over the last second.
    pub opened_per_second: f64,
    /// Connections ended per second, over the last second.
    pub closed_per_second: f64,
    /// The process that holds most of the sockets; where no process holds any, one that holds the listener, else the one
    /// that last connected or accepted here.
    pub process: Option<Process>,
    /// Every process that holds some of the sockets, those with the most first.
    pub owners: Vec<OwnerRow>,
    /// Every process that holds a listener of this address.
    pub listeners: Vec<Process>,
    /// Sockets whose last descriptor was closed: the kernel finishes them alone.
    pub orphans: u32,
    /// `sockets`, one value a second, the newest last.
    pub history: History,
    /// The service of most of its sockets and listeners.
    pub service: Option<Arc<Service>>,
    /// How many other services have sockets here.
    pub other_services: usize,
    /// How many destinations an outbound row has, shown or not.
    pub destination_count: usize,
    /// Its most used destinations, the most used first.
    pub destinations: Vec<DestinationRow>,
}

/// A process that holds sockets of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerRow {
    /// The process.
    pub process: Process,
    /// How many it holds. A socket that several processes hold counts with one of them,
    pub sockets: u32,
    /// and here with the others.
    pub shared: u32,
}

/// Who holds the sockets of a row, in short: processes of one name are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerNames {
    /// The process that holds the most.
    pub process: Process,
    /// How many processes have its name.
    pub namesakes: usize,
    /// How many other names there are.
    pub others: usize,
}

impl EndpointRow {
    /// Every process that holds one of the sockets, those with the most first; where no process holds any, those that
    /// hold the listener, else the one that last connected or accepted here.
    #[must_use]
    pub fn fd_owners(&self) -> Vec<Process> {
        if !self.owners.is_empty() {
            self.owners.iter().map(|owner| owner.process).collect()
        } else if !self.listeners.is_empty() {
            self.listeners.clone()
        } else {
            self.process.into_iter().collect()
        }
    }

    /// The same in short.
    #[must_use]
    pub fn owner_names(&self) -> Option<OwnerNames> {
        let fd_owners = self.fd_owners();
        let process = *fd_owners.first()?;
        let mut names: Vec<Comm> = Vec::new();
        for fd_owner in &fd_owners {
            if !names.contains(&fd_owner.comm) {
                names.push(fd_owner.comm);
            }
        }
        let namesakes = fd_owners.iter().filter(|fd_owner| fd_owner.comm == process.comm).count();
        Some(OwnerNames { process, namesakes, others: names.len() - 1 })
    }

    /// Sockets that open or close, in none of the states that have a column of their own: SYN_RECV, FIN_WAIT1, FIN_WAIT2,
    /// LAST_ACK and CLOSING.
    #[must_use]
    pub fn other_states(&self) -> u32 {
        use TcpState::{CloseWait, Established, SynSent, TimeWait};
        let shown = [Established, SynSent, CloseWait, TimeWait].map(|state| self.states.get(state));
        self.states.sum() - shown.iter().sum::<u32>()
    }

    /// What its columns of states add up to: all of its sockets, TIME_WAIT and half-open requests included.
    #[must_use]
    pub fn all_sockets(&self) -> u32 {
        self.states.sum()
    }
}

/// One remote address as seen from one local ip: where port headroom lives.
#[derive(Clone, Debug)]
pub struct DestinationRow {
    /// The network namespace.
    pub netns: NetnsId,
    /// Its name.
    pub netns_name: Option<NetnsName>,
    /// The local ip that it is reached from.
    pub local_ip: IpAddr,
    /// The device that its sockets are bound to.
    pub device: Device,
    /// Remote address.
    pub remote: SocketAddr,
    /// Full sockets that are connected or connecting.
    pub sockets: u32,
    /// TIME_WAIT sockets.
    pub time_wait: u32,
    /// The service of most of its sockets.
    pub service: Option<Arc<Service>>,
    /// The ephemeral ports towards it; `None` until the namespace's port range is known.
    pub ports: Option<PortUse>,
}

/// A network namespace.
#[derive(Clone, Debug)]
pub struct NamespaceRow {
    /// Its inode number.
    pub netns: NetnsId,
    /// What people call it: see [`NamespaceReading`](super::namespace::NamespaceReading).
    pub name: Option<NetnsName>,
    /// The service that it is named by, as its sockets show it; of a pod with several containers one of these.
    pub service: Option<Arc<Service>>,
    /// `net.ipv4.ip_local_port_range`
    pub port_range: Option<PortRange>,
    /// Ports of the range that `net.ipv4.ip_local_reserved_ports` sets apart.
    pub reserved_ports: u32,
    /// Of the rest, ports that explicit binds keep from every connect(); `None` where that is not known.
    pub blocked_ports: Option<u32>,
    /// `net.ipv4.tcp_tw_reuse`
    pub tcp_tw_reuse: Option<u8>,
    /// Sockets in ESTABLISHED.
    pub established: u32,
    /// Sockets in TIME_WAIT.
    pub time_wait: u32,
    /// `ListenDrops`: SYNs and final ACKs that its listeners dropped since it was made; `None` where that is not known.
    pub listen_drops: Option<u64>,
    /// How often the kernel has counted that its limits were hit.
    pub hits: KernelHits,
}

/// A process, with what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessRow {
    /// The process.
    pub process: Process,
    /// TCP sockets that it holds, connected or connecting.
    pub sockets: u32,
    /// Its open files; `None` of those that were not asked.
    pub files: Option<ProcessFiles>,
    /// Calls that the kernel refused it.
    pub failures: u64,
    /// The service that it belongs to.
    pub service: Option<Arc<Service>>,
}

/// A service: a systemd unit, a pod with all of its containers, a container, a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceRow {
    /// As [`Service::row_key`]; `None` sums the sockets whose service is not known.
    pub service: Option<Arc<Service>>,
    /// Full sockets that are connected or connecting.
    pub sockets: u32,
    /// The same by state. TIME_WAIT and request sockets belong to no cgroup.
    pub states: StateCounts,
    /// Of these, the ones whose last descriptor was closed.
    pub orphans: u32,
    /// Listening sockets.
    pub listeners: u32,
    /// Sockets that are bound, and neither connected nor listening.
    pub bound: u32,
    /// Handshakes completed since start.
    pub opened_total: u64,
    /// Connections ended since start, after their handshake.
    pub closed_total: u64,
    /// Connections that ended before their handshake was complete.
    pub failed_total: u64,
    /// Handshakes completed per second, over the last second.
    pub opened_per_second: f64,
    /// Connections ended per second, over the last second.
    pub closed_per_second: f64,
    /// What the kernel refused since start: failed calls, and handshakes that its listeners dropped.
    pub failures_total: u64,
    /// The destination with the largest share of its ports in use, among those that most sockets are of this service.
    pub nearest: Option<NearestDestination>,
    /// Of its processes whose descriptors were counted, the one nearest to its limit.
    pub fullest: Option<ProcessFiles>,
}

impl ServiceRow {
    /// Without sockets.
    pub(crate) fn of(service: Option<Arc<Service>>) -> Self {
        Self {
            service,
            sockets: 0,
            states: StateCounts::default(),
            orphans: 0,
            listeners: 0,
            bound: 0,
            opened_total: 0,
            closed_total: 0,
            failed_total: 0,
            opened_per_second: 0.0,
            closed_per_second: 0.0,
            failures_total: 0,
            nearest: None,
            fullest: None,
        }
    }

    /// It has no sockets and never had any.
    pub(super) fn is_empty(&self) -> bool {
        let sockets = self.states.sum() + self.listeners + self.bound;
        let totals = self.opened_total + self.closed_total + self.failed_total + self.failures_total;
        sockets == 0 && totals == 0
    }
}

/// Of the destinations where a service has the most sockets, the one with the largest share of its ports in use.
#[derive(Clone, Debug, PartialEq)]
pub struct NearestDestination {
    /// The network namespace.
    pub netns: NetnsId,
    /// Its name.
    pub netns_name: Option<NetnsName>,
    /// The local ip.
    pub local_ip: IpAddr,
    /// The device that its sockets are bound to.
    pub device: Device,
    /// The destination.
    pub remote: SocketAddr,
    /// The ports towards it.
    pub ports: PortUse,
}
