//! Which local ports connect() can still be given. It takes a port of `ip_local_port_range` that is not reserved, whose
//! bind bucket was not made by an explicit bind of whatever address, and whose four-tuple with the destination is free or
//! held by a TIME_WAIT socket that may be reused (`__inet_hash_connect` in net/ipv4/inet_hashtables.c).

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{
    Model,
    device::Device,
    key_of,
    namespace::Namespace,
    port_table::{Counted, Place},
    snapshot::EndpointKey,
    units::NetnsId,
};

/// When TIME_WAIT sockets become reusable, with their rows in the table: the earliest first. Rows that were taken since
/// by another, or by nobody, are told by their own time.
#[derive(Default)]
pub(super) struct Ripening(BinaryHeap<Reverse<(Duration, u32)>>);

impl Ripening {
    fn next(&mut self, now: Duration) -> Option<(Duration, u32)> {
        self.0.peek().filter(|Reverse((from, _))| *from <= now)?;
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

impl Model {
    /// connect() chooses the port after the socket is in SYN_SENT: a later event tells it.
    pub(super) fn learn_port(&mut self, index: u32, port: u16) {
        if port == 0 || self.sockets.get(index).local_port != 0 {
            return;
        }
        self.give_up_socket_port(index);
        let endpoints = &self.endpoints;
        self.sockets.set_local_port(index, port, |socket| key_of(endpoints, socket));
        self.take_over_minisock(key_of(&self.endpoints, self.sockets.get(index)));
        self.use_port(index);
    }

    /// Counts the socket against its destination's ports.
    pub(super) fn use_port(&mut self, index: u32) {
        let Self { sockets, endpoints, destinations, namespaces, .. } = self;
        let socket = sockets.get_mut(index);
        let Some(row) = destinations.get_mut(socket.destination) else { return };
        let key = &endpoints.get(socket.endpoint).key;
        let Some(namespace) = namespaces.get_mut(&key.netns) else { return };
        let space = namespace.devices.space(key.device.index());
        let (ports, place) = (&mut namespace.ports, Place::new(space, socket.local_port));
        ports.join(place);
        socket.counted = ports.of_socket(place, socket.state);
        row.ports.change(Counted::Not, socket.counted);
        // What is left is best known exactly while it is little.
        let left = ports.usable_count.saturating_sub(ports.blocked(space) + row.ports.taken());
        self.wants_scan |= socket.counted == Counted::Used && left < ports.usable_count / 10;
    }

    /// The opposite of [`Self::use_port`].
    pub(super) fn give_up_socket_port(&mut self, index: u32) {
        let socket = self.sockets.get_mut(index);
        let counted = std::mem::take(&mut socket.counted);
        let socket = *socket;
        let EndpointKey { netns, device, .. } = self.endpoints.get(socket.endpoint).key;
        self.give_up_port((netns, device), socket.destination, socket.local_port, counted);
    }

    /// A client's four-tuple has this port no longer.
    pub(super) fn give_up_port(
        &mut self,
        (netns, device): (NetnsId, Device),
        destination: u32,
        port: u16,
        counted: Counted,
    ) {
        let Some(row) = self.destinations.get_mut(destination) else { return };
        row.ports.change(counted, Counted::Not);
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.ports.leave(Place::new(namespace.devices.space(device.index()), port));
        }
    }

    /// The socket is, or is not, on an explicit bind bucket.
    pub(super) fn set_explicit(&mut self, index: u32, is_explicit: bool) {
        let socket = *self.sockets.get(index);
        if socket.is_explicit == is_explicit || socket.local_port == 0 {
            return;
        }
        // Between the two it counts nowhere, so that the change of its port concerns others only.
        self.give_up_socket_port(index);
        self.sockets.get_mut(index).is_explicit = is_explicit;
        let EndpointKey { netns, device, .. } = self.endpoints.get(socket.endpoint).key;
        if is_explicit {
            self.hold_port(netns, device, socket.local_port);
        } else {
            self.release_port(netns, device, socket.local_port);
        }
        self.use_port(index);
    }

    pub(super) fn hold_port(&mut self, netns: NetnsId, device: Device, port: u16) {
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.ports.hold(Place::new(namespace.devices.space(device.index()), port));
        }
    }

    pub(super) fn release_port(&mut self, netns: NetnsId, device: Device, port: u16) {
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            let place = Place::new(namespace.devices.space(device.index()), port);
            namespace.ports.release(place, self.basis.frees_buckets);
        }
    }

    /// Counts a TIME_WAIT socket against its destination's ports.
    pub(super) fn use_minisock_port(&mut self, index: u32) {
        let now = self.monotonic(self.now);
        let Self { minisocks, endpoints, destinations, namespaces, ripening, .. } = self;
        let Some(minisock) = minisocks.get_mut(index) else { return };
        let Some(row) = destinations.get_mut(minisock.destination) else { return };
        let key = &endpoints.get(minisock.endpoint).key;
        let Some(namespace) = namespaces.get_mut(&key.netns) else { return };
        let space = namespace.devices.space(key.device.index());
        namespace.ports.join(Place::new(space, minisock.local_port));
        minisock.reusable_from = namespace.reading.reusable_from(minisock, key, row.remote.ip());
        ripening.0.extend(minisock.reusable_from.filter(|from| *from > now).map(|from| Reverse((from, index))));
        minisock.counted = namespace.ports.of_minisock(space, minisock, now);
        row.ports.change(Counted::Not, minisock.counted);
    }

    /// The range of a namespace changed, or the rule of reuse: who is on which port is found anew.
    pub(super) fn rebuild_ports(&mut self, netns: NetnsId) {
        let now = self.monotonic(self.now);
        let Self { sockets, listeners, bound, minisocks, endpoints, destinations, namespaces, ripening, .. } = self;
        let Some(Namespace { reading, devices, ports, .. }) = namespaces.get_mut(&netns) else { return };
        ports.reset(reading);
        let place = |device: Device, port| Place::new(devices.space(device.index()), port);
        let listening = listeners.iter().map(|(_, it)| it).filter(|it| it.netns == netns);
        let listening = listening.map(|it| place(it.device, it.port));
        let bound = bound
            .iter()
            .map(|(_, it)| it)
            .filter(|it| it.netns == netns)
            .map(|it| place(it.local.device, it.local.port));
        listening.chain(bound).for_each(|place| ports.hold(place));
        for socket in sockets.iter() {
            let key = &endpoints.get(socket.endpoint).key;
            if key.netns != netns {
                continue;
            }
            let place = place(key.device, socket.local_port);
            if socket.is_explicit {
                ports.hold(place);
            }
            if destinations.get_mut(socket.destination).is_some() {
                ports.join(place);
            }
        }
        for (index, minisock) in minisocks.iter_mut() {
            let key = &endpoints.get(minisock.endpoint).key;
            if key.netns != netns {
                continue;
            }
            let place = place(key.device, minisock.local_port);
            if minisock.is_explicit {
                ports.hold(place);
            }
            if let Some(row) = destinations.get_mut(minisock.destination) {
                ports.join(place);
                minisock.reusable_from = reading.reusable_from(minisock, key, row.remote.ip());
                ripening.0.extend(minisock.reusable_from.filter(|from| *from > now).map(|from| Reverse((from, index))));
            }
        }
        self.recount_ports(netns);
    }

    /// How each client of a namespace counts is found anew.
    fn recount_ports(&mut self, netns: NetnsId) {
        let now = self.monotonic(self.now);
        let Self { sockets, minisocks, endpoints, destinations, namespaces, .. } = self;
        let Some(Namespace { devices, ports, .. }) = namespaces.get_mut(&netns) else { return };
        ports.is_stale = false;
        let space = |endpoint| {
            let key = &endpoints.get(endpoint).key;
            (key.netns == netns).then(|| devices.space(key.device.index()))
        };
        for socket in sockets.iter_mut() {
            let Some(space) = space(socket.endpoint) else { continue };
            if let Some(row) = destinations.get_mut(socket.destination) {
                let counted = ports.of_socket(Place::new(space, socket.local_port), socket.state);
                let before = std::mem::replace(&mut socket.counted, counted);
                row.ports.change(before, socket.counted);
            }
        }
        for (_, minisock) in minisocks.iter_mut() {
            let Some(space) = space(minisock.endpoint) else { continue };
            if let Some(row) = destinations.get_mut(minisock.destination) {
                let counted = ports.of_minisock(space, minisock, now);
                row.ports.change(std::mem::replace(&mut minisock.counted, counted), counted);
            }
        }
    }

    /// Brings the counts of ports to `now`: what has become reusable by it, and what was put off.
    pub(super) fn settle_ports(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let now = self.monotonic(self.now);
        while let Some((from, index)) = self.ripening.next(now) {
            let Some(minisock) = self.minisocks.get_mut(index).filter(|minisock| minisock.reusable_from == Some(from))
            else {
                continue;
            };
            if let Some(row) = self.destinations.get_mut(minisock.destination)
                && minisock.counted == Counted::TimeWait
            {
                row.ports.change(minisock.counted, Counted::Reusable);
                minisock.counted = Counted::Reusable;
            }
        }
        let stale: Vec<NetnsId> =
            self.namespaces.iter().filter(|(_, it)| it.ports.is_stale).map(|(netns, _)| *netns).collect();
        for netns in stale {
            self.recount_ports(netns);
        }
        self.share_ports();
    }

    /// The kernel's `CLOCK_MONOTONIC` at a time since start. Where it is not known, the end of time: what may ever be taken
    /// over counts as such, and [`Model::port_use`] says that this is not certain.
    fn monotonic(&self, now: Duration) -> Duration {
        self.basis.started_at.map_or(Duration::MAX, |started_at| started_at + now)
    }

    /// Whether ports have become so few somewhere since the last call that a scan should tell them exactly.
    pub fn take_scan_request(&mut self) -> bool {
        std::mem::take(&mut self.wants_scan)
    }
}
