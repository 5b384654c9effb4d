//! Which local ports count against a destination: those that connect() may choose.

use super::{Model, key_of, units::NetnsId};

impl Model {
    /// connect() chooses the port after the socket is in SYN_SENT: a later event tells it.
    pub(super) fn learn_port(&mut self, index: u32, port: u16) {
        if port == 0 || self.sockets.get(index).local_port != 0 {
            return;
        }
        let endpoints = &self.endpoints;
        self.sockets.set_local_port(index, port, |socket| key_of(endpoints, socket));
        self.use_port(index);
    }

    /// Counts the socket's local port against its destination, if it is one that connect() may choose.
    pub(super) fn use_port(&mut self, index: u32) {
        let socket = self.sockets.get(index);
        let netns = self.endpoints.get(socket.endpoint).key.netns;
        let uses = self.namespaces.get(&netns).is_some_and(|it| it.usable.contains(socket.local_port));
        if let Some(row) = self.destinations.get_mut(socket.destination) {
            row.ports_used += u32::from(uses);
            self.sockets.get_mut(index).uses_range = uses;
        }
    }

    /// The range of a namespace changed: which sockets count against it is found anew.
    pub(super) fn recount_ports(&mut self, netns: NetnsId) {
        let Self { sockets, endpoints, destinations, namespaces, .. } = self;
        let Some(namespace) = namespaces.get(&netns) else {
            return;
        };
        for socket in sockets.iter_mut() {
            if endpoints.get(socket.endpoint).key.netns != netns {
                continue;
            }
            let Some(row) = destinations.get_mut(socket.destination) else {
                continue;
            };
            let uses = namespace.usable.contains(socket.local_port);
            row.ports_used = row.ports_used + u32::from(uses) - u32::from(socket.uses_range);
            socket.uses_range = uses;
        }
    }
}
