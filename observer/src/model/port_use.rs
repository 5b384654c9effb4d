//! The ports towards one destination, as snapshots show them: with those that sockets on other devices use, and those
//! that connect() skips by chance.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{
    Model,
    address::{EndpointKey, TupleKey},
    endpoint::Destination,
    headroom::PortUse,
    namespace::Namespace,
    port_table::{PortClass, PortCounts, Ports},
    quality::Hook,
    units::{FourTuple, NetnsId},
};

/// A refused connect() may come this long after what its socket shares with others was last counted.
const SHARED_FOR: Duration = Duration::from_millis(100);

impl Model {
    /// The ports of one destination.
    pub(super) fn ports_of(&mut self, destination: u32, netns: NetnsId) -> Option<PortUse> {
        let row = self.ledger.destinations().get(destination)?;
        let is_shared = !self.ledger.endpoints().get(row.endpoint).key.device.is_none();
        if is_shared && self.shared_at.is_none_or(|at| self.now >= at + SHARED_FOR) {
            self.share_ports();
        }
        self.port_use(self.ledger.destinations().get(destination)?, self.readings.namespaces.get(&netns))
    }

    /// The ports from the local ip and device towards the destination.
    pub(super) fn port_use(&self, row: &Destination, namespace: Option<&Namespace>) -> Option<PortUse> {
        let namespace = namespace?;
        let key = &self.ledger.endpoints().get(row.endpoint).key;
        let ports = self.ledger.ports(key.netns)?;
        let space = ports.space(key.device.index());
        let counts = row.ports + row.shared;
        let has_free_edge = ports.choosable_edges(space).any(|port| !self.is_in_use(key, row, namespace, port));
        let unknown_ages = if self.basis.started_at.is_none() { counts.time_wait_reusable } else { 0 };
        Some(PortUse {
            range: namespace.reading.port_range?.size(),
            reserved: ports.reserved,
            passed_over: ports.passed_over,
            blocked: self.blocked_ports(namespace, ports, space),
            used: counts.used,
            time_wait: counts.time_wait,
            time_wait_reusable: counts.time_wait_reusable,
            uncertain: unknown_ages + row.shared_unseen + u32::from(has_free_edge),
        })
    }

    /// Whether a socket on any device that counts has this port towards the destination.
    fn is_in_use(&self, key: &EndpointKey, row: &Destination, namespace: &Namespace, port: u16) -> bool {
        let tuple = FourTuple {
            local_ip: key.local_ip,
            local_port: port,
            remote_ip: row.remote_ip,
            remote_port: row.remote_port,
        };
        namespace.devices.conflicts(key.device.index()).any(|device| {
            let key = TupleKey { netns: key.netns, device, tuple };
            let of_socket = self.sockets.find_tuple(key, |socket| super::key_of(self.ledger.endpoints(), socket));
            let of_socket = of_socket.and_then(|index| self.sockets.get(index).port_class);
            let of_minisock = || self.minisocks.find(key, self.ledger.endpoints())?.port_class;
            of_socket.is_some_and(PortClass::is_in_use) || of_minisock().is_some_and(PortClass::is_in_use)
        })
    }

    /// Ports of a space that explicit binds block: known only where the kernel shows bind buckets and bound sockets, and
    /// once it has.
    pub(super) fn blocked_ports(&self, namespace: &Namespace, ports: &Ports, space: u32) -> Option<u32> {
        let sees_bound = self.quality.hooks.iter().any(|it| it.hook == Hook::FdOwners && it.method.is_some());
        let is_known = namespace.last_scan.is_some() && self.basis.reads_buckets && sees_bound;
        is_known.then(|| ports.blocked(space))
    }

    /// Finds what each destination of a socket that is bound to a device shares with the same destination on other
    /// devices, and on none: one walk over all sockets, if there is such a pair of rows at all.
    pub(super) fn share_ports(&mut self) {
        self.shared_at = Some(self.now);
        let sharing: Vec<(u32, Vec<u32>)> = self.sharing();
        if sharing.is_empty() {
            self.ledger.set_shared([]);
            return;
        }
        let mut in_use: FxHashMap<u32, PortsInUse> = FxHashMap::default();
        for (row, others) in &sharing {
            for index in others.iter().chain([row]) {
                in_use.entry(*index).or_default();
            }
        }
        let of_sockets = self.sockets.iter().map(|it| (it.destination, it.local_port, it.port_class));
        let of_minisocks = self.minisocks.iter().map(|(_, it)| (it.destination, it.local_port, it.port_class));
        for (destination, port, class) in of_sockets.chain(of_minisocks) {
            if let Some(class) = class.filter(|class| *class != PortClass::Unavailable)
                && let Some(in_use) = in_use.get_mut(&destination)
            {
                in_use.add(port, class);
            }
        }
        let shared = sharing.into_iter().filter_map(|(index, others)| {
            let row = self.ledger.destinations().get(index)?;
            let mut union = PortsInUse::default();
            for in_use in others.iter().chain([&index]).filter_map(|index| in_use.get(index)) {
                union.join(in_use);
            }
            let unseen: u32 = others.iter().filter_map(|index| in_use.get(index)).map(|in_use| in_use.unseen).sum();
            union.unseen -= unseen;
            Some((index, union.counts() - row.ports, unseen))
        });
        let shared: Vec<_> = shared.collect();
        self.ledger.set_shared(shared);
    }

    /// Destinations of sockets that are bound to a device, each with the rows of other devices that it shares ports with.
    fn sharing(&self) -> Vec<(u32, Vec<u32>)> {
        let rows = self.ledger.destinations().iter_indexed().filter_map(|(index, row)| {
            let key = self.ledger.endpoints().get(row.endpoint).key;
            if key.device.is_none() {
                return None;
            }
            let rules = &self.readings.namespaces.get(&key.netns)?.devices;
            let others = rules.conflicts(key.device.index()).skip(1).filter_map(|device| {
                let endpoint =
                    self.ledger.endpoints().find(&EndpointKey { device: super::device::Device::new(device), ..key })?;
                self.ledger.destinations().find(endpoint, row.remote())
            });
            Some((index, others.collect::<Vec<_>>())).filter(|(_, others)| !others.is_empty())
        });
        rows.collect()
    }
}

/// How ports count towards a destination.
#[derive(Default)]
struct PortsInUse {
    by_port: FxHashMap<u16, PortClass>,
    /// Chosen by connect(), and not shown by an event yet.
    unseen: u32,
}

impl PortsInUse {
    fn add(&mut self, port: u16, class: PortClass) {
        if port == 0 {
            self.unseen += 1;
        } else {
            let known = self.by_port.entry(port).or_default();
            *known = class.max(*known);
        }
    }

    fn join(&mut self, other: &Self) {
        self.unseen += other.unseen;
        other.by_port.iter().for_each(|(port, class)| self.add(*port, *class));
    }

    fn counts(&self) -> PortCounts {
        let mut counts = PortCounts { used: self.unseen, ..PortCounts::default() };
        for class in self.by_port.values() {
            if let Some(count) = counts.of_class(*class) {
                *count += 1;
            }
        }
        counts
    }
}
