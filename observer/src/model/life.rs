//! Full sockets in the model: how one is added, changes its state and is removed, and how openings and ends count.

use std::num::NonZeroU32;

use super::{
    Model,
    address::{Direction, TupleKey},
    event::Identity,
    index::NO_ROW,
    ledger::{Contribution, Counts},
    member::NOBODY,
    owner::Owner,
    socket::{Acceptance, Socket, key_of},
    units::{FourTuple, Process, SocketId, TcpState},
};

impl Model {
    /// Brings a socket to `state`, adding it if it is not known: `is_explicit` as in [`Self::insert`].
    pub(super) fn upsert(
        &mut self,
        socket: &Identity,
        state: TcpState,
        direction: Direction,
        is_explicit: bool,
    ) -> u32 {
        if let Some(index) = self.update(socket, state) {
            return index;
        }
        let index = self.insert(socket, state, direction, None, is_explicit);
        if state.is_past_handshake() {
            self.count_opened(index);
        }
        index
    }

    /// Brings a socket that is known to `state`.
    pub(super) fn update(&mut self, socket: &Identity, state: TcpState) -> Option<u32> {
        let index = self.find(socket)?;
        self.learn_port(index, socket.tuple.local_port);
        self.set_state(index, state);
        Some(index)
    }

    /// The row of this socket. Another connection under the same id is one whose end went unseen: it ends now.
    pub(super) fn find(&mut self, socket: &Identity) -> Option<u32> {
        let index = self.sockets.find(socket.id)?;
        let known = self.sockets.get(index);
        let row = &self.ledger.endpoints().get(known.endpoint).key;
        let FourTuple { local_ip, local_port, remote_ip, remote_port } = socket.tuple;
        let is_same_port = known.local_port == local_port || known.local_port == 0 || local_port == 0;
        let is_same = is_same_port
            && (row.netns, known.remote_port) == (socket.netns, remote_port)
            && (known.remote_ip, row.local_ip) == (remote_ip, local_ip);
        if is_same {
            // setsockopt() binds a socket to a device at any time.
            if row.device != socket.device {
                self.set_device(index, socket.device);
            }
            self.learn_cgroup(index, socket.cgroup);
            return Some(index);
        }
        self.remove_socket(socket.id);
        None
    }

    /// Adds a socket that is not in the table, with its owner where that is known; whether it counts as opened is the caller's to
    /// say. `is_explicit`: its bind bucket is; of a client, whose own bind shows what its port is towards its destination, the
    /// caller says that next ([`Self::set_explicit`]).
    pub(super) fn insert(
        &mut self,
        socket: &Identity,
        state: TcpState,
        direction: Direction,
        by: Option<&Process>,
        is_explicit: bool,
    ) -> u32 {
        let Identity { id, netns, tuple, device, cgroup } = *socket;
        let now = self.now_in_seconds();
        let (endpoint, destination) = self.place(netns, device, &tuple, direction);
        let owner = by.map_or(Owner::UNKNOWN, |by| self.owner_of(endpoint, *by));
        let member = match self.member_of_cgroup(cgroup) {
            Some(member) => member,
            None if by.is_some() => self.member_of_process(by.copied()),
            // Until it is accepted, a listener's child is the listener's.
            None if direction == Direction::Inbound => self.covering(socket).map_or(NOBODY, |listener| listener.member),
            None => NOBODY,
        };
        let endpoints = self.ledger.endpoints();
        let index = self.sockets.insert(
            Socket {
                id,
                endpoint,
                destination,
                generation: self.generation,
                local_port: tuple.local_port,
                remote_port: tuple.remote_port,
                remote_ip: tuple.remote_ip,
                state,
                owner,
                seen_in_fd_scan: self.fd_scan.number,
                began: NonZeroU32::new(now.saturating_add(1)).filter(|_| self.was_scanned(netns)),
                state_since: now,
                acceptance: Acceptance::Settled,
                is_guess: false,
                is_explicit: is_explicit && destination == NO_ROW && tuple.local_port != 0,
                port_class: None,
                member,
            },
            |socket| key_of(endpoints, socket),
        );
        // A connect() from a port that was bound before may still find its four-tuple in use.
        if state != TcpState::SynSent {
            self.take_over_minisock(TupleKey { netns, device: device.index(), tuple }, endpoint);
        }
        let socket = self.sockets.get_mut(index);
        socket.port_class = socket.find_port_class(&self.ledger);
        self.ledger.apply(Contribution::NONE, socket.contribution(), self.now);
        self.note_few_ports(index);
        self.ledger.note_sockets(self.len());
        index
    }

    /// Adds a socket whose handshake has ended, and which a process has accepted already if that is known.
    pub(super) fn open_inbound(&mut self, socket: &Identity, by: Option<&Process>) {
        let listener = self.covering(socket).map(|listener| listener.member);
        // Without a cgroup it counts as opened for its listener's process, whoever accepts it.
        let owner = by.filter(|by| {
            self.member_of_cgroup(socket.cgroup).is_some() || listener == Some(self.member_of_process(Some(**by)))
        });
        let index = self.insert(socket, TcpState::Established, Direction::Inbound, owner, true);
        self.count_opened(index);
        // The child of a listener is on its listener's bucket.
        self.set_explicit(index, true);
        let added = self.sockets.get_mut(index);
        added.is_guess = listener.is_none();
        added.acceptance = if listener.is_some() && by.is_none() { Acceptance::Awaited } else { Acceptance::Settled };
        if let Some(by) = by
            && owner.is_none()
        {
            self.set_owner(index, *by);
        }
    }

    /// Changes a socket, and with it all totals.
    pub(super) fn change_socket(&mut self, index: u32, change: impl FnOnce(&mut Socket)) {
        let socket = self.sockets.get_mut(index);
        let before = socket.contribution();
        change(socket);
        self.ledger.apply(before, socket.contribution(), self.now);
    }

    pub(super) fn set_state(&mut self, index: u32, state: TcpState) {
        let (generation, now) = (self.generation, self.now_in_seconds());
        let socket = self.sockets.get_mut(index);
        socket.generation = generation;
        let known = *socket;
        if known.state == state {
            return;
        }
        (socket.state, socket.state_since) = (state, now);
        let before = known.contribution();
        // The same as to make it again, which is what most events would do twice.
        let after = Contribution { counts: Counts::Full(state), ..before };
        debug_assert_eq!(after, socket.contribution());
        self.ledger.apply(before, after, self.now);
        if known.state == TcpState::SynSent && known.is_explicit {
            self.take_over_minisock(key_of(self.ledger.endpoints(), &known), known.endpoint);
        }
        // While its port is not known, its state shows whether it has one.
        if known.local_port == 0 {
            self.find_port_class(index);
        }
        if !known.state.is_past_handshake() && state.is_past_handshake() {
            self.ledger.note_opened(known.endpoint, known.member, self.now);
        }
    }

    /// Removes a socket and counts its end. Unknown ids are those of sockets that never connected.
    pub(super) fn remove_socket(&mut self, id: SocketId) {
        if let Some(socket) = self.take_socket(id) {
            self.ledger.apply(socket.contribution(), Contribution::NONE, self.now);
        }
    }

    /// As [`Self::remove_socket`]. What it added to all totals is the caller's to take from them.
    pub(super) fn take_socket(&mut self, id: SocketId) -> Option<Socket> {
        let endpoints = self.ledger.endpoints();
        let socket = self.sockets.remove(id, |socket| key_of(endpoints, socket))?;
        self.ledger.note_end(socket.endpoint, socket.member, socket.state.is_past_handshake(), self.now);
        if !self.co_owners.is_empty() {
            self.co_owners.remove(&id);
        }
        Some(socket)
    }

    pub(super) fn count_opened(&mut self, index: u32) {
        let Socket { endpoint, member, .. } = *self.sockets.get(index);
        self.ledger.note_opened(endpoint, member, self.now);
    }
}
