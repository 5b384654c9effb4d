//! Listening sockets, and which of them a local address belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap;

use super::{
    Model,
    event::{Identity, Queues},
    snapshot::{Direction, EndpointKey},
    units::{NetnsId, Process, SocketId},
};

/// A listening socket.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) netns: NetnsId,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) process: Option<Process>,
    /// All that hold it, as the last pass over open files has found them.
    pub(super) holders: Vec<Process>,
    pub(super) generation: u32,
    /// The last pass over open files that saw its process hold it.
    pub(super) held_in_pass: u8,
    /// bind() named its port, as the last scan has found: it will want the same when it starts anew.
    pub(super) chose_port: bool,
    /// As the last scan found them.
    pub(super) queues: Option<Queues>,
    /// It was there before observer came.
    pub(super) is_older: bool,
}

impl Listener {
    const fn key(&self) -> EndpointKey {
        let Self { netns, ip, port, .. } = *self;
        EndpointKey { netns, direction: Direction::Inbound, local_ip: ip, local_port: Some(port) }
    }

    const fn address(&self) -> Address {
        (self.netns, self.ip, self.port)
    }
}

type Address = (NetnsId, IpAddr, u16);

/// All listening sockets.
#[derive(Default)]
pub(super) struct ListenerTable {
    by_id: FxHashMap<SocketId, Listener>,
    /// Those that share an address, the oldest first.
    by_address: FxHashMap<Address, Vec<SocketId>>,
}

impl ListenerTable {
    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Listener> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &Listener)> {
        self.by_id.iter().map(|(id, listener)| (*id, listener))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.by_id.values_mut()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (SocketId, &mut Listener)> {
        self.by_id.iter_mut().map(|(id, listener)| (*id, listener))
    }

    /// Listeners of a namespace.
    pub(super) fn of_namespace(&self, netns: NetnsId) -> Vec<SocketId> {
        self.by_id.iter().filter(|(_, listener)| listener.netns == netns).map(|(id, _)| *id).collect()
    }

    /// Adds a listener under an id that no other has.
    pub(super) fn insert(&mut self, id: SocketId, listener: Listener) {
        self.by_address.entry(listener.address()).or_default().push(id);
        self.by_id.insert(id, listener);
    }

    pub(super) fn remove(&mut self, id: SocketId) -> Option<Listener> {
        let listener = self.by_id.remove(&id)?;
        let address = listener.address();
        if let Some(ids) = self.by_address.get_mut(&address) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(listener)
    }

    /// Listeners of a namespace that a scan of `generation` did not find.
    pub(super) fn older_than(&self, netns: NetnsId, generation: u32) -> Vec<SocketId> {
        let old = |listener: &Listener| listener.netns == netns && listener.generation != generation;
        self.by_id.iter().filter(|(_, listener)| old(listener)).map(|(id, _)| *id).collect()
    }

    /// The listener that connections to this local address belong to: the one bound to exactly this address, else one
    /// bound to every address. An IPv6 listener on every address takes IPv4 too, unless `IPV6_V6ONLY` is set; where an
    /// IPv4 listener exists it wins.
    pub(super) fn covering(&self, netns: NetnsId, ip: IpAddr, port: u16) -> Option<&Listener> {
        self.by_id.get(self.all_covering(netns, ip, port)?.first()?)
    }

    /// All who hold a listener that connections to this local address belong to.
    pub(super) fn holders(&self, netns: NetnsId, ip: IpAddr, port: u16) -> Vec<Process> {
        let ids = self.all_covering(netns, ip, port).unwrap_or_default();
        let mut holders: Vec<Process> = Vec::new();
        for process in ids.iter().filter_map(|id| self.by_id.get(id)).flat_map(|listener| &listener.holders) {
            if holders.iter().all(|known| known.pid != process.pid) {
                holders.push(*process);
            }
        }
        holders
    }

    fn all_covering(&self, netns: NetnsId, ip: IpAddr, port: u16) -> Option<&[SocketId]> {
        const EVERY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        const EVERY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let bound_to = |bound| self.by_address.get(&(netns, bound, port)).map(Vec::as_slice);
        let every_v4 = || if ip.is_ipv4() { bound_to(EVERY_V4) } else { None };
        bound_to(ip).or_else(every_v4).or_else(|| bound_to(EVERY_V6))
    }
}

impl Model {
    pub(super) fn add_listener(&mut self, socket: &Identity, process: Option<Process>) {
        let Identity { id, netns, tuple } = *socket;
        self.remove_listener(id);
        let listener = Listener {
            netns,
            ip: tuple.local_ip,
            port: tuple.local_port,
            process,
            holders: process.into_iter().collect(),
            generation: self.generation,
            held_in_pass: self.holder_pass.number,
            chose_port: false,
            queues: None,
            is_older: false,
        };
        let endpoint = self.endpoint(listener.key());
        self.endpoints.touch(endpoint, self.now).listeners += 1;
        self.hold_port(netns, listener.port);
        self.listeners.insert(id, listener);
    }

    pub(super) fn remove_listener(&mut self, id: SocketId) {
        let Some(listener) = self.listeners.remove(id) else { return };
        self.release_port(listener.netns, listener.port);
        if let Some(endpoint) = self.endpoints.find(&listener.key()) {
            self.endpoints.touch(endpoint, self.now).listeners -= 1;
        }
    }
}
