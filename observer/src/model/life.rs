//! The life of a full socket in the model: added, brought to a state, taken out, and counted as it opens and ends.

use std::num::NonZeroU32;

use super::{
    Model,
    event::Identity,
    owner::Owner,
    port_table::Counted,
    snapshot::{Direction, EndpointKey},
    socket::{Acceptance, Socket, TupleKey, key_of},
    units::{FourTuple, SocketId, TcpState},
};

impl Model {
    /// Brings a socket to `state`, adding it if it is not known.
    pub(super) fn upsert(&mut self, socket: &Identity, state: TcpState, direction: Direction) -> u32 {
        if let Some(index) = self.update(socket, state) {
            return index;
        }
        let index = self.insert(socket, state, direction);
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
        let key = key_of(&self.endpoints, known);
        let is_same_port = key.tuple.local_port == socket.tuple.local_port
            || key.tuple.local_port == 0
            || socket.tuple.local_port == 0;
        let is_same = key.netns == socket.netns
            && is_same_port
            && FourTuple { local_port: socket.tuple.local_port, ..key.tuple } == socket.tuple;
        if is_same {
            // setsockopt() binds a socket to a device at any time.
            if key.device != socket.device.index() {
                self.set_device(index, socket.device);
            }
            return Some(index);
        }
        self.remove_socket(socket.id);
        None
    }

    /// Adds a socket that is not in the table; whether it counts as opened is the caller's to say.
    pub(super) fn insert(&mut self, socket: &Identity, state: TcpState, direction: Direction) -> u32 {
        let Identity { id, netns, tuple, device } = *socket;
        let now = self.now_in_seconds();
        let (endpoint, destination) = self.place(netns, device, &tuple, direction);
        let endpoints = &self.endpoints;
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
                owner: Owner::UNKNOWN,
                held_in_pass: self.fd_scan.number,
                born: NonZeroU32::new(now.saturating_add(1)).filter(|_| self.was_scanned(netns)),
                state_since: now,
                acceptance: Acceptance::Settled,
                is_guess: false,
                is_explicit: false,
                counted: Counted::Not,
            },
            |socket| key_of(endpoints, socket),
        );
        let row = self.endpoints.touch(endpoint, self.now);
        *row.states.get_mut(state) += 1;
        row.note_count(self.now);
        if let Some(row) = self.destinations.get_mut(destination) {
            row.sockets += 1;
        }
        // A connect() from a port that was bound before may still find its four-tuple taken.
        if state != TcpState::SynSent {
            self.take_over_minisock(TupleKey { netns, device: device.index(), tuple });
        }
        self.use_port(index);
        self.peak_sockets = self.peak_sockets.max(self.len());
        index
    }

    pub(super) fn set_state(&mut self, index: u32, state: TcpState) {
        let (generation, now) = (self.generation, self.now_in_seconds());
        let socket = self.sockets.get_mut(index);
        let before = std::mem::replace(&mut socket.state, state);
        socket.generation = generation;
        if before == state {
            return;
        }
        socket.state_since = now;
        let (endpoint, has_bound_first) = (socket.endpoint, socket.is_explicit);
        if before == TcpState::SynSent && has_bound_first {
            self.take_over_minisock(key_of(&self.endpoints, self.sockets.get(index)));
        }
        // While its port is not known, its state tells whether it has one.
        if self.sockets.get(index).local_port == 0 {
            self.give_up_socket_port(index);
            self.use_port(index);
        }
        let row = self.endpoints.touch(endpoint, self.now);
        *row.states.get_mut(before) -= 1;
        *row.states.get_mut(state) += 1;
        if !before.is_past_handshake() && state.is_past_handshake() {
            self.count_opened(index);
        }
    }

    /// Takes a socket out and counts its end. Unknown ids are those of sockets that never connected.
    pub(super) fn remove_socket(&mut self, id: SocketId) {
        let Some(index) = self.sockets.find(id) else {
            return;
        };
        self.give_up_socket_port(index);
        let endpoints = &self.endpoints;
        let socket = self.sockets.remove(index, |socket| key_of(endpoints, socket));
        if socket.is_explicit {
            let EndpointKey { netns, device, .. } = endpoints.get(socket.endpoint).key;
            self.release_port(netns, device, socket.local_port);
        }
        self.owners.release(socket.endpoint, socket.owner);
        self.shared.remove(&id);
        let row = self.endpoints.touch(socket.endpoint, self.now);
        *row.states.get_mut(socket.state) -= 1;
        let opened = socket.state.is_past_handshake();
        for flow in [&mut row.flow, &mut self.totals] {
            flow.closed += u64::from(opened);
            flow.failed += u64::from(!opened);
        }
        if let Some(row) = self.destinations.get_mut(socket.destination) {
            row.sockets -= 1;
        }
    }

    pub(super) fn count_opened(&mut self, index: u32) {
        let row = self.endpoints.touch(self.sockets.get(index).endpoint, self.now);
        row.flow.opened += 1;
        self.totals.opened += 1;
    }
}
