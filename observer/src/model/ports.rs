//! Which local ports connect() can still be given. It takes a port of `ip_local_port_range` that is not reserved, whose
//! bind bucket was not made by an explicit bind of whatever address, and whose four-tuple with the destination is free or
//! held by a TIME_WAIT socket that may be reused (`__inet_hash_connect` in net/ipv4/inet_hashtables.c).

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    Model,
    device::Device,
    key_of,
    minis::Mini,
    namespace::{Namespace, NamespaceReading, PortSet},
    snapshot::EndpointKey,
    units::{NetnsId, PortRange, TcpState},
};

/// How a four-tuple counts against the ports of its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    /// connect() would not choose its port for anybody, or the socket is no client's.
    #[default]
    Not,
    /// TIME_WAIT that connect() takes over.
    Reusable,
    /// TIME_WAIT, and not to be taken over, or not yet.
    TimeWait,
    /// In use.
    Used,
}

impl Counted {
    /// connect() cannot have the port.
    pub(super) const fn is_taken(self) -> bool {
        matches!(self, Self::Used | Self::TimeWait)
    }
}

/// Ports towards one destination, of those that connect() may choose.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PortCounts {
    pub(super) used: u32,
    pub(super) time_wait: u32,
    pub(super) time_wait_reusable: u32,
}

impl PortCounts {
    fn zip(self, other: Self, op: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            used: op(self.used, other.used),
            time_wait: op(self.time_wait, other.time_wait),
            time_wait_reusable: op(self.time_wait_reusable, other.time_wait_reusable),
        }
    }

    fn count(&mut self, counted: Counted) -> Option<&mut u32> {
        match counted {
            Counted::Not => None,
            Counted::Used => Some(&mut self.used),
            Counted::TimeWait => Some(&mut self.time_wait),
            Counted::Reusable => Some(&mut self.time_wait_reusable),
        }
    }

    pub(super) fn change(&mut self, from: Counted, to: Counted) {
        if let Some(count) = self.count(from) {
            *count -= 1;
        }
        if let Some(count) = self.count(to) {
            *count += 1;
        }
    }

    /// Ports that connect() cannot choose for this destination alone.
    pub(super) const fn taken(self) -> u32 {
        self.used + self.time_wait
    }
}

impl std::ops::Add for PortCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_add)
    }
}

/// A difference may be below zero, as long as it is added again to what it was taken from.
impl std::ops::Sub for PortCounts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_sub)
    }
}

/// Who is on a port.
#[derive(Clone, Copy, Debug, Default)]
struct Port {
    /// Sockets that are on it by an explicit bind, of any address: while there is one, connect() passes it over.
    holders: u32,
    /// Four-tuples of clients that have it.
    clients: u32,
    /// Nobody holds it any more, but its bucket lives on with its clients, and stays explicit before 6.18.
    stays_explicit: bool,
}

impl Port {
    const fn is_blocked(self) -> bool {
        self.holders > 0 || self.stays_explicit
    }
}

/// A port in its space of bind buckets, as one number: `space` is a VRF, 0 for what is outside of any.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place(u64);

impl Place {
    fn new(space: u32, port: u16) -> Self {
        Self(u64::from(space) << 16 | u64::from(port))
    }

    const fn space(self) -> u32 {
        (self.0 >> 16) as u32
    }

    const fn port(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// The local ports of a network namespace.
#[derive(Default)]
pub(super) struct Ports {
    /// The range less the reserved ports.
    usable: PortSet,
    /// How many these are.
    pub(super) usable_count: u32,
    /// Reserved ports of the range.
    pub(super) reserved: u32,
    /// Ports that are not reserved, and that connect() never looks at: the highest of a range of three.
    pub(super) passed_over: u32,
    /// The lowest and the highest port of a range of odd size: each call passes over one of them.
    edges: Option<[u16; 2]>,
    /// Usable ports that somebody holds, outside of VRFs.
    blocked: u32,
    /// The same of each VRF.
    blocked_in_vrf: FxHashMap<u32, u32>,
    by_number: FxHashMap<Place, Port>,
    /// A port with clients was blocked or set free: how they count is to be found anew.
    is_stale: bool,
}

impl Ports {
    /// Takes over the range; who is on the ports is to be told anew.
    pub(super) fn reset(&mut self, reading: &NamespaceReading) {
        *self = Self::default();
        let Some(range) = reading.port_range else { return };
        self.usable.insert(range);
        for range in &reading.reserved {
            self.usable.remove(*range);
        }
        self.usable_count = self.usable.len();
        self.reserved = range.size() - self.usable_count;
        // `__inet_hash_connect` rounds the number of ports down to an even one, and starts anywhere: it passes over the
        // highest port if it starts at the lowest, and else over the lowest. Of three ports it always starts at the first.
        match range.size() {
            1 => {}
            3 if self.usable.contains(range.high) => {
                self.usable.remove(PortRange { low: range.high, high: range.high });
                self.usable_count -= 1;
                self.passed_over = 1;
            }
            size if size % 2 == 1 && size > 3 => self.edges = Some([range.low, range.high]),
            _ => {}
        }
    }

    /// Part of the range, and not reserved.
    pub(super) fn is_usable(&self, port: u16) -> bool {
        self.usable.contains(port)
    }

    /// Usable ports of a space that somebody holds.
    pub(super) fn blocked(&self, space: u32) -> u32 {
        if space == 0 { self.blocked } else { self.blocked_in_vrf.get(&space).copied().unwrap_or(0) }
    }

    /// Of the ports that a call can pass over, those that connect() may choose.
    pub(super) fn choosable_edges(&self, space: u32) -> impl Iterator<Item = u16> {
        self.edges.into_iter().flatten().filter(move |port| self.may_be_chosen(Place::new(space, *port)))
    }

    fn may_be_chosen(&self, place: Place) -> bool {
        self.is_usable(place.port()) && self.by_number.get(&place).is_none_or(|it| !it.is_blocked())
    }

    fn hold(&mut self, place: Place) {
        self.change(place, |it| it.holders += 1);
    }

    fn release(&mut self, place: Place, frees_bucket: bool) {
        self.change(place, |it| {
            it.holders -= 1;
            it.stays_explicit = it.holders == 0 && it.clients > 0 && !frees_bucket;
        });
    }

    fn join(&mut self, place: Place) {
        self.change(place, |it| it.clients += 1);
    }

    fn leave(&mut self, place: Place) {
        self.change(place, |it| {
            it.clients -= 1;
            it.stays_explicit &= it.clients > 0;
        });
    }

    /// A scan has shown the bucket of every socket.
    pub(super) fn end_scan(&mut self) {
        let outlived: Vec<Place> =
            self.by_number.iter().filter(|(_, it)| it.stays_explicit).map(|(place, _)| *place).collect();
        for place in outlived {
            self.change(place, |it| it.stays_explicit = false);
        }
    }

    fn change(&mut self, place: Place, change: impl FnOnce(&mut Port)) {
        let known = self.by_number.entry(place).or_default();
        let before = *known;
        change(known);
        let after = *known;
        if after.holders + after.clients == 0 {
            self.by_number.remove(&place);
        }
        if before.is_blocked() != after.is_blocked() && self.usable.contains(place.port()) {
            let blocked = match place.space() {
                0 => &mut self.blocked,
                vrf => self.blocked_in_vrf.entry(vrf).or_default(),
            };
            *blocked = *blocked + u32::from(after.is_blocked()) - u32::from(before.is_blocked());
            self.is_stale |= after.clients > 0;
        }
    }

    fn of_socket(&self, place: Place, state: TcpState) -> Counted {
        // connect() has chosen a port and only a later event tells which: one of those that it may choose.
        let is_chosen_unseen = place.port() == 0 && state == TcpState::SynSent && self.usable_count > 0;
        if is_chosen_unseen || self.may_be_chosen(place) { Counted::Used } else { Counted::Not }
    }

    fn of_mini(&self, space: u32, mini: &Mini, now: Duration) -> Counted {
        match mini.state {
            _ if !self.may_be_chosen(Place::new(space, mini.local_port)) => Counted::Not,
            TcpState::TimeWait if mini.reusable_from.is_some_and(|from| from <= now) => Counted::Reusable,
            TcpState::TimeWait => Counted::TimeWait,
            _ => Counted::Used,
        }
    }
}

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
        self.take_over_mini(key_of(&self.endpoints, self.sockets.get(index)));
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
    pub(super) fn use_mini_port(&mut self, index: u32) {
        let now = self.monotonic(self.now);
        let Self { minis, endpoints, destinations, namespaces, ripening, .. } = self;
        let Some(mini) = minis.get_mut(index) else { return };
        let Some(row) = destinations.get_mut(mini.destination) else { return };
        let key = &endpoints.get(mini.endpoint).key;
        let Some(namespace) = namespaces.get_mut(&key.netns) else { return };
        let space = namespace.devices.space(key.device.index());
        namespace.ports.join(Place::new(space, mini.local_port));
        mini.reusable_from = namespace.reading.reusable_from(mini, key, row.remote.ip());
        ripening.0.extend(mini.reusable_from.filter(|from| *from > now).map(|from| Reverse((from, index))));
        mini.counted = namespace.ports.of_mini(space, mini, now);
        row.ports.change(Counted::Not, mini.counted);
    }

    /// The range of a namespace changed, or the rule of reuse: who is on which port is found anew.
    pub(super) fn rebuild_ports(&mut self, netns: NetnsId) {
        let now = self.monotonic(self.now);
        let Self { sockets, listeners, bound, minis, endpoints, destinations, namespaces, ripening, .. } = self;
        let Some(Namespace { reading, devices, ports, .. }) = namespaces.get_mut(&netns) else { return };
        ports.reset(reading);
        let place = |device: Device, port| Place::new(devices.space(device.index()), port);
        let listening = listeners.iter().map(|(_, it)| it).filter(|it| it.netns == netns);
        let listening = listening.map(|it| place(it.device, it.port));
        let bound = bound.iter().filter(|it| it.netns == netns).map(|it| place(it.device, it.port));
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
        for (index, mini) in minis.iter_mut() {
            let key = &endpoints.get(mini.endpoint).key;
            if key.netns != netns {
                continue;
            }
            let place = place(key.device, mini.local_port);
            if mini.is_explicit {
                ports.hold(place);
            }
            if let Some(row) = destinations.get_mut(mini.destination) {
                ports.join(place);
                mini.reusable_from = reading.reusable_from(mini, key, row.remote.ip());
                ripening.0.extend(mini.reusable_from.filter(|from| *from > now).map(|from| Reverse((from, index))));
            }
        }
        self.recount_ports(netns);
    }

    /// How each client of a namespace counts is found anew.
    fn recount_ports(&mut self, netns: NetnsId) {
        let now = self.monotonic(self.now);
        let Self { sockets, minis, endpoints, destinations, namespaces, .. } = self;
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
        for (_, mini) in minis.iter_mut() {
            let Some(space) = space(mini.endpoint) else { continue };
            if let Some(row) = destinations.get_mut(mini.destination) {
                let counted = ports.of_mini(space, mini, now);
                row.ports.change(std::mem::replace(&mut mini.counted, counted), counted);
            }
        }
    }

    /// Brings the counts of ports to `now`: what has become reusable by it, and what was put off.
    pub(super) fn settle_ports(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let now = self.monotonic(self.now);
        while let Some((from, index)) = self.ripening.next(now) {
            let Some(mini) = self.minis.get_mut(index).filter(|mini| mini.reusable_from == Some(from)) else {
                continue;
            };
            if let Some(row) = self.destinations.get_mut(mini.destination)
                && mini.counted == Counted::TimeWait
            {
                row.ports.change(mini.counted, Counted::Reusable);
                mini.counted = Counted::Reusable;
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
    pub fn take_wish_for_scan(&mut self) -> bool {
        std::mem::take(&mut self.wants_scan)
    }
}
