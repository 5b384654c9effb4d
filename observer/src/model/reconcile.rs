//! Mark and sweep: a scan of the kernel's table marks what it finds; what it did not find, and no event has touched
//! since the scan began, is swept. What a scan changes beyond what events explain is the drift.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{
    Model,
    address::Direction,
    endpoint::Endpoint,
    event::{Binding, Found, Identity},
    index::narrow,
    key_of,
    quality::{Coverage, NamespaceScan, OwnCost, ScanSummary},
    units::{NetnsId, SocketId, TcpState},
};

/// With fewer in a second, what they cost vanishes beside what is done every second anyhow.
const ENOUGH_EVENTS: u64 = 10_000;

/// A scan that has begun and not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunningScan {
    netns: NetnsId,
    began_at: Duration,
    /// Sockets that it has found so far.
    found: u32,
}

/// What the model knows of a namespace that counts of the kernel are compared with.
#[derive(Clone, Copy, Debug, Default)]
pub struct KnownSockets {
    /// Listeners.
    pub listeners: u32,
    /// Other full sockets.
    pub others: u32,
    /// Request sockets.
    pub requests: u32,
    /// TIME_WAIT sockets, and those in FIN_WAIT2 that have lost their full socket.
    pub time_wait: u32,
}

impl KnownSockets {
    fn add(&mut self, row: &Endpoint) {
        self.listeners += row.listeners;
        self.others += row.states.sum();
        let requests = row.minisocks.get(TcpState::SynReceived);
        self.requests += requests;
        self.time_wait += row.minisocks.sum() - requests;
    }
}

impl Model {
    /// A scan of the table of `netns` begins: every event from here on belongs to its generation.
    pub fn begin_scan(&mut self, netns: NetnsId, now: Duration) {
        self.abandon_scan();
        self.now = now;
        self.generation = self.generation.wrapping_add(1);
        self.scanning = Some(RunningScan { netns, began_at: now, found: 0 });
        // How many there will be, as the kernel has counted them a moment ago.
        let reading = self.readings.namespaces.get(&netns).map(|namespace| &namespace.reading);
        if let Some(established) = reading.and_then(|reading| reading.established_or_close_wait) {
            let endpoints = self.ledger.endpoints();
            self.sockets.make_room(established as usize, |socket| key_of(endpoints, socket));
        }
    }

    /// The scan has shown all sockets of the namespace, and all its events were applied.
    pub fn end_scan(&mut self, now: Duration) {
        let Some(RunningScan { netns, began_at, found }) = self.scanning.take() else { return };
        self.now = now;
        self.sweep(netns);
        self.diagnosis.bind_before_connect.finish(netns);
        self.settle_listen_drops(netns);
        if let Some(namespace) = self.readings.namespaces.get_mut(&netns) {
            namespace.last_scan = Some(NamespaceScan { netns, began_at, finished_at: now, found });
            namespace.scans += 1;
        }
        self.ledger.end_scan(netns);
    }

    /// Counts and the fd scan that has just ended show the full sockets of the namespace: those that are known, in these states.
    /// Other sockets are not there. It has shown the queues of all listeners, too. Bind buckets and devices, and what is settled
    /// by these, wait for a scan.
    pub fn end_scan_by_counts(&mut self, netns: NetnsId, now: Duration) {
        if !self.was_scanned(netns) {
            return;
        }
        self.now = now;
        self.remove_minisocks(netns, |_| true);
        self.settle_listen_drops(netns);
        let rows = self.ledger.endpoints().iter().filter(|(_, row)| row.key.netns == netns);
        let found = rows.map(|(_, row)| row.listeners + row.states.sum()).sum();
        if let Some(namespace) = self.readings.namespaces.get_mut(&netns) {
            let began_at = self.fd_scan.began_at;
            namespace.last_scan = Some(NamespaceScan { netns, began_at, finished_at: now, found });
        }
    }

    /// Totals of each namespace that the kernel also counts, without a scan: `CurrEstab` (ESTABLISHED and CLOSE_WAIT) and `tw`
    /// (TIME_WAIT and FIN_WAIT2 without a full socket). One without sockets may be absent.
    #[must_use]
    pub fn kernel_totals(&self) -> FxHashMap<NetnsId, [u32; 2]> {
        let mut all: FxHashMap<NetnsId, [u32; 2]> = FxHashMap::default();
        for (_, row) in self.ledger.endpoints().iter() {
            let totals = all.entry(row.key.netns).or_default();
            totals[0] += row.states.get(TcpState::Established) + row.states.get(TcpState::CloseWait);
            totals[1] += row.minisocks.get(TcpState::TimeWait) + row.minisocks.get(TcpState::FinWait2);
        }
        all
    }

    /// The sockets of each namespace. One without any may be absent.
    #[must_use]
    pub fn known_sockets(&self) -> FxHashMap<NetnsId, KnownSockets> {
        let mut all: FxHashMap<NetnsId, KnownSockets> = FxHashMap::default();
        for (_, row) in self.ledger.endpoints().iter() {
            all.entry(row.key.netns).or_default().add(row);
        }
        all
    }

    /// The sockets of one namespace.
    #[must_use]
    pub fn known_sockets_of(&self, netns: NetnsId) -> KnownSockets {
        let mut known = KnownSockets::default();
        let rows = self.ledger.endpoints().iter().map(|(_, row)| row);
        rows.filter(|row| row.key.netns == netns).for_each(|row| known.add(row));
        known
    }

    /// All namespaces that were due are scanned.
    pub fn end_round(&mut self, summary: ScanSummary) {
        self.quality.scans_total += 1;
        self.quality.last_scan = Some(summary);
        self.find_stuck();
    }

    /// The scan could not be finished: what it found so far stays, what it did not find is not swept.
    pub fn abandon_scan(&mut self) {
        self.scanning = None;
        self.diagnosis.bind_before_connect.abandon();
    }

    pub(super) fn on_scanned(&mut self, socket: &Identity, found: Found, binding: Binding) {
        self.unbind(socket.id);
        if let Some(scan) = self.scanning.as_mut().filter(|scan| scan.netns == socket.netns) {
            scan.found += 1;
        }
        match found {
            Found::Full(TcpState::Closed) => {}
            Found::Full(TcpState::Listen) => self.on_scanned_listener(socket, binding),
            Found::Full(state) => {
                self.on_scanned_socket(socket, state, binding);
                self.note_bind_before_connect(socket, binding);
            }
            Found::TimeWait { .. } | Found::Request => {
                self.on_scanned_minisock(socket, found, binding);
                self.note_bind_before_connect(socket, binding);
            }
        }
    }

    fn on_scanned_listener(&mut self, socket: &Identity, binding: Binding) {
        let generation = self.generation;
        if let Some(known) = self.listeners.get_mut(socket.id)
            && (known.netns, known.ip, known.port, known.device)
                == (socket.netns, socket.tuple.local_ip, socket.tuple.local_port, socket.device)
        {
            known.generation = generation;
            known.chose_port = binding.port_locked;
            self.learn_cgroup_of_listener(socket.id, socket.cgroup);
            return;
        }
        self.add_listener(socket, None);
        let is_older = !self.was_scanned(socket.netns);
        if let Some(listener) = self.listeners.get_mut(socket.id) {
            listener.chose_port = binding.port_locked;
            listener.is_older = is_older;
        }
        self.quality.drift.added += u64::from(self.was_scanned(socket.netns));
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
            self.quality.drift.changed += u64::from(before != state);
            if let Some(is_explicit) = binding.keeps_port() {
                self.set_explicit(index, is_explicit);
            }
            return;
        }
        let direction = self.direction_of(socket, binding);
        let is_explicit = binding.keeps_port().unwrap_or(direction == Direction::Inbound);
        let index = self.insert(socket, state, direction, None, is_explicit);
        self.set_explicit(index, is_explicit);
        if self.was_scanned(socket.netns) {
            self.quality.drift.added += 1;
            if state.is_past_handshake() {
                self.count_opened(index);
            }
        }
    }

    fn sweep(&mut self, netns: NetnsId) {
        let generation = self.generation;
        // Of hundreds of namespaces most have none: to look through those of the others takes longer than their scans.
        let has_sockets = self.ledger.endpoints().iter().any(|(_, row)| row.key.netns == netns && row.states.sum() > 0);
        let gone: Vec<SocketId> = if has_sockets {
            self.sockets_of(netns).filter(|it| it.generation != generation).map(|it| it.id).collect()
        } else {
            Vec::new()
        };
        let gone_listeners = self.listeners.older_than(netns, generation);
        self.quality.drift.removed += (gone.len() + gone_listeners.len()) as u64;
        for id in gone {
            self.remove_socket(id);
        }
        for id in gone_listeners {
            self.remove_listener(id);
        }
        self.remove_minisocks(netns, |minisock| minisock.generation != generation);
    }

    /// The first scan of a namespace finds what was there before the hooks: that is no drift.
    pub(super) fn was_scanned(&self, netns: NetnsId) -> bool {
        self.readings.namespaces.get(&netns).is_some_and(|namespace| namespace.last_scan.is_some())
    }

    /// Scans of the namespace that were completed.
    pub(super) fn scans_of(&self, netns: NetnsId) -> u64 {
        self.readings.namespaces.get(&netns).map_or(0, |namespace| namespace.scans)
    }

    /// How far scans have come. A namespace that cannot be entered has no totals, and no scan will come. One that was only
    /// named will be read first.
    pub(super) fn coverage(&self) -> Coverage {
        let namespaces = self.readings.namespaces.values();
        let mut coverage = Coverage { namespaces: narrow(self.readings.unread.len()), ..Coverage::default() };
        for namespace in namespaces.filter(|it| it.reading.established_or_close_wait.is_some()) {
            coverage.namespaces += 1;
            let Some(scan) = namespace.last_scan else { continue };
            coverage.scanned += 1;
            coverage.found += u64::from(scan.found);
            if coverage.oldest.is_none_or(|oldest| (scan.began_at, scan.netns) < (oldest.began_at, oldest.netns)) {
                coverage.oldest = Some(scan);
            }
        }
        coverage
    }

    /// Once a second: rates, history, and the end of rows that have been empty for long.
    pub fn tick(&mut self, now: Duration) {
        self.settle_ports(now);
        self.end_old_minisocks();
        self.settle_old_given_up();
        self.answer_questions();
        let elapsed = now.saturating_sub(self.previous.at);
        self.previous.at = now;
        self.diagnosis.failures.tick(elapsed);
        for member in self.diagnosis.failures.members() {
            self.ledger.keep_member(member, now);
        }
        self.ledger.tick(elapsed, now);
        let events = self.quality.events_total - self.previous.events;
        self.previous.events = self.quality.events_total;
        self.quality.events_per_second = super::endpoint::rate(events, elapsed);
        self.quality.own = self.own_cost(events, elapsed);
        self.sample_limits();
    }

    /// Time of the last tick, with which rates and histories go on.
    #[must_use]
    pub(crate) const fn ticked_at(&self) -> Duration {
        self.previous.at
    }

    /// What `observer` used between the last two readings of the host, which come with the ticks.
    #[expect(clippy::cast_precision_loss, reason = "a cost for people: 53 bits are plenty")]
    fn own_cost(&mut self, events: u64, elapsed: Duration) -> Option<OwnCost> {
        let own = self.readings.host.own?;
        let cpu = own.cpu.checked_sub(self.previous.cpu.replace(own.cpu)?)?.as_secs_f64();
        Some(OwnCost {
            cpu: if elapsed.is_zero() { 0.0 } else { cpu / elapsed.as_secs_f64() },
            ns_per_event: (events >= ENOUGH_EVENTS).then(|| cpu * 1e9 / events as f64),
            resident: own.resident,
        })
    }
}
