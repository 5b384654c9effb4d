//! Ports of the ephemeral range that clients bind before they connect. The kernel chooses such a port before it knows the
//! destination. Therefore no other connect() gets it, for any destination (`__inet_hash_connect` skips buckets with
//! `fastreuse >= 0`).

use rustc_hash::FxHashMap;

use super::{
    Model,
    address::{Direction, EndpointKey},
    event::{Binding, Identity},
    units::{NetnsId, SocketId},
};

/// As the last scan of each namespace found them.
#[derive(Default)]
pub(super) struct BindBeforeConnect {
    /// By outbound endpoint, one of the sockets on each port.
    last: FxHashMap<NetnsId, FxHashMap<EndpointKey, Vec<SocketId>>>,
    /// Distinct ports, as the running scan has found them so far.
    running: FxHashMap<(EndpointKey, u16), SocketId>,
}

impl BindBeforeConnect {
    /// Every outbound endpoint with sockets that bound their port that way, one for each port.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&EndpointKey, &[SocketId])> {
        self.last.values().flatten().map(|(key, sockets)| (key, &sockets[..]))
    }

    /// The scan of a namespace is complete.
    pub(super) fn finish(&mut self, netns: NetnsId) {
        let mut by_endpoint: FxHashMap<EndpointKey, Vec<SocketId>> = FxHashMap::default();
        for ((endpoint, _), socket) in std::mem::take(&mut self.running) {
            by_endpoint.entry(endpoint).or_default().push(socket);
        }
        self.last.insert(netns, by_endpoint);
    }

    /// The running scan will not be completed.
    pub(super) fn abandon(&mut self) {
        self.running = FxHashMap::default();
    }

    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.last.remove(&netns);
    }
}

impl Model {
    /// Takes note of how a socket that a scan has found came by its port.
    pub(super) fn note_bind_before_connect(&mut self, socket: &Identity, binding: Binding) {
        // bind() to a port that it names locks the port: that client wants this port and no other.
        if binding.port_locked || binding.keeps_port() != Some(true) {
            return;
        }
        let Identity { id, netns, tuple, device, .. } = *socket;
        let key =
            EndpointKey { netns, direction: Direction::Outbound, local_ip: tuple.local_ip, local_port: None, device };
        let is_usable = self.ledger.ports(netns).is_some_and(|it| it.is_usable(tuple.local_port));
        let is_outbound = !self.is_covered(socket);
        if is_usable && is_outbound && self.ledger.endpoints().find(&key).is_some() {
            self.diagnosis.bind_before_connect.running.insert((key, tuple.local_port), id);
        }
    }
}
