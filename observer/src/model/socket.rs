//! The table of full sockets: by id, and by four-tuple to find which two are one connection.

use std::{hint, net::IpAddr, num::NonZeroU32};

use hashbrown::HashTable;
use slab::Slab;

use super::{
    address::TupleKey,
    endpoint::EndpointTable,
    index::{NO_ROW, hash, narrow},
    ledger::{At, Contribution, Counts, Ledger},
    owner::Owner,
    port_table::{Place, PortClass},
    units::{FourTuple, SocketId, TcpState},
};

/// A full socket that is connected or connecting. Its namespace and local ip are those of its endpoint. It is as large as a cache
/// line, and lies on one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Socket {
    pub(super) id: SocketId,
    pub(super) endpoint: u32,
    /// Index of its destination; [`NO_ROW`] for an inbound one.
    pub(super) destination: u32,
    /// The scan or event generation that saw it last.
    pub(super) generation: u32,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    pub(super) remote_ip: IpAddr,
    pub(super) state: TcpState,
    pub(super) owner: Owner,
    /// The last fd scan that saw its owner own it.
    pub(super) seen_in_fd_scan: u8,
    /// Seconds since start, and one; `None` if it was there before. With a niche, for the sake of its size.
    pub(super) began: Option<NonZeroU32>,
    /// Since when it is in its state, as far as that was seen: seconds since start.
    pub(super) state_since: u32,
    /// What is known of its acceptance.
    pub(super) acceptance: Acceptance,
    /// Its first event was missed, and its direction is a guess until a scan shows it.
    pub(super) is_guess: bool,
    /// Its bind bucket is explicit: it keeps its port from every connect().
    pub(super) is_explicit: bool,
    /// What its port is towards its destination; `None` for an inbound one, and while the namespace's ports are not known.
    pub(super) port_class: Option<PortClass>,
    /// Index of the row of its cgroup, else of its owner.
    pub(super) member: u32,
}

impl Socket {
    /// What its port is towards its destination; `None` without a destination, and while the namespace's ports are not known.
    pub(super) fn find_port_class(&self, ledger: &Ledger) -> Option<PortClass> {
        if self.destination == NO_ROW {
            return None;
        }
        let (ports, space) = ledger.ports_at(self.endpoint)?;
        Some(ports.of_socket(Place::new(space, self.local_port), self.state))
    }

    /// What it adds to all totals.
    pub(super) fn contribution(&self) -> Contribution {
        Contribution {
            at: At::Endpoint(self.endpoint),
            counts: Counts::Full(self.state),
            destination: self.destination,
            client: self.port_class.map(|class| (self.local_port, class)),
            binder: self.is_explicit.then_some(self.local_port),
            owner: self.owner,
            member: self.member,
        }
    }
}

/// How a socket that a listener made gets its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// Its first event was missed, or no listener made it, or the accept hook has named its process.
    Settled,
    /// The accept hook will name it.
    Awaited,
    /// An fd scan found its process before the accept hook named it.
    Unseen,
}

// 1,000,000 sockets are to fit in 128 MB with both indexes: 64 + 2 × (4 + 1) / load factor (at least 7/16).
const _: () = assert!(size_of::<Socket>() <= 64);

/// So many sockets, with the indexes that lead to them, are more than the caches of one CPU hold.
const OUT_OF_CACHE: usize = 10_000;

/// All full sockets, and how many of them are two ends of one connection.
#[derive(Default)]
pub(super) struct SocketTable {
    slots: Slab<Socket>,
    by_id: HashTable<u32>,
    by_tuple: HashTable<u32>,
    /// Pairs of sockets that are each other's peer.
    pairs: u32,
}

impl SocketTable {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) const fn pairs(&self) -> u32 {
        self.pairs
    }

    /// Makes room for so many sockets in all: tables that grow step by step move everything again and again. `key` as in
    /// [`Self::insert`].
    pub(super) fn make_room(&mut self, sockets: usize, key: impl Fn(&Socket) -> TupleKey) {
        let more = sockets.saturating_sub(self.len());
        self.slots.reserve(more);
        let slots = &self.slots;
        self.by_id.reserve(more, |index| hash(&slots[*index as usize].id));
        self.by_tuple.reserve(more, |index| hash(&key(&slots[*index as usize])));
    }

    pub(super) fn find(&self, id: SocketId) -> Option<u32> {
        self.by_id.find(hash(&id), |index| self.slots[*index as usize].id == id).copied()
    }

    /// Looks up sockets that are looked up one by one soon, and changes nothing. Among very many of them each look-up waits for
    /// memory: here they wait together.
    pub(super) fn look_ahead(&self, sockets: impl Iterator<Item = SocketId>) {
        if self.len() < OUT_OF_CACHE {
            return;
        }
        let found = sockets.filter_map(|id| self.find(id));
        // Without a use of it there would be no look-up.
        hint::black_box(found.fold(0, |all, index| all ^ index));
    }

    /// The socket with this four-tuple. `key` as in [`Self::insert`].
    pub(super) fn find_tuple(&self, tuple: TupleKey, key: impl Fn(&Socket) -> TupleKey) -> Option<u32> {
        self.by_tuple.find(hash(&tuple), |index| key(&self.slots[*index as usize]) == tuple).copied()
    }

    pub(super) fn get(&self, index: u32) -> &Socket {
        &self.slots[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Socket {
        &mut self.slots[index as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.slots.iter().map(|(_, socket)| socket)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Socket> {
        self.slots.iter_mut().map(|(_, socket)| socket)
    }

    /// Adds a socket that is not in the table. `key` gives the tuple of any socket in it.
    pub(super) fn insert(&mut self, socket: Socket, key: impl Fn(&Socket) -> TupleKey) -> u32 {
        let index = narrow(self.slots.insert(socket));
        let slots = &self.slots;
        self.by_id.insert_unique(hash(&socket.id), index, |other| hash(&slots[*other as usize].id));
        self.index_tuple(index, key);
        index
    }

    /// Removes a socket, if it is in the table. `key` as in [`Self::insert`].
    pub(super) fn remove(&mut self, id: SocketId, key: impl Fn(&Socket) -> TupleKey) -> Option<Socket> {
        let slots = &self.slots;
        let (index, _) = self.by_id.find_entry(hash(&id), |index| slots[*index as usize].id == id).ok()?.remove();
        self.forget_tuple(index, key);
        Some(self.slots.remove(index as usize))
    }

    /// Gives a socket another endpoint and destination, and so another device. `key` as in [`Self::insert`].
    pub(super) fn set_place(
        &mut self,
        index: u32,
        (endpoint, destination): (u32, u32),
        key: impl Fn(&Socket) -> TupleKey,
    ) {
        self.forget_tuple(index, &key);
        let socket = self.get_mut(index);
        (socket.endpoint, socket.destination) = (endpoint, destination);
        self.index_tuple(index, key);
    }

    /// Gives a socket the local port that connect() chose for it. `key` as in [`Self::insert`].
    pub(super) fn set_local_port(&mut self, index: u32, port: u16, key: impl Fn(&Socket) -> TupleKey) {
        self.forget_tuple(index, &key);
        self.get_mut(index).local_port = port;
        self.index_tuple(index, key);
    }

    fn index_tuple(&mut self, index: u32, key: impl Fn(&Socket) -> TupleKey) {
        let of = |other: &u32| key(&self.slots[*other as usize]);
        let own = of(&index);
        if own.tuple.local_port == 0 {
            return;
        }
        self.pairs += self.pairs_of_one_more(own, of);
        self.by_tuple.insert_unique(hash(&own), index, |other| hash(&of(other)));
    }

    fn forget_tuple(&mut self, index: u32, key: impl Fn(&Socket) -> TupleKey) {
        let of = |other: &u32| key(&self.slots[*other as usize]);
        let own = of(&index);
        if own.tuple.local_port == 0 {
            return;
        }
        if let Ok(entry) = self.by_tuple.find_entry(hash(&own), |other| *other == index) {
            entry.remove();
            self.pairs -= self.pairs_of_one_more(own, of);
        }
    }

    /// How many pairs one more socket of this four-tuple makes, which is not among `by_tuple` now. Devices make no
    /// difference: either end may be bound to one. Several sockets have the same addresses on different devices, and while
    /// a lost close is not yet swept; of n and m there are min(n, m) pairs. A socket connected to itself is nobody's peer.
    fn pairs_of_one_more(&self, own: TupleKey, of: impl Fn(&u32) -> TupleKey) -> u32 {
        let reversed = own.reversed();
        if reversed == own {
            return 0;
        }
        let (mut alike, mut peers) = (0, 0);
        for other in self.by_tuple.iter_hash(hash(&own)).map(of) {
            alike += u32::from(other.has_addresses_of(own));
            peers += u32::from(other.has_addresses_of(reversed));
        }
        u32::from(peers > alike)
    }
}

/// The four-tuple of a socket and where it stands.
pub(super) fn key_of(endpoints: &EndpointTable, socket: &Socket) -> TupleKey {
    let key = &endpoints.get(socket.endpoint).key;
    TupleKey {
        netns: key.netns,
        device: key.device.index(),
        tuple: FourTuple {
            local_ip: key.local_ip,
            local_port: socket.local_port,
            remote_ip: socket.remote_ip,
            remote_port: socket.remote_port,
        },
    }
}
