//! Local endpoints and, under the outbound ones, destinations: the counts that rows are made of.

use std::{
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hashbrown::HashTable;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::{
    Model,
    address::{Direction, EndpointKey, hash_of_end},
    device::Device,
    history::History,
    index::{NO_ROW, hash, narrow},
    port_table::PortCounts,
    row_members::{RowMember, RowMembers},
    units::{FourTuple, NetnsId, Process, StateCounts},
};

pub(super) use super::flow::{Flow, rate};

/// How many port numbers there are: with more sockets than this at one endpoint, it is plain that a port number is not a
/// connection.
pub const PORT_NUMBERS: u32 = 1 << 16;

/// How long a row without sockets stays on screen.
const LINGER: Duration = Duration::from_mins(1);

/// A local endpoint.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) key: EndpointKey,
    /// Listening sockets bound to exactly this address (`SO_REUSEPORT` allows several).
    pub(super) listeners: u32,
    /// Full sockets by state.
    pub(super) states: StateCounts,
    /// TIME_WAIT and request sockets by state.
    pub(super) minisocks: StateCounts,
    pub(super) peak: u32,
    /// When it first had more sockets than there are port numbers.
    pub(super) beyond_port_numbers: Option<Duration>,
    pub(super) flow: Flow,
    pub(super) process: Option<Process>,
    pub(super) history: History,
    pub(super) destinations: u32,
    /// Index of its namespace's ports in the ledger; [`NO_ROW`] while these are not known.
    pub(super) ports: u32,
    /// Of its sockets and listeners.
    pub(super) members: RowMembers,
    last_active: Duration,
}

impl Endpoint {
    pub(super) fn is_empty(&self) -> bool {
        self.listeners == 0 && self.states.sum() == 0 && self.minisocks.sum() == 0
    }

    /// Takes note of how many sockets there are.
    pub(super) fn note_count(&mut self, now: Duration) {
        let sockets = self.states.sum();
        self.peak = self.peak.max(sockets);
        if sockets > PORT_NUMBERS {
            self.beyond_port_numbers.get_or_insert(now);
        }
    }

    /// Resets peak and totals.
    fn restart(&mut self, now: Duration) {
        (self.peak, self.beyond_port_numbers) = (0, None);
        self.flow.restart();
        self.note_count(now);
    }
}

/// All local endpoints.
#[derive(Clone, Default)]
pub(super) struct EndpointTable {
    rows: Slab<Endpoint>,
    /// Indexes alone: who finds a row needs it next.
    by_key: HashTable<u32>,
    /// Openings and closings of rows that are gone, so that the totals of a namespace never fall.
    evicted: FxHashMap<(NetnsId, Direction), Flow>,
}

impl EndpointTable {
    /// Openings and closings of rows that are gone.
    pub(super) fn evicted(&self) -> impl Iterator<Item = ((NetnsId, Direction), &Flow)> {
        self.evicted.iter().map(|(key, flow)| (*key, flow))
    }

    pub(super) fn get(&self, index: u32) -> &Endpoint {
        &self.rows[index as usize]
    }

    /// The row, to be changed at `now`.
    pub(super) fn touch(&mut self, index: u32, now: Duration) -> &mut Endpoint {
        let row = &mut self.rows[index as usize];
        row.last_active = now;
        row
    }

    /// The members of a row.
    pub(super) fn members_mut(&mut self, index: u32) -> &mut RowMembers {
        &mut self.rows[index as usize].members
    }

    /// The index of a row that is made if need be, and whether it was made.
    pub(super) fn index(&mut self, key: EndpointKey, now: Duration) -> (u32, bool) {
        if let Some(known) = self.find(&key) {
            return (known, false);
        }
        let index = narrow(self.rows.insert(Endpoint {
            key,
            listeners: 0,
            states: StateCounts::default(),
            minisocks: StateCounts::default(),
            peak: 0,
            beyond_port_numbers: None,
            flow: Flow::default(),
            process: None,
            history: History::new(),
            destinations: 0,
            ports: NO_ROW,
            members: RowMembers::default(),
            last_active: now,
        }));
        let rows = &self.rows;
        self.by_key.insert_unique(hash(&key), index, |other| hash(&rows[*other as usize].key));
        (index, true)
    }

    /// Where the ports of a row's namespace are.
    pub(super) fn set_ports(&mut self, index: u32, ports: u32) {
        self.rows[index as usize].ports = ports;
    }

    /// As [`Self::set_ports`], for all rows of a namespace.
    pub(super) fn set_all_ports(&mut self, netns: NetnsId, ports: u32) {
        for (_, row) in self.rows.iter_mut().filter(|(_, row)| row.key.netns == netns) {
            row.ports = ports;
        }
    }

    /// A destination of this row is gone; that is no activity.
    pub(super) fn forget_destination(&mut self, index: u32) {
        self.rows[index as usize].destinations -= 1;
    }

    pub(super) fn find(&self, key: &EndpointKey) -> Option<u32> {
        self.by_key.find(hash(key), |index| self.rows[*index as usize].key == *key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Endpoint)> {
        self.rows.iter().map(|(index, row)| (narrow(index), row))
    }

    /// Resets peaks and totals of all rows.
    pub(super) fn restart(&mut self, now: Duration) {
        self.rows.iter_mut().for_each(|(_, row)| row.restart(now));
        self.evicted.clear();
    }

    /// Once a second: rates and history.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        for (_, row) in &mut self.rows {
            row.flow.tick(elapsed);
            row.history.push(row.states.sum());
        }
    }

    /// Takes all sockets out of all rows.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        for (_, row) in &mut self.rows {
            row.members.empty();
            (row.listeners, row.states, row.minisocks) = (0, StateCounts::default(), StateCounts::default());
        }
    }

    /// Drops rows that have been empty for a while.
    pub(super) fn evict(&mut self, now: Duration) {
        let mut evicted = std::mem::take(&mut self.evicted);
        self.retain(|row| {
            let keep = !row.is_empty() || row.destinations > 0 || now.saturating_sub(row.last_active) < LINGER;
            if !keep {
                evicted.entry((row.key.netns, row.key.direction)).or_default().add(&row.flow);
            }
            keep
        });
        self.evicted = evicted;
        if self.by_key.capacity() > 4 * self.by_key.len().max(64) {
            self.rows.shrink_to_fit();
            let rows = &self.rows;
            self.by_key.shrink_to_fit(|index| hash(&rows[*index as usize].key));
        }
    }

    /// Drops the rows and totals of a namespace that is gone.
    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.retain(|row| row.key.netns != netns);
        self.evicted.retain(|(of, _), _| *of != netns);
    }

    /// Drops the rows that are not to be kept.
    fn retain(&mut self, mut keep: impl FnMut(&Endpoint) -> bool) {
        let by_key = &mut self.by_key;
        self.rows.retain(|index, row| {
            let keep = keep(row);
            if !keep && let Ok(entry) = by_key.find_entry(hash(&row.key), |other| *other as usize == index) {
                entry.remove();
            }
            keep
        });
    }
}

/// One remote address as seen from one outbound endpoint. An event of a full socket finds all that it needs in the first cache
/// line.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Destination {
    pub(super) endpoint: u32,
    pub(super) remote_port: u16,
    pub(super) remote_ip: IpAddr,
    /// Full sockets.
    pub(super) sockets: u32,
    pub(super) ports: PortCounts,
    /// Of its full sockets.
    pub(super) members: RowMembers,
    /// TIME_WAIT sockets, and those in FIN_WAIT2 that have lost their full socket.
    pub(super) minisocks: u32,
    /// Of these, the ones in TIME_WAIT.
    pub(super) time_wait: u32,
    /// Of these, the ones whose peer sends TCP timestamps: without, connect() never takes them over.
    pub(super) stamped: u32,
    /// TIME_WAIT sockets that it got since observer started and that keep their port until they end.
    pub(super) entered: i64,
    /// What sockets of the same addresses on other devices add to `ports`, as of the last snapshot or second.
    pub(super) shared: PortCounts,
    /// Of such sockets, those whose port no event has shown yet: each may have one that is counted already.
    pub(super) shared_unseen: u32,
}

// `Slab` looks at the capacity of `members.others`, the word after the few, to know whether the entry is in use.
const _: () =
    assert!(offset_of!(Destination, members) + RowMembers::FEW * size_of::<RowMember>() + size_of::<usize>() <= 64);

impl Destination {
    pub(super) const fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_ip, self.remote_port)
    }

    fn hash(&self) -> u64 {
        hash_of_destination(self.endpoint, self.remote())
    }
}

fn hash_of_destination(endpoint: u32, remote: SocketAddr) -> u64 {
    hash(&(endpoint, hash_of_end(remote.ip(), remote.port().into())))
}

/// All destinations.
#[derive(Clone, Default)]
pub(super) struct DestinationTable {
    rows: Slab<Destination>,
    by_remote: HashTable<u32>,
}

impl DestinationTable {
    pub(super) fn get(&self, index: u32) -> Option<&Destination> {
        self.rows.get(index as usize)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Destination> {
        self.rows.get_mut(index as usize)
    }

    /// The index of a row that is made if need be, and whether it was made.
    pub(super) fn index(&mut self, endpoint: u32, remote: SocketAddr) -> (u32, bool) {
        if let Some(known) = self.find(endpoint, remote) {
            return (known, false);
        }
        let (ports, shared) = (PortCounts::default(), PortCounts::default());
        let row = Destination {
            endpoint,
            remote_port: remote.port(),
            remote_ip: remote.ip(),
            sockets: 0,
            minisocks: 0,
            time_wait: 0,
            stamped: 0,
            entered: 0,
            ports,
            shared,
            shared_unseen: 0,
            members: RowMembers::default(),
        };
        let hash = row.hash();
        let index = narrow(self.rows.insert(row));
        let rows = &self.rows;
        self.by_remote.insert_unique(hash, index, |other| rows[*other as usize].hash());
        (index, true)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Destination> {
        self.rows.iter().map(|(_, row)| row)
    }

    pub(super) fn iter_indexed(&self) -> impl Iterator<Item = (u32, &Destination)> {
        self.rows.iter().map(|(index, row)| (narrow(index), row))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Destination> {
        self.rows.iter_mut().map(|(_, row)| row)
    }

    pub(super) fn find(&self, endpoint: u32, remote: SocketAddr) -> Option<u32> {
        let is_it = |index: &u32| {
            let row = &self.rows[*index as usize];
            (row.endpoint, row.remote_port, row.remote_ip) == (endpoint, remote.port(), remote.ip())
        };
        self.by_remote.find(hash_of_destination(endpoint, remote), is_it).copied()
    }

    /// Takes all sockets out of all rows.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        for row in self.iter_mut() {
            (row.sockets, row.minisocks, row.time_wait, row.stamped) = (0, 0, 0, 0);
            row.ports = PortCounts::default();
            row.members.empty();
        }
    }

    /// Drops rows without sockets; `gone` gets the endpoint of each.
    pub(super) fn evict(&mut self, mut gone: impl FnMut(u32)) {
        self.retain(|row| {
            let keep = row.sockets + row.minisocks > 0;
            if !keep {
                gone(row.endpoint);
            }
            keep
        });
    }

    /// Drops the rows that are not to be kept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Destination) -> bool) {
        let by_remote = &mut self.by_remote;
        self.rows.retain(|index, row| {
            let keep = keep(row);
            if !keep && let Ok(entry) = by_remote.find_entry(row.hash(), |other| *other as usize == index) {
                entry.remove();
            }
            keep
        });
    }
}

impl Model {
    /// The endpoint and the destination that a four-tuple belongs to, made if need be.
    pub(super) fn place(
        &mut self,
        netns: NetnsId,
        device: Device,
        tuple: &FourTuple,
        direction: Direction,
    ) -> (u32, u32) {
        let local_port = (direction == Direction::Inbound).then_some(tuple.local_port);
        let key = EndpointKey { netns, direction, local_ip: tuple.local_ip, local_port, device };
        let endpoint = self.endpoint(key);
        if direction == Direction::Inbound {
            return (endpoint, NO_ROW);
        }
        let remote = SocketAddr::new(tuple.remote_ip, tuple.remote_port);
        (endpoint, self.ledger.destination(endpoint, remote, self.now))
    }

    /// The index of a row that is made if need be.
    pub(super) fn endpoint(&mut self, key: EndpointKey) -> u32 {
        let (index, made) = self.ledger.endpoint(key, self.now);
        if made {
            self.note_namespace(key.netns);
            self.note_device(key.netns, key.device);
        }
        index
    }
}
