//! The ports towards one destination, as snapshots show them: with what sockets on other devices take of them, and with
//! the ports that connect() passes over by chance.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{
    Model,
    endpoint::Destination,
    headroom::PortUse,
    namespace::Namespace,
    port_table::{Counted, PortCounts},
    quality::Hook,
    snapshot::EndpointKey,
    socket::TupleKey,
    units::{FourTuple, NetnsId},
};

/// A refused connect() may come this long after what its socket shares with others was last counted.
const SHARED_FOR: Duration = Duration::from_millis(100);

impl Model {
    /// The ports of one destination.
    pub(super) fn ports_of(&mut self, destination: u32, netns: NetnsId) -> Option<PortUse> {
        let row = self.destinations.get(destination)?;
        let is_shared = !self.endpoints.get(row.endpoint).key.device.is_none();
        if is_shared && self.shared_at.is_none_or(|at| self.now >= at + SHARED_FOR) {
            self.share_ports();
        }
        self.port_use(self.destinations.get(destination)?, self.namespaces.get(&netns))
    }

    /// The ports from the local ip and device towards the destination.
    pub(super) fn port_use(&self, row: &Destination, namespace: Option<&Namespace>) -> Option<PortUse> {
        let namespace = namespace?;
        let key = &self.endpoints.get(row.endpoint).key;
        let space = namespace.devices.space(key.device.index());
        let counts = row.ports + row.shared;
        let has_free_edge =
            namespace.ports.choosable_edges(space).any(|port| !self.is_taken(key, row, namespace, port));
        let unknown_ages = if self.basis.started_at.is_none() { counts.time_wait_reusable } else { 0 };
        Some(PortUse {
            range: namespace.reading.port_range?.size(),
            reserved: namespace.ports.reserved,
            passed_over: namespace.ports.passed_over,
            blocked: self.blocked_ports(namespace, space),
            used: counts.used,
            time_wait: counts.time_wait,
            time_wait_reusable: counts.time_wait_reusable,
            uncertain: unknown_ages + row.shared_unseen + u32::from(has_free_edge),
        })
    }

    /// Whether the four-tuple of the destination with this port is taken on any device that counts.
    fn is_taken(&self, key: &EndpointKey, row: &Destination, namespace: &Namespace, port: u16) -> bool {
        let tuple = FourTuple {
            local_ip: key.local_ip,
            local_port: port,
            remote_ip: row.remote.ip(),
            remote_port: row.remote.port(),
        };
        namespace.devices.conflicts(key.device.index()).any(|device| {
            let key = TupleKey { netns: key.netns, device, tuple };
            let of_socket = self.sockets.find_tuple(key, |socket| super::key_of(&self.endpoints, socket));
            let of_socket = of_socket.map(|index| self.sockets.get(index).counted);
            of_socket.is_some_and(Counted::is_taken)
                || self.minisocks.find(key, &self.endpoints).is_some_and(|minisock| minisock.counted.is_taken())
        })
    }

    /// Ports of a space that explicit binds block: known only where the kernel shows bind buckets and bound sockets, and
    /// once it has.
    pub(super) fn blocked_ports(&self, namespace: &Namespace, space: u32) -> Option<u32> {
        let sees_bound = self.quality.hooks.iter().any(|it| it.hook == Hook::FdOwners && it.method.is_some());
        (namespace.scanned && self.basis.reads_buckets && sees_bound).then(|| namespace.ports.blocked(space))
    }

    /// Finds what each destination of a socket that is bound to a device shares with the same destination on other
    /// devices, and on none: one pass over all sockets, if there is such a pair of rows at all.
    pub(super) fn share_ports(&mut self) {
        self.shared_at = Some(self.now);
        let sharing: Vec<(u32, Vec<u32>)> = self.sharing();
        for (_, row) in self.destinations.iter_mut() {
            (row.shared, row.shared_unseen) = (PortCounts::default(), 0);
        }
        if sharing.is_empty() {
            return;
        }
        let mut taken: FxHashMap<u32, PortsTaken> = FxHashMap::default();
        for (row, others) in &sharing {
            for index in others.iter().chain([row]) {
                taken.entry(*index).or_default();
            }
        }
        let of_sockets = self.sockets.iter().map(|it| (it.destination, it.local_port, it.counted));
        let of_minisocks = self.minisocks.iter().map(|(_, it)| (it.destination, it.local_port, it.counted));
        for (destination, port, counted) in of_sockets.chain(of_minisocks).filter(|(.., it)| *it != Counted::Not) {
            if let Some(taken) = taken.get_mut(&destination) {
                taken.add(port, counted);
            }
        }
        for (index, others) in sharing {
            let Some(row) = self.destinations.get_mut(index) else { continue };
            let mut union = PortsTaken::default();
            for taken in others.iter().chain([&index]).filter_map(|index| taken.get(index)) {
                union.join(taken);
            }
            row.shared_unseen = others.iter().filter_map(|index| taken.get(index)).map(|taken| taken.unseen).sum();
            union.unseen -= row.shared_unseen;
            row.shared = union.counts() - row.ports;
        }
    }

    /// Destinations of sockets that are bound to a device, each with the rows of other devices that it shares ports with.
    fn sharing(&self) -> Vec<(u32, Vec<u32>)> {
        let rows = self.destinations.iter_indexed().filter_map(|(index, row)| {
            let key = self.endpoints.get(row.endpoint).key;
            if key.device.is_none() {
                return None;
            }
            let rules = &self.namespaces.get(&key.netns)?.devices;
            let others = rules.conflicts(key.device.index()).skip(1).filter_map(|device| {
                let endpoint =
                    self.endpoints.find(&EndpointKey { device: super::device::Device::new(device), ..key })?;
                self.destinations.find(endpoint, row.remote)
            });
            Some((index, others.collect::<Vec<_>>())).filter(|(_, others)| !others.is_empty())
        });
        rows.collect()
    }
}

/// How ports count towards a destination.
#[derive(Default)]
struct PortsTaken {
    by_port: FxHashMap<u16, Counted>,
    /// Chosen by connect(), and not shown by an event yet.
    unseen: u32,
}

impl PortsTaken {
    fn add(&mut self, port: u16, counted: Counted) {
        if port == 0 {
            self.unseen += 1;
        } else {
            let known = self.by_port.entry(port).or_default();
            *known = counted.max(*known);
        }
    }

    fn join(&mut self, other: &Self) {
        self.unseen += other.unseen;
        other.by_port.iter().for_each(|(port, counted)| self.add(*port, *counted));
    }

    fn counts(&self) -> PortCounts {
        let mut counts = PortCounts { used: self.unseen, ..PortCounts::default() };
        self.by_port.values().for_each(|counted| counts.change(Counted::Not, *counted));
        counts
    }
}
