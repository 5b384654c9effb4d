//! Mark and sweep: a scan of the kernel's table marks what it finds; what it did not find, and no event has touched
//! since the scan began, is swept. What a scan changes beyond what events explain is the drift.

use std::time::Duration;

use super::{
    Model,
    endpoint::Minis,
    event::{Binding, Found, Identity},
    owner::Owner,
    snapshot::Direction,
    socket::Socket,
    trust::ScanSummary,
    units::{NetnsId, SocketId, StateCounts, TcpState},
};

impl Model {
    /// A scan of the table of `netns` begins: every event from here on belongs to its generation.
    pub fn begin_scan(&mut self, netns: NetnsId) {
        self.abandon_scan();
        self.generation = self.generation.wrapping_add(1);
        self.scanning = Some(netns);
    }

    /// The scan has shown all sockets of the namespace, and all its events were applied.
    pub fn end_scan(&mut self, now: Duration) {
        let Some(netns) = self.scanning.take() else { return };
        self.now = now;
        self.sweep(netns);
        for row in self.endpoints.iter_mut().filter(|row| row.key.netns == netns) {
            row.minis.finish();
        }
        for row in self.destinations.iter_mut() {
            if self.endpoints.get(row.endpoint).key.netns == netns {
                row.minis.finish();
            }
        }
        self.bound.finish(netns);
        if let Some(namespace) = self.namespaces.get_mut(&netns) {
            namespace.scanned = true;
        }
    }

    /// Every namespace was scanned.
    pub fn end_round(&mut self, summary: ScanSummary) {
        self.trust.scans_total += 1;
        self.trust.last_scan = Some(summary);
    }

    /// The scan could not be finished: what it found so far stays, what it did not find is not swept.
    pub fn abandon_scan(&mut self) {
        self.scanning = None;
        self.bound.abandon();
        for row in self.endpoints.iter_mut() {
            row.minis.running = StateCounts::default();
        }
        for row in self.destinations.iter_mut() {
            row.minis.running = Minis::default();
        }
    }

    /// A full socket that closes from here leaves a smaller one behind, which keeps its four-tuple. That one has no
    /// events of its own: it is counted by what is likely, until the next scan counts it by what is.
    pub(super) fn leave_mini(&mut self, id: SocketId) {
        let Some(index) = self.sockets.find(id) else { return };
        let socket = *self.sockets.get(index);
        // Closed by its process before its peer: the kernel swaps it at once, and then waits for the peer's FIN.
        let waits_for_peer = socket.state == TcpState::FinWait2 && socket.owner == Owner::ORPHAN;
        let state = if waits_for_peer { TcpState::FinWait2 } else { TcpState::TimeWait };
        *self.endpoints.touch(socket.endpoint, self.now).minis.last.get_mut(state) += 1;
        if let Some(row) = self.destinations.get_mut(socket.destination) {
            row.minis.last.add(state, socket.uses_range);
        }
    }

    pub(super) fn on_scanned(&mut self, socket: &Identity, found: Found, binding: Binding) {
        match found {
            Found::Full(TcpState::Closed) => {}
            Found::Full(TcpState::Listen) => self.on_scanned_listener(socket, binding),
            Found::Full(state) => {
                self.on_scanned_socket(socket, state, binding);
                self.note_bound(socket, binding);
            }
            Found::TimeWait(_) | Found::Request => self.on_scanned_mini(socket, found, binding),
        }
    }

    fn on_scanned_listener(&mut self, socket: &Identity, binding: Binding) {
        let generation = self.generation;
        if let Some(known) = self.listeners.get_mut(socket.id)
            && (known.netns, known.ip, known.port) == (socket.netns, socket.tuple.local_ip, socket.tuple.local_port)
        {
            known.generation = generation;
            known.chose_port = binding.port_locked;
            return;
        }
        self.add_listener(socket, None);
        if let Some(listener) = self.listeners.get_mut(socket.id) {
            listener.chose_port = binding.port_locked;
        }
        self.trust.drift.added += u64::from(self.was_scanned(socket.netns));
    }

    fn on_scanned_socket(&mut self, socket: &Identity, state: TcpState, binding: Binding) {
        if let Some(index) = self.find(socket) {
            if self.sockets.get(index).is_guess {
                let direction = self.direction_of(socket, binding);
                self.set_direction(index, direction);
            }
            let before = self.sockets.get(index).state;
            self.learn_port(index, socket.tuple.local_port);
            self.set_state(index, state);
            self.trust.drift.changed += u64::from(before != state);
            return;
        }
        let direction = self.direction_of(socket, binding);
        let index = self.insert(socket, state, direction);
        if self.was_scanned(socket.netns) {
            self.trust.drift.added += 1;
            if state.is_past_handshake() {
                self.count_opened(index);
            }
        }
    }

    fn on_scanned_mini(&mut self, socket: &Identity, found: Found, binding: Binding) {
        let Some(state) = found.mini_state() else {
            return;
        };
        let direction = match found {
            Found::Request => Direction::Inbound,
            _ => self.direction_of(socket, binding),
        };
        let (endpoint, destination) = self.place(socket.netns, &socket.tuple, direction);
        *self.endpoints.touch(endpoint, self.now).minis.running.get_mut(state) += 1;
        if destination == Socket::NO_DESTINATION {
            return;
        }
        let usable = self.namespaces.get(&socket.netns);
        let uses = usable.is_some_and(|it| it.usable.contains(socket.tuple.local_port));
        let Some(row) = self.destinations.get_mut(destination) else {
            return;
        };
        row.minis.running.add(state, uses);
        self.note_bound(socket, binding);
    }

    fn sweep(&mut self, netns: NetnsId) {
        let generation = self.generation;
        let gone: Vec<SocketId> =
            self.sockets_of(netns).filter(|socket| socket.generation != generation).map(|socket| socket.id).collect();
        let gone_listeners = self.listeners.older_than(netns, generation);
        self.trust.drift.removed += (gone.len() + gone_listeners.len()) as u64;
        for id in gone {
            self.remove_socket(id);
        }
        for id in gone_listeners {
            self.remove_listener(id);
        }
    }

    /// The first scan of a namespace finds what was there before the hooks: that is no drift.
    pub(super) fn was_scanned(&self, netns: NetnsId) -> bool {
        self.namespaces.get(&netns).is_some_and(|namespace| namespace.scanned)
    }

    /// Once a second: rates, history, and the end of rows that have been empty for long.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        let elapsed = now.saturating_sub(self.last_tick);
        self.last_tick = now;
        self.totals.tick(elapsed);
        self.failures.tick(elapsed);
        for row in self.endpoints.iter_mut() {
            row.flow.tick(elapsed);
            row.history.push(row.states.sum());
        }
        let events = self.trust.events_total - self.events_before;
        self.events_before = self.trust.events_total;
        self.trust.events_per_second = super::endpoint::rate(events, elapsed);
        let endpoints = &mut self.endpoints;
        self.destinations.evict(|endpoint| endpoints.forget_destination(endpoint));
        self.endpoints.evict(now);
        self.sample_walls();
    }
}
