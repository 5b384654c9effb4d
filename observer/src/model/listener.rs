//! Listening sockets, and which of them a local address belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustc_hash::{FxHashMap, FxHashSet};
use slab::Slab;

use super::{
    Model,
    address::{Direction, EndpointKey},
    device::Device,
    endpoint::EndpointTable,
    event::Identity,
    index::narrow,
    ledger::{At, Contribution, Counts},
    listen_drops::ListenerDrops,
    units::{FourTuple, NetnsId, Process, Queues, SocketId},
};

/// A listening socket.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) netns: NetnsId,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// The device that it is bound to.
    pub(super) device: Device,
    pub(super) process: Option<Process>,
    /// Index of the row of its cgroup, else of its process.
    pub(super) member: u32,
    /// All its owners, as the last fd scan has found them.
    pub(super) fd_owners: Vec<Process>,
    pub(super) generation: u32,
    /// The last fd scan that saw its process own it.
    pub(super) seen_in_fd_scan: u8,
    /// bind() named its port, as the last scan has found: it will want the same after a restart.
    pub(super) chose_port: bool,
    /// As the last scan found them.
    pub(super) queues: Option<Queues>,
    /// It was there before observer came.
    pub(super) is_older: bool,
    /// What it discarded, and why.
    pub(super) drops: ListenerDrops,
}

impl Listener {
    /// Its address.
    pub(super) const fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    const fn key(&self) -> EndpointKey {
        let Self { netns, ip, port, device, .. } = *self;
        EndpointKey { netns, direction: Direction::Inbound, local_ip: ip, local_port: Some(port), device }
    }

    /// What it adds to all totals. The row of a listener stays as long as the listener.
    pub(super) fn contribution(&self, endpoints: &EndpointTable) -> Contribution {
        let at = endpoints.find(&self.key()).map_or(At::Nowhere, At::Endpoint);
        Contribution {
            at,
            counts: Counts::Listener,
            binder: Some(self.port),
            member: self.member,
            ..Contribution::NONE
        }
    }

    const fn address(&self) -> Address {
        (self.netns, self.ip, self.port, self.device.index())
    }
}

/// With the index of the device, 0 for none.
type Address = (NetnsId, IpAddr, u16, u32);

/// The devices that a listener may be bound to, the first to be asked first. One that is bound to none comes last. Most sockets are
/// on no device: for these it is the only one.
type Devices = [Option<u32>; 2];

/// All listening sockets.
#[derive(Default)]
pub(super) struct ListenerTable {
    rows: Slab<(SocketId, Listener)>,
    by_id: FxHashMap<SocketId, u32>,
    /// A scan is about one namespace of hundreds.
    by_netns: FxHashMap<NetnsId, FxHashSet<u32>>,
    /// Those that share an address, the oldest first.
    by_address: FxHashMap<Address, Vec<u32>>,
}

impl ListenerTable {
    pub(super) fn contains(&self, id: SocketId) -> bool {
        self.by_id.contains_key(&id)
    }

    fn at(&self, index: u32) -> &Listener {
        &self.rows[index as usize].1
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&Listener> {
        Some(self.at(*self.by_id.get(&id)?))
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Listener> {
        Some(&mut self.rows[*self.by_id.get(&id)? as usize].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &Listener)> {
        self.rows.iter().map(|(_, (id, listener))| (*id, listener))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketId, &mut Listener)> {
        self.rows.iter_mut().map(|(_, (id, listener))| (*id, listener))
    }

    /// Listeners of a namespace.
    pub(super) fn of_namespace(&self, netns: NetnsId) -> impl Iterator<Item = (SocketId, &Listener)> {
        let rows = self.by_netns.get(&netns).into_iter().flatten().map(|index| &self.rows[*index as usize]);
        rows.map(|(id, listener)| (*id, listener))
    }

    /// Changes the listeners of a namespace.
    pub(super) fn change_in_namespace(&mut self, netns: NetnsId, mut change: impl FnMut(&mut Listener)) {
        for index in self.by_netns.get(&netns).into_iter().flatten() {
            change(&mut self.rows[*index as usize].1);
        }
    }

    /// Adds a listener under an id that no other has.
    pub(super) fn insert(&mut self, id: SocketId, listener: Listener) {
        let (netns, address) = (listener.netns, listener.address());
        let index = narrow(self.rows.insert((id, listener)));
        self.by_id.insert(id, index);
        self.by_netns.entry(netns).or_default().insert(index);
        self.by_address.entry(address).or_default().push(index);
    }

    pub(super) fn remove(&mut self, id: SocketId) -> Option<Listener> {
        let index = self.by_id.remove(&id)?;
        let (_, listener) = self.rows.remove(index as usize);
        if let Some(of_namespace) = self.by_netns.get_mut(&listener.netns) {
            of_namespace.remove(&index);
            if of_namespace.is_empty() {
                self.by_netns.remove(&listener.netns);
            }
        }
        let address = listener.address();
        if let Some(of_address) = self.by_address.get_mut(&address) {
            of_address.retain(|other| *other != index);
            if of_address.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(listener)
    }

    /// Listeners of a namespace that a scan of `generation` did not find.
    pub(super) fn older_than(&self, netns: NetnsId, generation: u32) -> Vec<SocketId> {
        self.of_namespace(netns).filter(|(_, listener)| listener.generation != generation).map(|(id, _)| id).collect()
    }

    /// The listener that connections to this local address on one of `devices` belong to: the one bound to exactly this
    /// address, else one bound to every address; of each the device's own first. An IPv6 listener on every address takes
    /// IPv4 too, unless `IPV6_V6ONLY` is set; where an IPv4 listener exists it wins.
    pub(super) fn covering(&self, netns: NetnsId, ip: IpAddr, port: u16, devices: Devices) -> Option<&Listener> {
        Some(self.at(*self.all_covering(netns, ip, port, devices)?.first()?))
    }

    /// All owners of a listener that connections to this local address belong to.
    pub(super) fn fd_owners(&self, netns: NetnsId, ip: IpAddr, port: u16, devices: Devices) -> Vec<Process> {
        let listeners = self.all_covering(netns, ip, port, devices).unwrap_or_default();
        let mut fd_owners: Vec<Process> = Vec::new();
        for process in listeners.iter().flat_map(|index| &self.at(*index).fd_owners) {
            if fd_owners.iter().all(|known| known.pid != process.pid) {
                fd_owners.push(*process);
            }
        }
        fd_owners
    }

    fn all_covering(&self, netns: NetnsId, ip: IpAddr, port: u16, devices: Devices) -> Option<&[u32]> {
        const EVERY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        const EVERY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let bound_to = |bound| {
            let mut devices = devices.into_iter().flatten().chain([0]);
            devices.find_map(|device| self.by_address.get(&(netns, bound, port, device)).map(Vec::as_slice))
        };
        let every_v4 = || if ip.is_ipv4() { bound_to(EVERY_V4) } else { None };
        bound_to(ip).or_else(every_v4).or_else(|| bound_to(EVERY_V6))
    }
}

impl Model {
    /// The listener that a socket with this local address belongs to.
    pub(super) fn covering(&self, socket: &Identity) -> Option<&Listener> {
        let FourTuple { local_ip, local_port, .. } = socket.tuple;
        self.covering_address(socket.netns, local_ip, local_port, socket.device)
    }

    /// As [`Self::covering`]. The child of a listener that is bound to no device has none, or the one that its link-local
    /// peer is on; that of a listener in a VRF likewise.
    pub(super) fn covering_address(&self, netns: NetnsId, ip: IpAddr, port: u16, device: Device) -> Option<&Listener> {
        self.listeners.covering(netns, ip, port, self.listener_devices(netns, device))
    }

    /// All owners of a listener as [`Self::covering_address`] finds it.
    pub(super) fn fd_owners_of_listener(&self, netns: NetnsId, ip: IpAddr, port: u16, device: Device) -> Vec<Process> {
        self.listeners.fd_owners(netns, ip, port, self.listener_devices(netns, device))
    }

    /// Whether there is a listener as [`Self::covering`] finds it.
    pub(super) fn is_covered(&self, socket: &Identity) -> bool {
        let Identity { netns, tuple: FourTuple { local_ip, local_port, .. }, device, .. } = *socket;
        self.listeners.all_covering(netns, local_ip, local_port, self.listener_devices(netns, device)).is_some()
    }

    fn listener_devices(&self, netns: NetnsId, device: Device) -> Devices {
        if device.is_none() {
            return [None; 2];
        }
        let vrf = self.readings.namespaces.get(&netns).map_or(0, |namespace| namespace.devices.vrf(device.index()));
        [Some(device.index()), Some(vrf).filter(|vrf| *vrf != 0)]
    }

    pub(super) fn add_listener(&mut self, socket: &Identity, process: Option<Process>) {
        let Identity { id, netns, tuple, device, cgroup } = *socket;
        self.remove_listener(id);
        let member = self.member_of_cgroup(cgroup).unwrap_or_else(|| self.member_of_process(process));
        let listener = Listener {
            netns,
            ip: tuple.local_ip,
            port: tuple.local_port,
            device,
            process,
            member,
            fd_owners: process.into_iter().collect(),
            generation: self.generation,
            seen_in_fd_scan: self.fd_scan.number,
            chose_port: false,
            queues: None,
            is_older: false,
            drops: ListenerDrops::default(),
        };
        self.endpoint(listener.key());
        self.ledger.apply(Contribution::NONE, listener.contribution(self.ledger.endpoints()), self.now);
        self.listeners.insert(id, listener);
    }

    pub(super) fn remove_listener(&mut self, id: SocketId) {
        // Every end of a socket asks, and few are listeners: a look-up without removal is cheap.
        if !self.listeners.contains(id) {
            return;
        }
        let Some(listener) = self.listeners.remove(id) else { return };
        self.ledger.apply(listener.contribution(self.ledger.endpoints()), Contribution::NONE, self.now);
        self.note_end_of_listener(listener.netns);
    }
}
