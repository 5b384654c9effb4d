//! The state of the host's sockets: pure, with no clock and no IO. Events and readings go in, snapshots come out.
//!
//! The address of its `struct sock` identifies a socket. The model keeps the four-tuple of its first event, because the
//! kernel clears the port before it reports the close. Scans repair what hooks miss (`reconcile`).
//!
//! **From event to number**: [`Model::apply`] changes a socket, `ledger` brings its contribution to all totals,
//! `report` makes the snapshot of these totals.
//!
//! **Invariant**: nothing here names `std::fs`, `Instant::now`, `tokio`, `ratatui` or `aya`; time is an argument.

pub mod address;
pub mod alarm;
mod bind_before_connect;
mod bound;
mod calls;
pub mod capability;
mod contribution;
pub mod cost;
pub mod device;
mod diagnose;
mod direction;
mod endpoint;
pub mod event;
pub mod failure;
mod fd_scan;
pub mod filter;
pub mod finding;
mod flow;
pub mod gaps;
pub mod headroom;
pub mod history;
pub mod hits;
pub mod hook;
mod index;
mod ledger;
mod life;
pub mod limit;
mod listen_drops;
mod listener;
pub mod member;
mod minisock_ends;
mod minisocks;
pub mod name;
pub mod namespace;
mod owner;
pub mod port_owner;
mod port_table;
mod port_use;
mod ports;
pub mod quality;
pub mod query;
pub mod reading;
mod reconcile;
mod refusals;
mod report;
mod row_members;
pub mod service;
mod services;
pub mod snapshot;
mod socket;
mod stuck;
pub mod units;

use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use self::{
    address::{Direction, Local},
    alarm::Alarm,
    bind_before_connect::BindBeforeConnect,
    bound::BoundTable,
    calls::GivenUpTable,
    cost::Cost,
    event::{Binding, Event, Identity},
    failure::FailureTable,
    gaps::{Gaps, ProcessScope},
    ledger::Ledger,
    limit::Trends,
    listener::ListenerTable,
    minisocks::MinisockTable,
    namespace::Namespace,
    owner::FdScan,
    port_owner::Questions,
    ports::ReuseQueue,
    quality::{HookStatus, Losses, Quality, StreamLoss},
    reading::Host,
    reconcile::RunningScan,
    service::CgroupId,
    socket::{SocketTable, key_of},
    stuck::Stuck,
    units::{NetnsId, Process, SocketId, TcpState},
};
pub use self::{endpoint::PORT_NUMBERS, owner::Unlike, reconcile::KnownSockets};

/// What the model needs to know about its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The kernel's `CLOCK_MONOTONIC`, outside all time namespaces, at the model's time 0. `None` if unknown.
    pub started_at: Option<Duration>,
    /// Whether the BPF programs can read bind buckets. Without them the model does not know which ports are blocked.
    pub reads_buckets: bool,
    /// Whose open files an fd scan shows.
    pub processes: ProcessScope,
    /// Whether the kernel frees a bind bucket with its last explicit socket (Linux 6.18 and later). Older kernels free
    /// it with its last socket of any kind.
    pub frees_buckets: bool,
}

/// The state of all sockets. Its owner applies inputs to it and takes snapshots.
#[derive(Default)]
pub struct Model {
    basis: Basis,
    sockets: SocketTable,
    minisocks: MinisockTable,
    minisock_ends: minisock_ends::MinisockEnds,
    listeners: ListenerTable,
    bound: BoundTable,
    ledger: Ledger,
    /// The owners of a socket beside its first one.
    co_owners: FxHashMap<SocketId, Vec<Process>>,
    fd_scan: FdScan,
    reuse_queue: ReuseQueue,
    readings: Readings,
    diagnosis: Diagnosis,
    quality: Quality,
    /// The current scan number: a scan or an event stamps it on each socket that it sees.
    generation: u32,
    /// The running scan.
    scanning: Option<RunningScan>,
    /// Namespaces that should be scanned soon: few ports are left towards some destination, or a question is open.
    wanted_scans: FxHashSet<NetnsId>,
    /// Time of the last comparison of ports across devices.
    shared_at: Option<Duration>,
    /// Time since start of the last input.
    now: Duration,
    previous: Previous,
}

/// Readings of the host and its network namespaces.
#[derive(Default)]
struct Readings {
    host: Host,
    namespaces: FxHashMap<NetnsId, Namespace>,
    /// A namespace came, ended or has another name since [`Namespace::is_ambiguous`] was found.
    have_new_names: bool,
    /// Namespaces that events or open files named, and that the engine has not read yet.
    unread: FxHashSet<NetnsId>,
    /// Devices that sockets are bound to, and that the engine has not read yet.
    unread_devices: FxHashSet<(NetnsId, u32)>,
}

/// What limits and findings need beyond totals and readings.
#[derive(Default)]
struct Diagnosis {
    failures: FailureTable,
    given_up: GivenUpTable,
    questions: Questions,
    bind_before_connect: BindBeforeConnect,
    stuck: Stuck,
    trends: Trends,
    /// At the last tick.
    alarms: Vec<Alarm>,
}

/// Values at the last tick. Rates are differences from them.
#[derive(Default)]
struct Previous {
    at: Duration,
    events: u64,
    cpu: Option<Duration>,
}

impl Model {
    /// An empty model. `hooks` are its sources.
    #[must_use]
    pub fn new(hooks: Vec<HookStatus>, basis: Basis) -> Self {
        let gaps = Gaps::default().within(basis.processes);
        let quality = Quality { hooks, processes: basis.processes, gaps, ..Quality::default() };
        Self { basis, quality, ledger: Ledger::new(basis.frees_buckets), ..Self::default() }
    }

    /// What the next events are about: see [`SocketTable::look_ahead`].
    pub(crate) fn look_ahead(&self, sockets: impl Iterator<Item = SocketId>) {
        self.sockets.look_ahead(sockets);
    }

    /// Applies one event. `now` is time since start and never goes back.
    pub fn apply(&mut self, event: &Event, now: Duration) {
        self.now = now;
        self.quality.events_total += u64::from(event.netns_of_change().is_some());
        // By reference: an event is large, and most of it is rarely needed.
        match event {
            Event::State { socket, at, old, new, by, orphan, unsent, own_range, binding, timestamps } => {
                self.settle_given_up(socket.id);
                let given_up =
                    if *unsent && let Some(by) = by { self.before_giving_up(socket, *own_range, by) } else { None };
                let is_explicit = binding.keeps_port() == Some(true);
                // Bound by name, a socket keeps its port beyond the end of its connection.
                if *new == TcpState::Closed && is_explicit {
                    self.stay_bound(socket, *by);
                } else {
                    self.unbind(socket.id);
                }
                match (old, new) {
                    (TcpState::FinWait2 | TcpState::Closing, TcpState::Closed) => {
                        self.leave_minisock(socket.id, *old, *orphan, *at, *timestamps);
                    }
                    (TcpState::LastAck, TcpState::Closed) => self.end_peers_wait(socket.id, *at),
                    _ => {}
                }
                self.on_state(socket, *old, *new, by.as_ref());
                if is_explicit && let Some(index) = self.sockets.find(socket.id) {
                    self.set_explicit(index, true);
                }
                if *orphan {
                    self.set_orphan(socket.id);
                }
                if let Some(given_up) = given_up {
                    self.note_given_up(socket.id, &given_up);
                }
            }
            // With data in the SYN (TCP Fast Open) accept() comes before the end of the handshake, and so before the
            // state hook's first event of the socket.
            Event::Accepted { socket, state: TcpState::SynReceived, by } if self.was_scanned(socket.netns) => {
                let known = self.find(socket);
                let insert = || self.insert(socket, TcpState::SynReceived, Direction::Inbound, None, true);
                let index = known.unwrap_or_else(insert);
                self.set_explicit(index, true);
                self.accepted(index, *by);
            }
            // These do not come from under the socket's lock: they may follow its end, and only name its owner.
            Event::Connecting { socket, by } | Event::Accepted { socket, by, .. } => {
                if let Some(index) = self.find(socket) {
                    self.learn_port(index, socket.tuple.local_port);
                    self.sockets.get_mut(index).generation = self.generation;
                    self.accepted(index, *by);
                }
            }
            Event::Destroyed { id, .. } => {
                self.settle_given_up(*id);
                self.unbind(*id);
                self.remove_listener(*id);
                self.remove_socket(*id);
            }
            Event::Scanned { socket, state, binding, orphan } => {
                self.on_scanned(socket, *state, *binding);
                if *orphan {
                    self.set_orphan(socket.id);
                }
            }
            Event::CallFailed { netns, call, by, cgroup, refused } => {
                self.note_namespace(*netns);
                self.on_call_failed((*netns, call, *by, *cgroup), *refused);
            }
            // For those who look for its owners in /proc.
            Event::Inode { .. } => {}
            Event::Queues { id, netns, queues } => self.note_queues(*id, *netns, *queues),
            Event::Held { id, netns, by, state, bound, cgroup, .. } => {
                self.on_held((*id, *netns, *state), *by, *bound, *cgroup);
            }
        }
    }

    /// Notes that a process owns a descriptor of a socket. The socket may be bound and neither listen nor be connected.
    fn on_held(
        &mut self,
        (id, netns, state): (SocketId, NetnsId, Option<TcpState>),
        by: Process,
        bound: Option<Local>,
        cgroup: Option<CgroupId>,
    ) {
        self.note_namespace(netns);
        let index = self.on_fd_owner(id, by);
        if let Some(state) = state.filter(|state| !matches!(state, TcpState::Listen | TcpState::Closed)) {
            self.compare_shown(netns, index, state);
        }
        // Looked at without its lock: what events say of it is newer.
        if let Some(local) = bound
            && self.sockets.find(id).is_none()
            && self.listeners.get_mut(id).is_none()
        {
            let member = self.member_of_cgroup(cgroup);
            self.bind((id, netns, local), Some(by), member);
        }
    }

    /// Resets totals and peaks to the present values. Losses stay.
    pub fn restart_totals(&mut self, now: Duration) {
        self.ledger.restart(self.len(), now);
    }

    /// Stores a reading of the host.
    pub fn set_host(&mut self, host: Host) {
        if let Some(files) = host.files {
            self.diagnosis.failures.note_files(files, self.now);
        }
        self.readings.host = host;
        self.ask_for_services_of_processes();
        for files in self.readings.host.processes.clone() {
            self.learn_name(files.process);
        }
    }

    /// Stores the losses since start, which only grow. Returns whether there are new ones.
    pub fn set_losses(&mut self, losses: Losses, now: Duration) -> bool {
        let is_new = losses.total() > self.quality.losses.total();
        if is_new {
            self.quality.last_loss_at = Some(now);
        }
        self.quality.losses = losses;
        is_new
    }

    /// Stores what the engine could not read, and the rounds that it skipped.
    pub fn set_gaps(&mut self, gaps: Gaps, now: Duration) {
        if gaps.skipped.rounds > self.quality.gaps.skipped.rounds {
            self.quality.last_skip_at = Some(now);
        }
        self.quality.given_capabilities |= gaps.capabilities;
        self.quality.gaps = gaps.within(self.basis.processes);
    }

    /// Stores what observer costs. Hooks that are resumed have missed what happened before: the next scans correct it.
    pub fn set_cost(&mut self, cost: Cost, now: Duration) {
        let before = self.quality.cost.replace(cost);
        if before.is_some_and(|before| before.is_suspended) && !cost.is_suspended {
            self.quality.last_loss_at = Some(now);
        }
    }

    /// Sockets that scans had to add, remove or change since the first scan.
    #[must_use]
    pub const fn drift(&self) -> u64 {
        self.quality.drift.total()
    }

    /// A stream lost inputs on its way here. Its next inputs are readings and a round of scans, which correct what the loss
    /// left wrong; namespaces that have ended in between are not among them.
    pub fn note_stream_loss(&mut self, loss: &StreamLoss, now: Duration) {
        self.now = now;
        self.abandon_scan();
        self.quality.stream_lost += loss.inputs;
        self.quality.last_loss_at = Some(now);
        let ended = self.namespace_readings().map(|(netns, _)| netns).filter(|netns| !loss.namespaces.contains(netns));
        for netns in ended.collect::<Vec<_>>() {
            self.forget_namespace(netns);
        }
    }

    /// The last reading of the host, if there was one.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        Some(&self.readings.host).filter(|host| !host.kernel.is_empty())
    }

    /// Losses since start.
    #[must_use]
    pub const fn losses(&self) -> Losses {
        self.quality.losses
    }

    /// What the engine could not read.
    #[must_use]
    pub const fn gaps(&self) -> &Gaps {
        &self.quality.gaps
    }

    /// What observer costs; `None` where nothing limits that.
    pub(crate) const fn cost(&self) -> Option<Cost> {
        self.quality.cost
    }

    /// Events since start.
    #[must_use]
    pub const fn events_total(&self) -> u64 {
        self.quality.events_total
    }

    /// One that needs nothing else.
    pub(crate) const fn note_event(&mut self) {
        self.quality.events_total += 1;
    }

    /// Whether the model knows no socket that keeps the namespace alive. TIME_WAIT and request sockets do not.
    #[must_use]
    pub fn is_empty(&self, netns: NetnsId) -> bool {
        let mut rows = self.ledger.endpoints().iter().filter(|(_, row)| row.key.netns == netns);
        rows.all(|(_, row)| row.listeners == 0 && row.states.sum() == 0)
    }

    fn on_state(&mut self, socket: &Identity, old: TcpState, new: TcpState, by: Option<&Process>) {
        match (old, new) {
            (_, TcpState::Listen) => self.add_listener(socket, by.copied()),
            (TcpState::Listen, _) => self.remove_listener(socket.id),
            (_, TcpState::Closed) => {
                // connect() has found no port, or has failed before it looked for one.
                if old == TcpState::SynSent && socket.tuple.local_port == 0 {
                    self.wanted_scans.insert(socket.netns);
                }
                self.remove_socket(socket.id);
            }
            // connect(), or its success as well. If the socket is known, the end of its last connection was missed.
            (TcpState::Closed, TcpState::SynSent | TcpState::Established) => {
                self.remove_socket(socket.id);
                let index = self.insert(socket, new, Direction::Outbound, by, false);
                if new.is_past_handshake() {
                    self.count_opened(index);
                }
            }
            (_, TcpState::SynSent) => {
                let index = self.upsert(socket, new, Direction::Outbound, false);
                if let Some(by) = by {
                    self.set_owner(index, *by);
                }
            }
            _ if self.update(socket, new).is_some() => {}
            // A passive open: its first event. Without a listener it may as well be the end of a simultaneous open, or
            // of a connect to oneself, whose beginning was lost.
            (TcpState::SynReceived, TcpState::Established) => self.open_inbound(socket, by),
            // The first event of this socket was missed. Before the first scan that is no loss: the scan will show the
            // socket, with what shows its direction.
            _ if !self.was_scanned(socket.netns) => {}
            _ => {
                let direction = self.direction_of(socket, Binding::default());
                let index = self.upsert(socket, new, direction, false);
                self.sockets.get_mut(index).is_guess = true;
            }
        }
    }

    /// Full sockets that are connected or connecting.
    pub(crate) fn len(&self) -> u32 {
        index::narrow(self.sockets.len())
    }
}

#[cfg(test)]
mod tests;
