//! Which local ports connect() can still be given. It takes a port of `ip_local_port_range` that is not reserved, whose
//! bind bucket was not made by an explicit bind of whatever address, and whose four-tuple with the destination is free or
//! held by a TIME_WAIT socket that may be reused (`__inet_hash_connect` in net/ipv4/inet_hashtables.c).

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    Model, key_of,
    minis::Mini,
    namespace::{NamespaceReading, PortSet},
    units::{NetnsId, PortRange, TcpState},
};

/// How a four-tuple counts against the ports of its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Counted {
    /// connect() would not choose its port for anybody, or the socket is no client's.
    #[default]
    Not,
    /// In use.
    Used,
    /// TIME_WAIT, and not to be taken over, or not yet.
    TimeWait,
    /// TIME_WAIT that connect() takes over.
    Reusable,
}

/// Ports towards one destination, of those that connect() may choose.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PortCounts {
    pub(super) used: u32,
    pub(super) time_wait: u32,
    pub(super) time_wait_reusable: u32,
}

impl PortCounts {
    fn count(&mut self, counted: Counted) -> Option<&mut u32> {
        match counted {
            Counted::Not => None,
            Counted::Used => Some(&mut self.used),
            Counted::TimeWait => Some(&mut self.time_wait),
            Counted::Reusable => Some(&mut self.time_wait_reusable),
        }
    }

    fn change(&mut self, from: Counted, to: Counted) {
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

/// The local ports of a network namespace.
#[derive(Default)]
pub(super) struct Ports {
    /// The range less the reserved ports.
    usable: PortSet,
    /// How many these are.
    pub(super) usable_count: u32,
    /// Reserved ports of the range.
    pub(super) reserved: u32,
    /// Usable ports that somebody holds.
    pub(super) blocked: u32,
    by_number: FxHashMap<u16, Port>,
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
    }

    /// Part of the range, and not reserved.
    pub(super) fn is_usable(&self, port: u16) -> bool {
        self.usable.contains(port)
    }

    /// Ports of `range` that have a socket, of whatever address, and how many of it may be used at all.
    pub(super) fn taken_within(&self, range: PortRange) -> (u32, u32) {
        let mut taken = 0;
        let mut usable = 0;
        for port in (range.low..=range.high).filter(|port| self.is_usable(*port)) {
            usable += 1;
            taken += u32::from(self.by_number.contains_key(&port));
        }
        (taken, usable)
    }

    /// connect() may choose it, for one destination or another.
    pub(super) fn may_be_chosen(&self, port: u16) -> bool {
        self.is_usable(port) && self.by_number.get(&port).is_none_or(|it| !it.is_blocked())
    }

    fn hold(&mut self, port: u16) {
        self.change(port, |it| it.holders += 1);
    }

    fn release(&mut self, port: u16, frees_bucket: bool) {
        self.change(port, |it| {
            it.holders -= 1;
            it.stays_explicit = it.holders == 0 && it.clients > 0 && !frees_bucket;
        });
    }

    fn join(&mut self, port: u16) {
        self.change(port, |it| it.clients += 1);
    }

    fn leave(&mut self, port: u16) {
        self.change(port, |it| {
            it.clients -= 1;
            it.stays_explicit &= it.clients > 0;
        });
    }

    /// A scan has shown the bucket of every socket.
    pub(super) fn end_scan(&mut self) {
        let outlived: Vec<u16> =
            self.by_number.iter().filter(|(_, it)| it.stays_explicit).map(|(port, _)| *port).collect();
        for port in outlived {
            self.change(port, |it| it.stays_explicit = false);
        }
    }

    fn change(&mut self, port: u16, change: impl FnOnce(&mut Port)) {
        let known = self.by_number.entry(port).or_default();
        let before = *known;
        change(known);
        let after = *known;
        if after.holders + after.clients == 0 {
            self.by_number.remove(&port);
        }
        if before.is_blocked() != after.is_blocked() && self.usable.contains(port) {
            self.blocked = self.blocked + u32::from(after.is_blocked()) - u32::from(before.is_blocked());
            self.is_stale |= after.clients > 0;
        }
    }

    fn of_socket(&self, port: u16, state: TcpState) -> Counted {
        // connect() has chosen a port and only a later event tells which: one of those that it may choose.
        let is_chosen_unseen = port == 0 && state == TcpState::SynSent && self.usable_count > 0;
        if is_chosen_unseen || self.may_be_chosen(port) { Counted::Used } else { Counted::Not }
    }

    fn of_mini(&self, mini: &Mini, now: Duration) -> Counted {
        match mini.state {
            _ if !self.may_be_chosen(mini.local_port) => Counted::Not,
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
        let Some(namespace) = namespaces.get_mut(&endpoints.get(socket.endpoint).key.netns) else { return };
        let ports = &mut namespace.ports;
        ports.join(socket.local_port);
        socket.counted = ports.of_socket(socket.local_port, socket.state);
        row.ports.change(Counted::Not, socket.counted);
        // What is left is best known exactly while it is little.
        let left = ports.usable_count.saturating_sub(ports.blocked + row.ports.taken());
        self.wants_scan |= socket.counted == Counted::Used && left < ports.usable_count / 10;
    }

    /// The opposite of [`Self::use_port`].
    pub(super) fn give_up_socket_port(&mut self, index: u32) {
        let socket = self.sockets.get_mut(index);
        let counted = std::mem::take(&mut socket.counted);
        let socket = *socket;
        let netns = self.endpoints.get(socket.endpoint).key.netns;
        self.give_up_port(netns, socket.destination, socket.local_port, counted);
    }

    /// A client's four-tuple has this port no longer.
    pub(super) fn give_up_port(&mut self, netns: NetnsId, destination: u32, port: u16, counted: Counted) {
        let Some(row) = self.destinations.get_mut(destination) else { return };
        row.ports.change(counted, Counted::Not);
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.ports.leave(port);
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
        let netns = self.endpoints.get(socket.endpoint).key.netns;
        if is_explicit {
            self.hold_port(netns, socket.local_port);
        } else {
            self.release_port(netns, socket.local_port);
        }
        self.use_port(index);
    }

    pub(super) fn hold_port(&mut self, netns: NetnsId, port: u16) {
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.ports.hold(port);
        }
    }

    pub(super) fn release_port(&mut self, netns: NetnsId, port: u16) {
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.ports.release(port, self.basis.frees_buckets);
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
        namespace.ports.join(mini.local_port);
        mini.reusable_from = namespace.reading.reusable_from(mini, key.local_ip, row.remote.ip());
        ripening.0.extend(mini.reusable_from.filter(|from| *from > now).map(|from| Reverse((from, index))));
        mini.counted = namespace.ports.of_mini(mini, now);
        row.ports.change(Counted::Not, mini.counted);
    }

    /// The range of a namespace changed, or the rule of reuse: who is on which port is found anew.
    pub(super) fn rebuild_ports(&mut self, netns: NetnsId) {
        let now = self.monotonic(self.now);
        let Self { sockets, listeners, bound, minis, endpoints, destinations, namespaces, ripening, .. } = self;
        let Some(namespace) = namespaces.get_mut(&netns) else { return };
        let ports = &mut namespace.ports;
        ports.reset(&namespace.reading);
        let listening = listeners.iter().map(|(_, it)| it).filter(|it| it.netns == netns).map(|it| it.port);
        let bound = bound.iter().map(|(_, it)| it).filter(|it| it.netns == netns).map(|it| it.local.port);
        listening.chain(bound).for_each(|port| ports.hold(port));
        for socket in sockets.iter().filter(|it| endpoints.get(it.endpoint).key.netns == netns) {
            if socket.is_explicit {
                ports.hold(socket.local_port);
            }
            if destinations.get_mut(socket.destination).is_some() {
                ports.join(socket.local_port);
            }
        }
        for (index, mini) in minis.iter_mut() {
            let key = &endpoints.get(mini.endpoint).key;
            if key.netns != netns {
                continue;
            }
            if mini.is_explicit {
                ports.hold(mini.local_port);
            }
            if let Some(row) = destinations.get_mut(mini.destination) {
                ports.join(mini.local_port);
                mini.reusable_from = namespace.reading.reusable_from(mini, key.local_ip, row.remote.ip());
                ripening.0.extend(mini.reusable_from.filter(|from| *from > now).map(|from| Reverse((from, index))));
            }
        }
        self.recount_ports(netns);
    }

    /// How each client of a namespace counts is found anew.
    fn recount_ports(&mut self, netns: NetnsId) {
        let now = self.monotonic(self.now);
        let Self { sockets, minis, endpoints, destinations, namespaces, .. } = self;
        let Some(namespace) = namespaces.get_mut(&netns) else { return };
        let ports = &mut namespace.ports;
        ports.is_stale = false;
        for socket in sockets.iter_mut().filter(|it| endpoints.get(it.endpoint).key.netns == netns) {
            if let Some(row) = destinations.get_mut(socket.destination) {
                let before = std::mem::replace(&mut socket.counted, ports.of_socket(socket.local_port, socket.state));
                row.ports.change(before, socket.counted);
            }
        }
        for (_, mini) in minis.iter_mut().filter(|(_, it)| endpoints.get(it.endpoint).key.netns == netns) {
            if let Some(row) = destinations.get_mut(mini.destination) {
                let counted = ports.of_mini(mini, now);
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
    }

    /// `CLOCK_MONOTONIC` at a time since start.
    fn monotonic(&self, now: Duration) -> Duration {
        self.basis.started_at + now
    }

    /// Whether ports have become so few somewhere since the last call that a scan should tell them exactly.
    pub fn take_wish_for_scan(&mut self) -> bool {
        std::mem::take(&mut self.wants_scan)
    }
}
