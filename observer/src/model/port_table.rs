//! The ports of a namespace that connect() may choose, and who is on each.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::{
    device::DeviceRules,
    reading::NamespaceReading,
    units::{PortRange, TcpState},
};

/// A set of ports, one bit each.
#[derive(Clone)]
pub(super) struct PortSet(Box<[u64; 1024]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl PortSet {
    pub(super) fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] >> (port & 63) & 1 != 0
    }

    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|bits| bits.count_ones()).sum()
    }

    pub(super) fn insert(&mut self, range: PortRange) {
        self.change(range, |word, ports| *word |= ports);
    }

    pub(super) fn remove(&mut self, range: PortRange) {
        self.change(range, |word, ports| *word &= !ports);
    }

    /// Word by word: each namespace has a set, of tens of thousands of ports.
    fn change(&mut self, range: PortRange, change: impl Fn(&mut u64, u64)) {
        let (first, last) = (usize::from(range.low >> 6), usize::from(range.high >> 6));
        let (from_low, to_high) = (u64::MAX << (range.low & 63), u64::MAX >> (63 - (range.high & 63)));
        for (place, word) in self.0.iter_mut().enumerate().take(last + 1).skip(first) {
            let ports = if place == first { from_low } else { u64::MAX };
            change(word, if place == last { ports & to_high } else { ports });
        }
    }
}

/// What the port of a four-tuple is towards its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortClass {
    /// connect() would not choose it for any destination: blocked, reserved, or outside of the range.
    #[default]
    Unavailable,
    /// TIME_WAIT that connect() takes over.
    Reusable,
    /// TIME_WAIT that connect() does not take over, or not yet.
    TimeWait,
    /// In use.
    InUse,
}

impl PortClass {
    /// connect() cannot choose the port for this destination.
    pub(super) const fn is_in_use(self) -> bool {
        matches!(self, Self::InUse | Self::TimeWait)
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

    /// The count that a port of this class is in.
    pub(super) const fn of_class(&mut self, class: PortClass) -> Option<&mut u32> {
        match class {
            PortClass::Unavailable => None,
            PortClass::InUse => Some(&mut self.used),
            PortClass::TimeWait => Some(&mut self.time_wait),
            PortClass::Reusable => Some(&mut self.time_wait_reusable),
        }
    }

    /// Ports that connect() cannot choose for this destination alone.
    pub(super) const fn in_use(self) -> u32 {
        self.used + self.time_wait
    }
}

impl std::ops::Add for PortCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_add)
    }
}

/// A difference may be below zero, as long as it is added again to the same minuend.
impl std::ops::Sub for PortCounts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_sub)
    }
}

/// A port in its space of bind buckets: a VRF, or 0 for what is outside of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Default)]
pub(super) struct Ports {
    /// Which devices share a space of bind buckets.
    devices: DeviceRules,
    /// The range; `None` while it is not known.
    range: Option<PortRange>,
    /// The range less the reserved ports.
    usable: PortSet,
    /// How many these are.
    pub(super) usable_count: u32,
    /// Reserved ports of the range.
    pub(super) reserved: u32,
    /// Ports that are not reserved, and that connect() never looks at: the highest of a range of three.
    pub(super) passed_over: u32,
    /// The lowest and the highest port of a range of odd size: each call skips one of them.
    edges: Option<[u16; 2]>,
    /// Usable ports with a binder, outside of VRFs.
    blocked: u32,
    /// The same of each VRF.
    blocked_in_vrf: FxHashMap<u32, u32>,
    /// Ports that connect() skips: how many sockets have an explicit bind to each, at any address; 0 where the last of them is gone,
    /// but the bucket stays with its clients, and is still explicit before Linux 6.18.
    binders: FxHashMap<Place, u32>,
    /// Four-tuples of clients that use a port. Most ports of a busy host have these alone.
    clients: FxHashMap<Place, u32>,
    /// A port with clients was blocked or freed: their classes are out of date.
    pub(super) is_stale: bool,
}

impl Ports {
    /// The ports that connect() may choose under this reading, without any socket.
    pub(super) fn new(reading: &NamespaceReading, devices: &DeviceRules) -> Self {
        let mut ports = Self { devices: devices.clone(), ..Self::default() };
        ports.set_range(reading);
        ports
    }

    fn set_range(&mut self, reading: &NamespaceReading) {
        let Some(range) = reading.port_range else { return };
        self.range = Some(range);
        self.usable.insert(range);
        for range in &reading.reserved {
            self.usable.remove(*range);
        }
        self.usable_count = self.usable.len();
        self.reserved = range.size() - self.usable_count;
        // `__inet_hash_connect` rounds the number of ports down to an even one, and starts anywhere: it skips the
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

    /// The space of bind buckets that sockets of this device are in.
    pub(super) fn space(&self, device: u32) -> u32 {
        self.devices.space(device)
    }

    /// Part of the range, and not reserved.
    pub(super) fn is_usable(&self, port: u16) -> bool {
        let Some(range) = self.range.filter(|range| (range.low..=range.high).contains(&port)) else { return false };
        // Mostly no port is reserved: the count saves a look at a set that lies in 128 cache lines.
        self.usable_count == range.size() || self.usable.contains(port)
    }

    /// Ports of `range` that have a socket of this space, of whatever address, and how many of it may be used at all.
    pub(super) fn used_within(&self, range: PortRange, space: u32) -> (u32, u32) {
        let mut used = 0;
        let mut usable = 0;
        for port in (range.low..=range.high).filter(|port| self.is_usable(*port)) {
            let place = Place::new(space, port);
            usable += 1;
            used += u32::from(self.has_client(place) || self.binders.contains_key(&place));
        }
        (used, usable)
    }

    /// Whether a client uses this port.
    pub(super) fn has_client(&self, place: Place) -> bool {
        self.clients.contains_key(&place)
    }

    /// Usable ports of a space that have a binder.
    pub(super) fn blocked(&self, space: u32) -> u32 {
        if space == 0 { self.blocked } else { self.blocked_in_vrf.get(&space).copied().unwrap_or(0) }
    }

    /// Of the ports that a call can skip, those that connect() may choose.
    pub(super) fn choosable_edges(&self, space: u32) -> impl Iterator<Item = u16> {
        self.edges.into_iter().flatten().filter(move |port| self.may_be_chosen(Place::new(space, *port)))
    }

    /// connect() may choose it, for one destination or another.
    pub(super) fn may_be_chosen(&self, place: Place) -> bool {
        // Mostly no port is blocked: the count saves the look-up.
        self.is_usable(place.port) && (self.blocked(place.space) == 0 || !self.binders.contains_key(&place))
    }

    /// Adds the ports of one socket.
    pub(super) fn add(&mut self, device: u32, binder: Option<u16>, client: Option<u16>) {
        let space = self.space(device);
        if let Some(port) = binder {
            self.add_binder(Place::new(space, port));
        }
        if let Some(port) = client {
            *self.clients.entry(Place::new(space, port)).or_default() += 1;
        }
    }

    fn add_binder(&mut self, place: Place) {
        match self.binders.entry(place) {
            Entry::Occupied(mut known) => *known.get_mut() += 1,
            Entry::Vacant(port) => {
                port.insert(1);
                self.note_blocked(place, true);
            }
        }
    }

    pub(super) fn remove_binder(&mut self, place: Place, frees_bucket: bool) {
        let stays_explicit = self.has_client(place) && !frees_bucket;
        let Entry::Occupied(mut known) = self.binders.entry(place) else { return debug_assert!(false, "no binder") };
        *known.get_mut() -= 1;
        if *known.get() == 0 && !stays_explicit {
            known.remove();
            self.note_blocked(place, false);
        }
    }

    pub(super) fn remove_client(&mut self, place: Place) {
        let Entry::Occupied(mut known) = self.clients.entry(place) else { return debug_assert!(false, "no client") };
        *known.get_mut() -= 1;
        if *known.get() == 0 {
            known.remove();
            self.end_stay(place);
        }
    }

    /// A scan has shown the bucket of every socket.
    pub(super) fn end_scan(&mut self) {
        let outlived: Vec<Place> = self.binders.iter().filter(|(_, it)| **it == 0).map(|(place, _)| *place).collect();
        for place in outlived {
            self.end_stay(place);
        }
    }

    /// A bucket that was explicit without a binder is so no more.
    fn end_stay(&mut self, place: Place) {
        if self.binders.get(&place) == Some(&0) {
            self.binders.remove(&place);
            self.note_blocked(place, false);
        }
    }

    /// connect() skips this port from now on, or does so no more.
    fn note_blocked(&mut self, place: Place, is_blocked: bool) {
        if !self.is_usable(place.port) {
            return;
        }
        let blocked = match place.space {
            0 => &mut self.blocked,
            vrf => self.blocked_in_vrf.entry(vrf).or_default(),
        };
        *blocked = *blocked + u32::from(is_blocked) - u32::from(!is_blocked);
        self.is_stale |= self.has_client(place);
    }

    pub(super) fn of_socket(&self, place: Place, state: TcpState) -> PortClass {
        // connect() has chosen a port, one of those that it may choose, and only a later event shows which.
        let is_chosen_unseen = place.port == 0 && state == TcpState::SynSent && self.usable_count > 0;
        if is_chosen_unseen || self.may_be_chosen(place) { PortClass::InUse } else { PortClass::Unavailable }
    }

    /// Takes all sockets off all ports. Buckets that stay explicit without a binder do so by history, not by sockets.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        self.clients.clear();
        let blocked: Vec<Place> = self.binders.iter().filter(|(_, it)| **it > 0).map(|(place, _)| *place).collect();
        for place in blocked {
            self.binders.remove(&place);
            self.note_blocked(place, false);
        }
    }

    /// All counts as text.
    #[cfg(test)]
    pub(super) fn totals(&self) -> Vec<String> {
        let binders = self.binders.iter().map(|it| format!("binders of {it:?}"));
        let clients = self.clients.iter().map(|it| format!("clients of {it:?}"));
        let blocked = self.blocked_in_vrf.iter().map(|it| format!("blocked in {it:?}"));
        binders.chain(clients).chain(blocked).chain([format!("blocked: {}", self.blocked)]).collect()
    }
}
