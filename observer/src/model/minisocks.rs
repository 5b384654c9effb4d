//! TIME_WAIT and request sockets: they keep a four-tuple without a full socket. They have no events of their own. Scans
//! show them, and between scans they are modelled by the sockets that leave them behind or take their place.

use std::{iter, net::IpAddr, time::Duration};

use hashbrown::HashTable;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::{
    Model,
    address::{Direction, EndpointKey, TupleKey},
    device::Device,
    endpoint::EndpointTable,
    event::{Binding, Found, Identity},
    index::{NO_ROW, hash, narrow},
    key_of,
    ledger::{At, Contribution, Counts, Ledger},
    owner::Owner,
    port_table::{Place, PortClass},
    reading::NamespaceReading,
    units::{FourTuple, NetnsId, SocketId, TcpState},
};

/// A TIME_WAIT socket, a FIN_WAIT2 one that has lost its full socket, or a request socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Minisock {
    pub(super) endpoint: u32,
    /// Index of its destination; `NO_ROW` for an inbound one.
    pub(super) destination: u32,
    /// The scan or event generation that saw it last.
    pub(super) generation: u32,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    remote_ip: IpAddr,
    pub(super) state: TcpState,
    /// Its bind bucket is explicit: it keeps its port from every connect().
    pub(super) is_explicit: bool,
    /// When it began, on `CLOCK_MONOTONIC`; `None` without TCP timestamps.
    pub(super) since: Option<Duration>,
    /// When it began, with or without timestamps, in seconds of `CLOCK_MONOTONIC`; 0 where that is not known.
    pub(super) began_s: u32,
    /// From when on connect() may take it over, on `CLOCK_MONOTONIC`; `None` for never.
    pub(super) reusable_from: Option<Duration>,
    /// What its port is towards its destination; `None` for an inbound one, and while the namespace's ports are not known.
    pub(super) port_class: Option<PortClass>,
}

impl Minisock {
    /// In TIME_WAIT, and its peer sends TCP timestamps.
    fn is_stamped(&self) -> bool {
        self.state == TcpState::TimeWait && self.since.is_some()
    }

    /// From when on connect() may take it over under this reading, on `CLOCK_MONOTONIC`; `None` for never
    /// (`tcp_twsk_unique` in net/ipv4/tcp_ipv4.c).
    pub(super) fn may_be_reused_from(&self, reading: &NamespaceReading, key: &EndpointKey) -> Option<Duration> {
        let is_allowed = match reading.tcp_tw_reuse {
            Some(1) => true,
            Some(2) => {
                key.local_ip.is_loopback() || self.remote_ip.is_loopback() || key.device.index() == Device::LOOPBACK
            }
            _ => false,
        };
        let since = self.since.filter(|_| is_allowed && self.state == TcpState::TimeWait)?;
        // The kernel counts its age in whole milliseconds, or seconds before 6.14; it must exceed the delay.
        Some(match reading.tcp_tw_reuse_delay {
            Some(delay) => {
                let began = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                Duration::from_millis(began.saturating_add(1)) + delay
            }
            None => Duration::from_secs(since.as_secs() + 1),
        })
    }

    /// What its port is towards its destination at `now` of `CLOCK_MONOTONIC`; `None` without a destination, and while the
    /// namespace's ports are not known. A binder's own port is blocked.
    pub(super) fn find_port_class(&self, ledger: &Ledger, now: Duration) -> Option<PortClass> {
        if self.destination == NO_ROW {
            return None;
        }
        let (ports, space) = ledger.ports_at(self.endpoint)?;
        Some(match self.state {
            _ if self.is_explicit => PortClass::Unavailable,
            _ if !ports.may_be_chosen(Place::new(space, self.local_port)) => PortClass::Unavailable,
            TcpState::TimeWait if self.reusable_from.is_some_and(|from| from <= now) => PortClass::Reusable,
            TcpState::TimeWait => PortClass::TimeWait,
            _ => PortClass::InUse,
        })
    }

    /// What it adds to all totals.
    pub(super) fn contribution(&self) -> Contribution {
        Contribution {
            at: At::Endpoint(self.endpoint),
            counts: Counts::Minisock { state: self.state, stamped: self.is_stamped() },
            destination: self.destination,
            client: self.port_class.map(|class| (self.local_port, class)),
            binder: self.is_explicit.then_some(self.local_port),
            owner: Owner::UNKNOWN,
            member: NO_ROW,
        }
    }

    /// When it began, on `CLOCK_MONOTONIC`.
    pub(super) fn began(&self) -> Option<Duration> {
        (self.began_s != 0).then(|| Duration::from_secs(self.began_s.into()))
    }

    pub(super) fn key(&self, endpoints: &EndpointTable) -> TupleKey {
        let key = &endpoints.get(self.endpoint).key;
        TupleKey {
            netns: key.netns,
            device: key.device.index(),
            tuple: FourTuple {
                local_ip: key.local_ip,
                local_port: self.local_port,
                remote_ip: self.remote_ip,
                remote_port: self.remote_port,
            },
        }
    }
}

/// All of them: by four-tuple, and by namespace, where a scan looks for those that it did not find.
#[derive(Default)]
pub(super) struct MinisockTable {
    slots: Slab<Slot>,
    by_tuple: HashTable<u32>,
    /// The first of each namespace's chain.
    first: FxHashMap<NetnsId, u32>,
    /// Those in FIN_WAIT2.
    in_fin_wait2: u32,
}

/// A minisock in the chain of its namespace; [`NO_ROW`] at the ends.
struct Slot {
    minisock: Minisock,
    before: u32,
    after: u32,
}

// A TIME_WAIT socket is to cost no more than a full one: 128 bytes with its index.
const _: () = assert!(size_of::<Slot>() <= 104);

impl MinisockTable {
    fn get(&self, index: u32) -> &Minisock {
        &self.slots[index as usize].minisock
    }

    fn find_index(&self, key: TupleKey, endpoints: &EndpointTable) -> Option<u32> {
        self.by_tuple.find(hash(&key), |index| self.get(*index).key(endpoints) == key).copied()
    }

    pub(super) fn find(&self, key: TupleKey, endpoints: &EndpointTable) -> Option<&Minisock> {
        self.find_index(key, endpoints).map(|index| self.get(index))
    }

    /// The one with these addresses: of the same device, else on whatever device if there is one alone.
    fn find_peer(&self, key: TupleKey, endpoints: &EndpointTable) -> Option<u32> {
        self.find_index(key, endpoints).or_else(|| {
            let mut others = self.by_tuple.iter_hash(hash(&key)).copied();
            let mut next = || others.find(|index| self.get(*index).key(endpoints).has_addresses_of(key));
            next().filter(|_| next().is_none())
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// `None` for an index that is not used any more.
    pub(super) fn find_row(&self, index: u32) -> Option<&Minisock> {
        self.slots.get(index as usize).map(|slot| &slot.minisock)
    }

    /// As [`Self::find_row`].
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Minisock> {
        self.slots.get_mut(index as usize).map(|slot| &mut slot.minisock)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Minisock)> {
        self.slots.iter_mut().map(|(index, slot)| (narrow(index), &mut slot.minisock))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Minisock)> {
        self.slots.iter().map(|(index, slot)| (narrow(index), &slot.minisock))
    }

    /// Those of one namespace.
    pub(super) fn of(&self, netns: NetnsId) -> impl Iterator<Item = (u32, &Minisock)> {
        let slot = |index: u32| Some((index, self.slots.get(index as usize)?));
        let first = self.first.get(&netns).and_then(|first| slot(*first));
        iter::successors(first, move |(_, it)| slot(it.after)).map(|(index, slot)| (index, &slot.minisock))
    }

    fn insert(&mut self, minisock: Minisock, endpoints: &EndpointTable) -> u32 {
        let key = minisock.key(endpoints);
        let after = self.first.get(&key.netns).copied().unwrap_or(NO_ROW);
        let index = narrow(self.slots.insert(Slot { minisock, before: NO_ROW, after }));
        self.first.insert(key.netns, index);
        if let Some(second) = self.slots.get_mut(after as usize) {
            second.before = index;
        }
        self.in_fin_wait2 += u32::from(minisock.state == TcpState::FinWait2);
        let slots = &self.slots;
        let of = |other: &u32| hash(&slots[*other as usize].minisock.key(endpoints));
        self.by_tuple.insert_unique(hash(&key), index, of);
        index
    }

    /// Puts another one with the same four-tuple in its place.
    fn replace(&mut self, index: u32, minisock: Minisock) {
        let known = &mut self.slots[index as usize].minisock;
        self.in_fin_wait2 -= u32::from(known.state == TcpState::FinWait2);
        self.in_fin_wait2 += u32::from(minisock.state == TcpState::FinWait2);
        *known = minisock;
    }

    fn remove(&mut self, index: u32, endpoints: &EndpointTable) -> Minisock {
        let Slot { minisock, before, after } = self.slots.remove(index as usize);
        let key = minisock.key(endpoints);
        if let Some(next) = self.slots.get_mut(after as usize) {
            next.before = before;
        }
        match self.slots.get_mut(before as usize) {
            Some(previous) => previous.after = after,
            None if after == NO_ROW => drop(self.first.remove(&key.netns)),
            None => drop(self.first.insert(key.netns, after)),
        }
        self.in_fin_wait2 -= u32::from(minisock.state == TcpState::FinWait2);
        if let Ok(entry) = self.by_tuple.find_entry(hash(&key), |other| *other == index) {
            entry.remove();
        }
        minisock
    }

    /// Gives memory back once most of it is unused.
    fn shrink(&mut self, endpoints: &EndpointTable) {
        if self.by_tuple.capacity() > 4 * self.by_tuple.len().max(1024) {
            self.slots.shrink_to_fit();
            let slots = &self.slots;
            self.by_tuple.shrink_to_fit(|other| hash(&slots[*other as usize].minisock.key(endpoints)));
        }
    }
}

fn whole_seconds(at: Duration) -> u32 {
    u32::try_from(at.as_secs()).unwrap_or(u32::MAX)
}

impl Model {
    /// The one with this four-tuple.
    pub(super) fn minisock_of(&self, tuple: TupleKey) -> Option<&Minisock> {
        self.minisocks.find(tuple, self.ledger.endpoints())
    }

    /// A full socket that closes from here leaves a smaller one in its place, which keeps its four-tuple and its port.
    pub(super) fn leave_minisock(
        &mut self,
        id: SocketId,
        old: TcpState,
        is_orphan: bool,
        at: Duration,
        timestamps: bool,
    ) {
        let Some(socket) = self.take_socket(id) else { return };
        // Closed by its process before its peer: the kernel swaps it at once, and then waits for the peer's FIN.
        let waits_for_peer = old == TcpState::FinWait2 && (is_orphan || socket.owner == Owner::ORPHAN);
        let minisock = Minisock {
            endpoint: socket.endpoint,
            destination: socket.destination,
            generation: self.generation,
            local_port: socket.local_port,
            remote_port: socket.remote_port,
            remote_ip: socket.remote_ip,
            state: if waits_for_peer { TcpState::FinWait2 } else { TcpState::TimeWait },
            is_explicit: socket.is_explicit,
            since: timestamps.then_some(at),
            began_s: whole_seconds(at),
            reusable_from: None,
            port_class: None,
        };
        self.add_minisock(minisock, socket.contribution());
    }

    /// A socket of this host has sent its FIN and had it acknowledged: if its peer waited for that without a full socket,
    /// it is in TIME_WAIT now.
    pub(super) fn end_peers_wait(&mut self, id: SocketId, at: Duration) {
        // Mostly there is none: the count saves a look-up in a large table.
        if self.minisocks.in_fin_wait2 == 0 {
            return;
        }
        let Some(index) = self.sockets.find(id) else { return };
        let peer = key_of(self.ledger.endpoints(), self.sockets.get(index)).reversed();
        let Some(index) = self.minisocks.find_peer(peer, self.ledger.endpoints()) else { return };
        let minisock = *self.minisocks.get(index);
        if minisock.state == TcpState::FinWait2 {
            let since = minisock.since.map(|_| at);
            let began_s = whole_seconds(at);
            let generation = self.generation;
            self.change_minisock(index, Minisock { state: TcpState::TimeWait, since, began_s, generation, ..minisock });
        }
    }

    pub(super) fn on_scanned_minisock(&mut self, socket: &Identity, found: Found, binding: Binding) {
        let Some(state) = found.minisock_state() else { return };
        let Identity { netns, tuple, device, .. } = *socket;
        // The iterator shows a bucket of the table as it was copied: by now a full socket may have taken over.
        let key = TupleKey { netns, device: device.index(), tuple };
        let successor = self.sockets.find_tuple(key, |socket| key_of(self.ledger.endpoints(), socket));
        if successor.is_some_and(|index| self.sockets.get(index).generation == self.generation) {
            return;
        }
        let (direction, since, began) = match found {
            Found::TimeWait { since, began, .. } => (self.direction_of(socket, binding), since, began),
            _ => (Direction::Inbound, None, None),
        };
        let (endpoint, destination) = self.place(netns, device, &tuple, direction);
        let minisock = Minisock {
            endpoint,
            destination,
            generation: self.generation,
            local_port: tuple.local_port,
            remote_port: tuple.remote_port,
            remote_ip: tuple.remote_ip,
            state,
            is_explicit: state != TcpState::SynReceived && binding.keeps_port() == Some(true),
            since,
            began_s: began.map_or(0, whole_seconds),
            reusable_from: None,
            port_class: None,
        };
        self.add_minisock(minisock, Contribution::NONE);
    }

    /// Adds it, or brings the one with this four-tuple up to date, in the place of what has added `before` so far.
    fn add_minisock(&mut self, minisock: Minisock, before: Contribution) {
        let key = minisock.key(self.ledger.endpoints());
        if let Some(index) = self.minisocks.find_index(key, self.ledger.endpoints()) {
            self.ledger.apply(before, Contribution::NONE, self.now);
            self.change_minisock(index, minisock);
        } else {
            let index = self.minisocks.insert(minisock, self.ledger.endpoints());
            self.settle_minisock(index, before);
            self.note_entry(index, None);
        }
    }

    /// Puts it in the place of one with its four-tuple.
    fn change_minisock(&mut self, index: u32, minisock: Minisock) {
        let known = self.minisocks.get_mut(index).expect("just found");
        known.generation = minisock.generation;
        if minisock.began_s != 0 {
            known.began_s = minisock.began_s;
        }
        let is_same = (known.endpoint, known.state, known.is_explicit, known.since)
            == (minisock.endpoint, minisock.state, minisock.is_explicit, minisock.since);
        if is_same {
            return;
        }
        let (before, state) = (known.contribution(), known.state);
        self.minisocks.replace(index, minisock);
        self.settle_minisock(index, before);
        self.note_entry(index, Some(state));
    }

    /// Finds what its port is, and counts it; `before` is what it added so far.
    fn settle_minisock(&mut self, index: u32, before: Contribution) {
        self.note_reuse(index);
        let now = self.basis.monotonic(self.now);
        let minisock = self.minisocks.get_mut(index).expect("just inserted");
        minisock.port_class = minisock.find_port_class(&self.ledger, now);
        self.ledger.apply(before, minisock.contribution(), self.now);
        self.minisock_ends.add(index, minisock, now);
    }

    /// Counts a socket that was not in TIME_WAIT before. What the first scan finds has entered at an unknown time.
    fn note_entry(&mut self, index: u32, before: Option<TcpState>) {
        let minisock = *self.minisocks.get(index);
        let netns = self.ledger.endpoints().get(minisock.endpoint).key.netns;
        let namespace = self.readings.namespaces.get_mut(&netns);
        let Some(namespace) = namespace.filter(|namespace| namespace.last_scan.is_some()) else { return };
        if before.is_none() && minisock.state != TcpState::SynReceived {
            namespace.time_wait_entered += 1;
        }
        let is_entry = minisock.state == TcpState::TimeWait && before != Some(TcpState::TimeWait);
        if is_entry && minisock.reusable_from.is_none() && minisock.port_class == Some(PortClass::TimeWait) {
            self.ledger.note_time_wait(minisock.destination);
        }
    }

    /// A full socket has this four-tuple now, from the smaller one that it conflicted with.
    /// `endpoint` is a row of its namespace and device.
    pub(super) fn take_over_minisock(&mut self, key: TupleKey, endpoint: u32) {
        let find = |device| self.minisocks.find_index(TupleKey { device, ..key }, self.ledger.endpoints());
        let may_be_one = self.may_have_minisocks(key, endpoint);
        debug_assert!(may_be_one || find(key.device).is_none(), "no count knows of it");
        let found = if may_be_one { find(key.device) } else { None }.or_else(|| {
            let rules = &self.readings.namespaces.get(&key.netns).filter(|_| key.device != 0)?.devices;
            rules.conflicts(key.device).skip(1).find_map(find)
        });
        if let Some(index) = found {
            let is_time_wait = self.minisocks.get(index).state != TcpState::SynReceived;
            if let Some(namespace) = self.readings.namespaces.get_mut(&key.netns).filter(|_| is_time_wait) {
                namespace.time_wait_entered -= 1;
            }
            self.remove_minisock(index);
        }
    }

    /// Whether some have this local address, on the same device: mostly none does, and counts save a look-up in a large table.
    fn may_have_minisocks(&self, key: TupleKey, endpoint: u32) -> bool {
        let TupleKey { netns, device, tuple } = key;
        let Some((ports, space)) = self.ledger.ports_at(endpoint) else { return true };
        if ports.has_client(Place::new(space, tuple.local_port)) {
            return true;
        }
        let endpoints = self.ledger.endpoints();
        let row = EndpointKey::inbound(netns, tuple.local_ip, tuple.local_port, Device::new(device));
        endpoints.find(&row).is_some_and(|row| endpoints.get(row).minisocks.sum() > 0)
    }

    pub(super) fn remove_minisock(&mut self, index: u32) {
        let minisock = self.minisocks.remove(index, self.ledger.endpoints());
        self.ledger.apply(minisock.contribution(), Contribution::NONE, self.now);
    }

    /// Removes those of a namespace that `is_gone` names.
    pub(super) fn remove_minisocks(&mut self, netns: NetnsId, is_gone: impl Fn(&Minisock) -> bool) {
        let gone = self.minisocks.of(netns).filter(|(_, minisock)| is_gone(minisock));
        let gone: Vec<u32> = gone.map(|(index, _)| index).collect();
        for index in gone {
            self.remove_minisock(index);
        }
        self.shrink_minisocks();
    }

    pub(super) fn shrink_minisocks(&mut self) {
        self.minisocks.shrink(self.ledger.endpoints());
    }
}
