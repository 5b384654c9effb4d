//! The ports of a namespace that connect() may choose, and who is on each.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{
    minisocks::Minisock,
    namespace::{NamespaceReading, PortSet},
    units::{PortRange, TcpState},
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
    binders: u32,
    /// Four-tuples of clients that have it.
    clients: u32,
    /// Nobody holds it any more, but its bucket lives on with its clients, and stays explicit before 6.18.
    stays_explicit: bool,
}

impl Port {
    const fn is_blocked(self) -> bool {
        self.binders > 0 || self.stays_explicit
    }
}

/// A port in its space of bind buckets: a VRF, or 0 for what is outside of any.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    space: u32,
    port: u16,
}

impl Place {
    pub(super) const fn new(space: u32, port: u16) -> Self {
        Self { space, port }
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
    pub(super) is_stale: bool,
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

    /// Ports of `range` that have a socket of this space, of whatever address, and how many of it may be used at all.
    pub(super) fn taken_within(&self, range: PortRange, space: u32) -> (u32, u32) {
        let mut taken = 0;
        let mut usable = 0;
        for port in (range.low..=range.high).filter(|port| self.is_usable(*port)) {
            usable += 1;
            taken += u32::from(self.by_number.contains_key(&Place::new(space, port)));
        }
        (taken, usable)
    }

    /// Usable ports of a space that somebody holds.
    pub(super) fn blocked(&self, space: u32) -> u32 {
        if space == 0 { self.blocked } else { self.blocked_in_vrf.get(&space).copied().unwrap_or(0) }
    }

    /// Of the ports that a call can pass over, those that connect() may choose.
    pub(super) fn choosable_edges(&self, space: u32) -> impl Iterator<Item = u16> {
        self.edges.into_iter().flatten().filter(move |port| self.may_be_chosen(Place::new(space, *port)))
    }

    /// connect() may choose it, for one destination or another.
    pub(super) fn may_be_chosen(&self, place: Place) -> bool {
        self.is_usable(place.port) && self.by_number.get(&place).is_none_or(|it| !it.is_blocked())
    }

    pub(super) fn hold(&mut self, place: Place) {
        self.change(place, |it| it.binders += 1);
    }

    pub(super) fn release(&mut self, place: Place, frees_bucket: bool) {
        self.change(place, |it| {
            it.binders -= 1;
            it.stays_explicit = it.binders == 0 && it.clients > 0 && !frees_bucket;
        });
    }

    pub(super) fn join(&mut self, place: Place) {
        self.change(place, |it| it.clients += 1);
    }

    pub(super) fn leave(&mut self, place: Place) {
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
        if after.binders + after.clients == 0 {
            self.by_number.remove(&place);
        }
        if before.is_blocked() != after.is_blocked() && self.usable.contains(place.port) {
            let blocked = match place.space {
                0 => &mut self.blocked,
                vrf => self.blocked_in_vrf.entry(vrf).or_default(),
            };
            *blocked = *blocked + u32::from(after.is_blocked()) - u32::from(before.is_blocked());
            self.is_stale |= after.clients > 0;
        }
    }

    pub(super) fn of_socket(&self, place: Place, state: TcpState) -> Counted {
        // connect() has chosen a port and only a later event tells which: one of those that it may choose.
        let is_chosen_unseen = place.port == 0 && state == TcpState::SynSent && self.usable_count > 0;
        if is_chosen_unseen || self.may_be_chosen(place) { Counted::Used } else { Counted::Not }
    }

    pub(super) fn of_minisock(&self, space: u32, minisock: &Minisock, now: Duration) -> Counted {
        match minisock.state {
            _ if !self.may_be_chosen(Place::new(space, minisock.local_port)) => Counted::Not,
            TcpState::TimeWait if minisock.reusable_from.is_some_and(|from| from <= now) => Counted::Reusable,
            TcpState::TimeWait => Counted::TimeWait,
            _ => Counted::Used,
        }
    }
}
