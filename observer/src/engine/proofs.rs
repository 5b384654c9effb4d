//! Scans without a walk. `iter/tcp` walks the host's whole hash table for each namespace. One fd scan shows the full TCP sockets
//! of all namespaces that a file leads to, with their states. Where the kernel's own counts prove that a namespace has no others,
//! it needs no walk.
//!
//! The counts come first, then the fd scan. Of the namespace there is no event in between, and no record is lost:
//! - `inuse` counts each full TCP socket in the kernel's tables, orphans and those that no file leads to among them
//!   (`sock_prot_inuse_add` in `inet_ehash_nolisten`, `__inet_hash` and `inet_unhash`). It is the number of sockets shown. A
//!   socket in CLOSE is in no table: `tcp_set_state` takes it out.
//! - `tw` counts each TIME_WAIT socket, and each FIN_WAIT2 one without a full socket. It is 0.
//! - Nothing counts request sockets but the SYN queue of their listener (`icsk_accept_queue.qlen`). Each is 0.
//! - Request sockets of a listener that was closed live on until their timer ends. Each keeps its listener allocated: there is
//!   none if the namespace's sockets (`used`) are no more than the sockets shown, if no listener was closed for that long, or if
//!   none was closed since a walk that showed no request socket.
//!
//! If nothing but listeners was shown, what the fd scan shows is the namespace's scan: it shows their addresses and bind buckets.
//!
//! Of other sockets it shows the state alone. If they are those that the model knows, each in the state that it knows, and the
//! model knows no more, nothing was added, removed or changed since the last walk, and the last scan is as new as the fd scan. Only
//! a walk shows bind buckets and devices, which change without an event: walks go on at the share of namespaces in which nothing
//! happens. Another connection in the same state under the address of one that ended needs two events that were lost without
//! being counted: after a loss that was counted, and after hooks were suspended, a walk comes first.
//!
//! All else is walked, and soon where the counts or the states differ from the model's.

use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Engine,
    schedule::{Extent, Stopwatch, WORTH_AN_FD_SCAN},
};
use crate::{
    errno::Refusal,
    host::netns::Totals,
    input::Input,
    model::{
        KnownSockets,
        event::{Event, Found},
        quality::Hook,
        units::{NetnsId, SocketId, TcpState},
    },
};

/// The longest time that the timer of a request socket runs (`TCP_RTO_MAX` of include/net/tcp.h), and a little more.
const REQUEST_TIMER: Duration = Duration::from_secs(125);

/// Namespaces that are read for the first time in one round, at most: the ring has to be read in between.
const NEW_IN_A_ROUND: usize = 100;

/// Where more sockets are than this, to walk the table takes little beside showing them: memory is saved.
const MOST_SOCKETS: u64 = 10_000;

/// Looks at the counts of a namespace for a moment of which every event has come.
const TRIES: u32 = 3;

/// What proofs rest on.
pub(super) struct Proofs {
    /// Since when no end of a listener can have been missed.
    complete_since: Instant,
    /// When a listener of the namespace ended last.
    ended: FxHashMap<NetnsId, Instant>,
    /// Namespaces that the fd scan under way is about.
    candidates: FxHashMap<NetnsId, Candidate>,
}

/// A namespace to be proven.
struct Candidate {
    totals: Totals,
    /// Events so far, before the totals were read.
    events: u64,
    listeners: FxHashMap<SocketId, Shown>,
    /// The state of each other socket in the kernel's tables that the fd scan has shown.
    others: FxHashMap<SocketId, TcpState>,
}

/// The records of a listener.
#[derive(Default)]
struct Shown {
    listener: Vec<u8>,
    queues: Vec<u8>,
    /// Handshakes in progress; `None` where this kernel does not show them.
    syn_queue: Option<u32>,
}

/// What the counts of a namespace and an fd scan say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing but the listeners that were shown is there.
    OnlyListeners,
    /// The sockets that the model knows are there, and nothing else.
    Unchanged,
    /// The model is wrong.
    Differs,
    /// Something is there that the fd scan does not show.
    Inconclusive,
}

/// What a round of proofs did.
#[derive(Default)]
pub(super) struct Proven {
    pub(super) namespaces: Vec<NetnsId>,
    /// Sockets that it found.
    pub(super) found: u32,
}

impl Candidate {
    /// `is_rid_of_requests`: no listener was closed for as long as request sockets last. `known_state` is the model's of a socket that
    /// is no listener.
    fn judge(
        &self,
        is_rid_of_requests: bool,
        known: KnownSockets,
        known_state: impl Fn(SocketId) -> Option<TcpState>,
    ) -> Verdict {
        let Totals { hashed, time_wait, allocated, .. } = self.totals;
        let (listeners, others) = (self.listeners.len() as u64, self.others.len() as u64);
        let shown = listeners + others;
        let is_idle = self.listeners.values().all(|shown| !shown.listener.is_empty() && shown.syn_queue == Some(0));
        let is_all = hashed == shown && time_wait == 0 && is_idle;
        let is_rid_of_requests = allocated == shown || is_rid_of_requests;
        if is_all && others == 0 && is_rid_of_requests {
            return Verdict::OnlyListeners;
        }
        let full = [known.listeners, known.others].map(u64::from);
        let is_other = |(id, state): (&SocketId, &TcpState)| known_state(*id) != Some(*state);
        if hashed != full[0] + full[1] || self.others.iter().any(is_other) {
            return Verdict::Differs;
        }
        let is_unchanged = is_all && full == [listeners, others] && (is_rid_of_requests || known.requests == 0);
        if is_unchanged { Verdict::Unchanged } else { Verdict::Inconclusive }
    }
}

impl Proofs {
    pub(super) fn new(now: Instant) -> Self {
        Self { complete_since: now, ended: FxHashMap::default(), candidates: FxHashMap::default() }
    }

    /// Takes note of an event and its record.
    pub(super) fn note(&mut self, record: &[u8], event: &Event) {
        match event {
            Event::State { socket, old: TcpState::Listen, .. } => {
                self.ended.insert(socket.netns, Instant::now());
            }
            Event::Scanned { socket, state: Found::Full(TcpState::Listen), .. } => {
                if let Some(candidate) = self.candidates.get_mut(&socket.netns) {
                    record.clone_into(&mut candidate.listeners.entry(socket.id).or_default().listener);
                }
            }
            Event::Queues { id, netns, queues } => {
                if let Some(candidate) = self.candidates.get_mut(netns) {
                    let shown = candidate.listeners.entry(*id).or_default();
                    record.clone_into(&mut shown.queues);
                    // A listener may be shown several times.
                    shown.syn_queue = Some(queues.syn.max(shown.syn_queue.unwrap_or(0)));
                }
            }
            Event::Held { id, netns, state: Some(state), .. }
                if !matches!(state, TcpState::Listen | TcpState::Closed) =>
            {
                if let Some(candidate) = self.candidates.get_mut(netns) {
                    candidate.others.insert(*id, *state);
                }
            }
            _ => {}
        }
    }

    /// Records were lost, or not written: an end of a listener may be among them.
    pub(super) fn note_loss(&mut self) {
        self.complete_since = Instant::now();
    }

    fn is_rid_of_requests(&self, netns: NetnsId, now: Instant) -> bool {
        let since = self.ended.get(&netns).map_or(self.complete_since, |ended| self.complete_since.max(*ended));
        now.saturating_duration_since(since) >= REQUEST_TIMER
    }

    fn forget_old_ends(&mut self, now: Instant) {
        self.ended.retain(|_, ended| now.saturating_duration_since(*ended) < REQUEST_TIMER);
    }
}

impl Engine {
    /// Of these namespaces those of which counts may prove that nothing but listeners is there.
    pub(super) fn provable(&self, namespaces: &[NetnsId], extent: Extent) -> Vec<NetnsId> {
        // In a whole round another fd scan follows the walks, whose owners it shows.
        let least = if extent == Extent::Whole { WORTH_AN_FD_SCAN } else { 1 };
        if !self.live.has(Hook::FdOwners) || namespaces.len() < least {
            return Vec::new();
        }
        // Where only TIME_WAIT and request sockets were, none may be left by now.
        let known = self.feed.model().known_sockets();
        let is_busy = |netns: &NetnsId| known.get(netns).is_some_and(|known| known.others > 0);
        let most_new = if extent == Extent::Due { NEW_IN_A_ROUND } else { usize::MAX };
        let mut new = 0;
        let mut may_be = |netns: &NetnsId| {
            new += usize::from(self.schedule.is_unread(*netns));
            new <= most_new && !is_busy(netns)
        };
        let provable: Vec<NetnsId> = namespaces.iter().copied().filter(|netns| may_be(netns)).collect();
        if provable.len() < least { Vec::new() } else { provable }
    }

    /// These, and the namespaces that wait for a walk for long.
    pub(super) fn with_old(&mut self, provable: &[NetnsId], extent: Extent) -> Vec<NetnsId> {
        let mut all = provable.to_vec();
        if extent == Extent::Due {
            let known: FxHashSet<NetnsId> = provable.iter().copied().collect();
            all.extend(self.schedule.due_counts(Instant::now()).into_iter().filter(|netns| !known.contains(netns)));
        }
        all
    }

    /// Scans all open files, and with them those of these namespaces of which the kernel's counts prove that nothing else is
    /// there. Returns the namespaces that need no walk. Counts that prove nothing are paid for too: they are read again later.
    pub(super) fn scan_files_for(&mut self, namespaces: &[NetnsId]) -> Result<Proven, Refusal> {
        let work = Stopwatch::start();
        let lost_before = self.count_losses();
        self.choose_candidates(namespaces);
        let cpu = work.cpu();
        let scanned = self.scan_files_in_turn();
        let candidates = std::mem::take(&mut self.proofs.candidates);
        if !matches!(scanned, Ok(true)) || self.count_losses() != lost_before {
            self.schedule.pay_for_tables(cpu);
            return scanned.map(|_| Proven::default());
        }
        self.proofs.forget_old_ends(Instant::now());
        let share = cpu / u32::try_from(namespaces.len()).unwrap_or(u32::MAX).max(1);
        let mut proven = Proven::default();
        let turns = Stopwatch::start();
        let mut paid = Duration::ZERO;
        let known = self.feed.model().known_sockets();
        for (netns, candidate) in candidates {
            if candidate.events == self.schedule.events_of(netns) {
                let known = known.get(&netns).copied().unwrap_or_default();
                paid += self.conclude(netns, &candidate, known, share, &mut proven);
            }
        }
        self.schedule.pay_for_tables((cpu + turns.cpu()).saturating_sub(paid));
        Ok(proven)
    }

    /// Acts on what the counts of a namespace and the fd scan say. Returns what its own turn has paid of the work.
    fn conclude(
        &mut self,
        netns: NetnsId,
        candidate: &Candidate,
        known: KnownSockets,
        share: Duration,
        proven: &mut Proven,
    ) -> Duration {
        let (turn, now) = (Stopwatch::start(), Instant::now());
        let model = self.feed.model();
        let is_rid_of_requests = self.proofs.is_rid_of_requests(netns, now);
        match candidate.judge(is_rid_of_requests, known, |id| model.state_in(netns, id)) {
            Verdict::OnlyListeners => {
                self.schedule.begin_table(netns);
                proven.found += self.show_listeners(netns, candidate);
                let cpu = share + turn.cpu();
                self.schedule.end_table(netns, Instant::now(), cpu);
                proven.namespaces.push(netns);
                return cpu;
            }
            Verdict::Unchanged if self.schedule.note_unchanged(netns, self.proofs.complete_since) => {
                self.feed.take(Input::Unchanged(netns));
                self.finished_scans += 1;
                proven.found += known.listeners + known.others;
            }
            // Events of one in which something happens may be under way, and its turn comes soon.
            Verdict::Differs if self.schedule.can_wait(netns) => self.schedule.ask_for(netns),
            Verdict::Unchanged | Verdict::Differs | Verdict::Inconclusive => {}
        }
        Duration::ZERO
    }

    /// Reads the counts of these namespaces: those without TIME_WAIT sockets are candidates.
    fn choose_candidates(&mut self, namespaces: &[NetnsId]) {
        self.drain();
        let now = Instant::now();
        let mut events: FxHashMap<NetnsId, u64> = FxHashMap::default();
        for netns in namespaces {
            self.schedule.begin_count(*netns, now);
            events.insert(*netns, self.schedule.events_of(*netns));
        }
        let totals = self.namespaces.totals_of_each(namespaces);
        self.proofs.candidates.clear();
        for (netns, totals) in totals {
            // One that was replaced, or cannot be read, is left to a walk, which says so.
            let Ok(totals) = totals else { continue };
            let is_small = totals.time_wait == 0 && totals.hashed <= MOST_SOCKETS;
            if is_small && self.namespaces.is_same(netns, totals.identity) {
                let events = events.get(&netns).copied().unwrap_or(0);
                let (listeners, others) = (FxHashMap::default(), FxHashMap::default());
                self.proofs.candidates.insert(netns, Candidate { totals, events, listeners, others });
            }
        }
    }

    /// What the fd scan has shown of this namespace, as its scan. Returns how many sockets that were.
    fn show_listeners(&mut self, netns: NetnsId, candidate: &Candidate) -> u32 {
        self.feed.take(Input::BeginScan(netns));
        for shown in candidate.listeners.values() {
            self.feed.take(Input::Record(&shown.listener));
            self.feed.take(Input::Record(&shown.queues));
        }
        self.feed.take(Input::EndScan);
        self.finished_scans += 1;
        u32::try_from(candidate.listeners.len()).unwrap_or(u32::MAX)
    }

    /// Whether the kernel counts as many full sockets in a namespace as the model knows there, at a moment of which every event has
    /// come. After few missed runs that says soon whose they were. They may also have changed a state and no number, or begun one
    /// socket and ended another: the next event of that socket corrects that, or the next regular scan.
    pub(super) fn counts_agree(&mut self, netns: NetnsId) -> bool {
        for _ in 0..TRIES {
            self.drain();
            let events = self.schedule.events_of(netns);
            let Ok(totals) = self.namespaces.totals(netns) else { return false };
            self.drain();
            if self.schedule.events_of(netns) == events {
                let known = self.feed.model().known_sockets_of(netns);
                let is_alike = totals.hashed == u64::from(known.listeners) + u64::from(known.others);
                if is_alike && self.namespaces.is_same(netns, totals.identity) {
                    return true;
                }
            }
        }
        false
    }

    /// Everything that was lost so far.
    fn count_losses(&mut self) -> u64 {
        self.read_missed();
        self.take_losses();
        self.losses.total()
    }

    /// Scans all open files, and accounts for it. Returns whether the scan has shown all.
    pub(super) fn scan_files_in_turn(&mut self) -> Result<bool, Refusal> {
        if !self.live.has(Hook::FdOwners) {
            return Ok(false);
        }
        let pass = Stopwatch::start();
        self.schedule.begin_files();
        let scanned = self.scan_open_files();
        self.schedule.end_files(Instant::now(), pass.cpu());
        // What the kernel refused it would refuse again. Without a refusal the end of its records came too late.
        if scanned.as_ref().is_err_and(|refusal| refusal.errno.is_none()) {
            self.schedule.ask_for_files();
        }
        scanned
    }
}

#[cfg(test)]
mod tests;
