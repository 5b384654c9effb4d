//! The totals of all sockets, and the one way to change them.
//!
//! A [`Contribution`] is what one socket adds to all totals. Whoever changes a socket passes its contribution before and
//! after the change to [`Ledger::apply`]. Therefore every total equals the sum of the contributions of all sockets
//! (`tests/property.rs` checks this).

mod change;

use std::{net::SocketAddr, time::Duration};

use rustc_hash::FxHashMap;
use slab::Slab;

use super::{
    address::EndpointKey,
    device::DeviceRules,
    endpoint::{DestinationTable, EndpointTable, Flow},
    index::{NO_ROW, narrow},
    member::{Member, MemberTable},
    owner::{Owner, OwnerTable},
    port_table::{PortCounts, Ports},
    reading::NamespaceReading,
    service::{CgroupId, Service},
    units::{NetnsId, Process},
};

pub(super) use super::contribution::{At, Contribution, Counts};

/// The totals: rows of endpoints and destinations, ports of namespaces, owners. `socket::SocketTable` counts the pairs,
/// because two ends make one connection.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    endpoints: EndpointTable,
    destinations: DestinationTable,
    owners: OwnerTable,
    members: MemberTable,
    /// Endpoints keep the index of their namespace's ports, which saves a look-up by namespace for each event.
    ports: Slab<Ports>,
    ports_by_netns: FxHashMap<NetnsId, u32>,
    /// Some of them are stale.
    has_stale_ports: bool,
    /// As [`super::Basis::frees_buckets`].
    frees_buckets: bool,
    /// Openings and closings of all endpoints.
    flow: Flow,
    /// Most full sockets at a time.
    peak: u32,
    /// When totals and peaks began.
    counted_since: Duration,
}

impl Ledger {
    pub(super) fn new(frees_buckets: bool) -> Self {
        Self { frees_buckets, ..Self::default() }
    }

    pub(super) const fn endpoints(&self) -> &EndpointTable {
        &self.endpoints
    }

    pub(super) const fn destinations(&self) -> &DestinationTable {
        &self.destinations
    }

    pub(super) const fn owners(&self) -> &OwnerTable {
        &self.owners
    }

    pub(super) const fn members(&self) -> &MemberTable {
        &self.members
    }

    /// The ports of a namespace whose range was read.
    pub(super) fn ports(&self, netns: NetnsId) -> Option<&Ports> {
        self.ports.get(self.slot(netns) as usize)
    }

    /// Index of a namespace's ports.
    fn slot(&self, netns: NetnsId) -> u32 {
        self.ports_by_netns.get(&netns).copied().unwrap_or(NO_ROW)
    }

    pub(super) const fn peak(&self) -> u32 {
        self.peak
    }

    pub(super) const fn counted_since(&self) -> Duration {
        self.counted_since
    }

    pub(super) const fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The index of the ports, and the device, that a contribution is about.
    fn location(&self, at: At) -> Option<(u32, u32)> {
        match at {
            At::Nowhere => None,
            At::Endpoint(row) => {
                let row = self.endpoints.get(row);
                Some((row.ports, row.key.device.index()))
            }
            At::Ports(netns, device) => Some((self.slot(netns), device)),
        }
    }

    /// The ports of a namespace, and the space of bind buckets that the sockets of an endpoint are in.
    pub(super) fn ports_at(&self, endpoint: u32) -> Option<(&Ports, u32)> {
        let row = self.endpoints.get(endpoint);
        let ports = self.ports.get(row.ports as usize)?;
        Some((ports, ports.space(row.key.device.index())))
    }

    /// Whether less than a tenth of the ports from this endpoint towards a destination is left.
    pub(super) fn has_few_ports(&self, endpoint: u32, destination: u32) -> bool {
        let Some((ports, space)) = self.ports_at(endpoint) else { return false };
        let Some(row) = self.destinations.get(destination) else { return false };
        let left = ports.usable_count.saturating_sub(ports.blocked(space) + row.ports.in_use());
        left < ports.usable_count / 10
    }

    /// The ports of a namespace under this reading, with what these contributions add to them.
    pub(super) fn ports_of(
        &self,
        netns: NetnsId,
        (reading, devices): (&NamespaceReading, &DeviceRules),
        contributions: impl Iterator<Item = Contribution>,
    ) -> Ports {
        let mut ports = Ports::new(reading, devices);
        for contribution in contributions {
            let (of, device) = match contribution.at {
                At::Nowhere => continue,
                At::Endpoint(row) => {
                    let key = &self.endpoints.get(row).key;
                    (key.netns, key.device.index())
                }
                At::Ports(of, device) => (of, device),
            };
            if of == netns {
                ports.add(device, contribution.binder, contribution.client_port());
            }
        }
        ports
    }

    /// Replaces the ports of a namespace by what [`Self::ports_of`] gives. The class of each client's port is still the old
    /// one: the caller finds the new one next.
    pub(super) fn set_ports(&mut self, netns: NetnsId, mut ports: Ports) {
        ports.is_stale = false;
        let slot = self.slot(netns);
        if let Some(known) = self.ports.get_mut(slot as usize) {
            *known = ports;
            return;
        }
        let slot = narrow(self.ports.insert(ports));
        self.ports_by_netns.insert(netns, slot);
        self.endpoints.set_all_ports(netns, slot);
    }

    /// Namespaces where a port with clients was blocked or freed since the last call.
    pub(super) fn take_stale_ports(&mut self) -> Vec<NetnsId> {
        if !std::mem::take(&mut self.has_stale_ports) {
            return Vec::new();
        }
        let Self { ports, ports_by_netns, .. } = self;
        let mut is_stale = |slot: u32| ports.get_mut(slot as usize).is_some_and(|it| std::mem::take(&mut it.is_stale));
        ports_by_netns.iter().filter(|(_, slot)| is_stale(**slot)).map(|(netns, _)| *netns).collect()
    }

    /// A scan has shown the bucket of every socket of a namespace.
    pub(super) fn end_scan(&mut self, netns: NetnsId) {
        let slot = self.slot(netns);
        if let Some(ports) = self.ports.get_mut(slot as usize) {
            ports.end_scan();
            self.has_stale_ports |= ports.is_stale;
        }
    }

    /// Sets what destinations share with those of other devices, as (row, ports, ports not seen yet); others share nothing.
    pub(super) fn set_shared(&mut self, shared: impl IntoIterator<Item = (u32, PortCounts, u32)>) {
        for row in self.destinations.iter_mut() {
            (row.shared, row.shared_unseen) = (PortCounts::default(), 0);
        }
        for (index, ports, unseen) in shared {
            if let Some(row) = self.destinations.get_mut(index) {
                (row.shared, row.shared_unseen) = (ports, unseen);
            }
        }
    }

    /// As [`OwnerTable::owner`].
    pub(super) fn owner(&mut self, process: Process) -> (Owner, bool) {
        self.owners.owner(process)
    }

    /// As [`OwnerTable::rename`].
    pub(super) fn rename(&mut self, process: Process) -> bool {
        self.owners.rename(process)
    }

    /// The process that a row shows once nobody owns its sockets any more.
    pub(super) fn set_last_process(&mut self, endpoint: u32, process: Process, now: Duration) {
        self.endpoints.touch(endpoint, now).process = Some(process);
    }

    /// The index of an endpoint's row, and whether it was made.
    pub(super) fn endpoint(&mut self, key: EndpointKey, now: Duration) -> (u32, bool) {
        let (index, made) = self.endpoints.index(key, now);
        if made {
            self.endpoints.set_ports(index, self.slot(key.netns));
        }
        (index, made)
    }

    /// The index of a destination's row, made if need be.
    pub(super) fn destination(&mut self, endpoint: u32, remote: SocketAddr, now: Duration) -> u32 {
        let (index, made) = self.destinations.index(endpoint, remote);
        if made {
            self.endpoints.touch(endpoint, now).destinations += 1;
        }
        index
    }

    /// A connection of an endpoint opened: an event, not a stock.
    pub(super) fn note_opened(&mut self, endpoint: u32, member: u32, now: Duration) {
        self.endpoints.touch(endpoint, now).flow.opened += 1;
        if let Some(row) = self.members.touch(member, now) {
            row.flow.opened += 1;
        }
        self.flow.opened += 1;
    }

    /// A socket of an endpoint ended, opened or not.
    pub(super) fn note_end(&mut self, endpoint: u32, member: u32, opened: bool, now: Duration) {
        let of_member = self.members.touch(member, now).map(|row| &mut row.flow);
        for flow in [&mut self.endpoints.touch(endpoint, now).flow, &mut self.flow].into_iter().chain(of_member) {
            flow.closed += u64::from(opened);
            flow.failed += u64::from(!opened);
        }
    }

    /// The kernel refused something to a member.
    pub(super) fn note_failures(&mut self, member: u32, count: u64, now: Duration) {
        if let Some(row) = self.members.touch(member, now) {
            row.failures += count;
        }
    }

    /// As [`MemberTable::index`].
    pub(super) fn member(&mut self, member: Member, now: Duration) -> Option<u32> {
        self.members.index(member, now)
    }

    /// As [`MemberTable::set_service`].
    pub(super) fn set_service(&mut self, member: Member, service: Option<Service>) -> Option<u32> {
        self.members.set_service(member, service)
    }

    /// Something beside its sockets names a member: it stays.
    pub(super) fn keep_member(&mut self, member: Member, now: Duration) {
        self.members.keep(member, now);
    }

    /// As [`MemberTable::take_forgotten`].
    pub(super) fn take_forgotten_cgroups(&mut self) -> Vec<CgroupId> {
        self.members.take_forgotten()
    }

    /// A TIME_WAIT socket came to a destination, and keeps its port until it ends.
    pub(super) fn note_time_wait(&mut self, destination: u32) {
        if let Some(row) = self.destinations.get_mut(destination) {
            row.entered += 1;
        }
    }

    /// Takes note of how many full sockets there are.
    pub(super) fn note_sockets(&mut self, sockets: u32) {
        self.peak = self.peak.max(sockets);
    }

    /// Resets peaks and totals: they begin at `now`, with `sockets` full sockets.
    pub(super) fn restart(&mut self, sockets: u32, now: Duration) {
        (self.peak, self.counted_since) = (sockets, now);
        self.endpoints.restart(now);
        self.flow.restart();
        self.members.restart();
    }

    /// Once a second: rates, history, and the end of rows that have been empty for long.
    pub(super) fn tick(&mut self, elapsed: Duration, now: Duration) {
        self.flow.tick(elapsed);
        self.owners.tick();
        let gone = self.members.tick(elapsed, now);
        if !gone.is_empty() {
            self.owners.forget_members(&gone);
        }
        self.endpoints.tick(elapsed);
        let endpoints = &mut self.endpoints;
        self.destinations.evict(|endpoint| endpoints.forget_destination(endpoint));
        self.endpoints.evict(now);
    }

    /// Forgets the rows and ports of a namespace whose sockets are all gone.
    pub(super) fn forget(&mut self, netns: NetnsId) {
        let Self { endpoints, destinations, .. } = self;
        destinations.retain(|row| endpoints.get(row.endpoint).key.netns != netns);
        endpoints.forget(netns);
        if let Some(slot) = self.ports_by_netns.remove(&netns) {
            self.ports.remove(slot as usize);
        }
    }
}

#[cfg(test)]
mod totals;
