//! TIME_WAIT and request sockets: what holds a four-tuple without a full socket. They have no events of their own. Scans
//! show them, and between scans they are modelled by the sockets that leave them behind or take their place.

use std::{net::IpAddr, time::Duration};

use hashbrown::HashTable;
use slab::Slab;

use super::{
    Model,
    endpoint::EndpointTable,
    event::{Binding, Found, Identity},
    key_of,
    owner::Owner,
    ports::Counted,
    snapshot::Direction,
    socket::{TupleKey, hash, narrow},
    units::{FourTuple, NetnsId, SocketId, TcpState},
};

/// A TIME_WAIT socket, a FIN_WAIT2 one that has lost its full socket, or a request socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mini {
    pub(super) endpoint: u32,
    /// Index of its destination; `Socket::NO_DESTINATION` for an inbound one.
    pub(super) destination: u32,
    /// The scan or event generation that saw it last.
    pub(super) generation: u32,
    pub(super) local_port: u16,
    remote_port: u16,
    remote_ip: IpAddr,
    pub(super) state: TcpState,
    /// Its bind bucket is explicit: it keeps its port from every connect().
    pub(super) is_explicit: bool,
    /// When it began, on `CLOCK_MONOTONIC`; `None` without TCP timestamps.
    pub(super) since: Option<Duration>,
    /// From when on connect() may take it over, on `CLOCK_MONOTONIC`; `None` for never.
    pub(super) reusable_from: Option<Duration>,
    /// How it counts against the ports of its destination.
    pub(super) counted: Counted,
}

// A TIME_WAIT socket is to cost no more than a full one: 128 bytes with its index.
const _: () = assert!(size_of::<Mini>() <= 104);

impl Mini {
    /// In TIME_WAIT, and its peer sends TCP timestamps.
    fn is_stamped(&self) -> bool {
        self.state == TcpState::TimeWait && self.since.is_some()
    }

    pub(super) fn key(&self, endpoints: &EndpointTable) -> TupleKey {
        let key = &endpoints.get(self.endpoint).key;
        TupleKey {
            netns: key.netns,
            tuple: FourTuple {
                local_ip: key.local_ip,
                local_port: self.local_port,
                remote_ip: self.remote_ip,
                remote_port: self.remote_port,
            },
        }
    }
}

/// All of them, by four-tuple.
#[derive(Default)]
pub(super) struct MiniTable {
    slots: Slab<Mini>,
    by_tuple: HashTable<u32>,
}

impl MiniTable {
    fn find(&self, key: TupleKey, endpoints: &EndpointTable) -> Option<u32> {
        self.by_tuple.find(hash(&key), |index| self.slots[*index as usize].key(endpoints) == key).copied()
    }

    /// `None` for an index that is not taken any more.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Mini> {
        self.slots.get_mut(index as usize)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Mini)> {
        self.slots.iter_mut().map(|(index, mini)| (narrow(index), mini))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Mini)> {
        self.slots.iter().map(|(index, mini)| (narrow(index), mini))
    }

    fn insert(&mut self, mini: Mini, endpoints: &EndpointTable) -> u32 {
        let index = narrow(self.slots.insert(mini));
        let slots = &self.slots;
        let of = |other: &u32| hash(&slots[*other as usize].key(endpoints));
        self.by_tuple.insert_unique(hash(&mini.key(endpoints)), index, of);
        index
    }

    fn remove(&mut self, index: u32, endpoints: &EndpointTable) -> Mini {
        let mini = self.slots.remove(index as usize);
        if let Ok(entry) = self.by_tuple.find_entry(hash(&mini.key(endpoints)), |other| *other == index) {
            entry.remove();
        }
        mini
    }

    /// Gives memory back once most of it is unused.
    fn shrink(&mut self, endpoints: &EndpointTable) {
        if self.by_tuple.capacity() > 4 * self.by_tuple.len().max(1024) {
            self.slots.shrink_to_fit();
            let slots = &self.slots;
            self.by_tuple.shrink_to_fit(|other| hash(&slots[*other as usize].key(endpoints)));
        }
    }
}

impl Model {
    /// A full socket that closes from here leaves a smaller one behind, which keeps its four-tuple and its port.
    pub(super) fn leave_mini(&mut self, id: SocketId, since: Option<Duration>) {
        let Some(index) = self.sockets.find(id) else { return };
        let socket = *self.sockets.get(index);
        // Closed by its process before its peer: the kernel swaps it at once, and then waits for the peer's FIN.
        let waits_for_peer = socket.state == TcpState::FinWait2 && socket.owner == Owner::ORPHAN;
        self.add_mini(Mini {
            endpoint: socket.endpoint,
            destination: socket.destination,
            generation: self.generation,
            local_port: socket.local_port,
            remote_port: socket.remote_port,
            remote_ip: socket.remote_ip,
            state: if waits_for_peer { TcpState::FinWait2 } else { TcpState::TimeWait },
            is_explicit: socket.is_explicit,
            since,
            reusable_from: None,
            counted: Counted::Not,
        });
    }

    /// A socket of this host has sent its FIN and had it acknowledged: if its peer waited for that without a full socket,
    /// it is in TIME_WAIT now.
    pub(super) fn end_peers_wait(&mut self, id: SocketId, at: Duration) {
        let Some(index) = self.sockets.find(id) else { return };
        let peer = key_of(&self.endpoints, self.sockets.get(index)).reversed();
        let Some(index) = self.minis.find(peer, &self.endpoints) else { return };
        let mini = self.minis.slots[index as usize];
        if mini.state == TcpState::FinWait2 {
            let since = mini.since.map(|_| at);
            self.add_mini(Mini { state: TcpState::TimeWait, since, generation: self.generation, ..mini });
        }
    }

    pub(super) fn on_scanned_mini(&mut self, socket: &Identity, found: Found, binding: Binding) {
        let Some(state) = found.mini_state() else { return };
        let Identity { netns, tuple, .. } = *socket;
        // The iterator shows a bucket of the table as it was copied: by now a full socket may have taken over.
        let successor = self.sockets.find_tuple(TupleKey { netns, tuple }, |socket| key_of(&self.endpoints, socket));
        if successor.is_some_and(|index| self.sockets.get(index).generation == self.generation) {
            return;
        }
        let (direction, since) = match found {
            Found::TimeWait { since, .. } => (self.direction_of(socket, binding), since),
            _ => (Direction::Inbound, None),
        };
        let (endpoint, destination) = self.place(netns, &tuple, direction);
        self.add_mini(Mini {
            endpoint,
            destination,
            generation: self.generation,
            local_port: tuple.local_port,
            remote_port: tuple.remote_port,
            remote_ip: tuple.remote_ip,
            state,
            is_explicit: state != TcpState::SynReceived && binding.holds_port() == Some(true),
            since,
            reusable_from: None,
            counted: Counted::Not,
        });
    }

    /// Adds it, or brings the one with this four-tuple up to date.
    fn add_mini(&mut self, mut mini: Mini) {
        mini.counted = Counted::Not;
        let key = mini.key(&self.endpoints);
        let mut before = None;
        if let Some(index) = self.minis.find(key, &self.endpoints) {
            let known = self.minis.get_mut(index).expect("just found");
            known.generation = mini.generation;
            let is_same = (known.endpoint, known.state, known.is_explicit, known.since)
                == (mini.endpoint, mini.state, mini.is_explicit, mini.since);
            if is_same {
                return;
            }
            before = Some(known.state);
            self.remove_mini(index);
        }
        *self.endpoints.touch(mini.endpoint, self.now).minis.get_mut(mini.state) += 1;
        if let Some(row) = self.destinations.get_mut(mini.destination) {
            row.minis += 1;
            row.time_wait += u32::from(mini.state == TcpState::TimeWait);
            row.stamped += u32::from(mini.is_stamped());
        }
        if mini.is_explicit {
            self.hold_port(key.netns, mini.local_port);
        }
        let index = self.minis.insert(mini, &self.endpoints);
        self.use_mini_port(index);
        self.note_entry(index, before);
    }

    /// Counts a socket that was not in TIME_WAIT before. What the first scan finds has entered at an unknown time.
    fn note_entry(&mut self, index: u32, before: Option<TcpState>) {
        let mini = self.minis.slots[index as usize];
        let netns = self.endpoints.get(mini.endpoint).key.netns;
        let Some(namespace) = self.namespaces.get_mut(&netns).filter(|namespace| namespace.scanned) else { return };
        if before.is_none() && mini.state != TcpState::SynReceived {
            namespace.time_wait_entered += 1;
        }
        let is_entry = mini.state == TcpState::TimeWait && before != Some(TcpState::TimeWait);
        if is_entry
            && mini.reusable_from.is_none()
            && let Some(row) = self.destinations.get_mut(mini.destination)
        {
            row.entered += i64::from(mini.counted == Counted::TimeWait);
        }
    }

    /// A full socket has this four-tuple now.
    pub(super) fn take_over_mini(&mut self, key: TupleKey) {
        if let Some(index) = self.minis.find(key, &self.endpoints) {
            let is_time_wait = self.minis.slots[index as usize].state != TcpState::SynReceived;
            if let Some(namespace) = self.namespaces.get_mut(&key.netns).filter(|_| is_time_wait) {
                namespace.time_wait_entered -= 1;
            }
            self.remove_mini(index);
        }
    }

    fn remove_mini(&mut self, index: u32) {
        let mini = self.minis.remove(index, &self.endpoints);
        let netns = self.endpoints.get(mini.endpoint).key.netns;
        *self.endpoints.touch(mini.endpoint, self.now).minis.get_mut(mini.state) -= 1;
        self.give_up_port(netns, mini.destination, mini.local_port, mini.counted);
        if let Some(row) = self.destinations.get_mut(mini.destination) {
            row.minis -= 1;
            row.time_wait -= u32::from(mini.state == TcpState::TimeWait);
            row.stamped -= u32::from(mini.is_stamped());
        }
        if mini.is_explicit {
            self.release_port(netns, mini.local_port);
        }
    }

    /// Takes out those of a namespace that `is_gone` names.
    pub(super) fn remove_minis(&mut self, netns: NetnsId, is_gone: impl Fn(&Mini) -> bool) {
        let of_namespace = |mini: &Mini| self.endpoints.get(mini.endpoint).key.netns == netns;
        let gone: Vec<u32> =
            self.minis.iter().filter(|(_, mini)| of_namespace(mini) && is_gone(mini)).map(|(index, _)| index).collect();
        for index in gone {
            self.remove_mini(index);
        }
        self.minis.shrink(&self.endpoints);
    }
}
