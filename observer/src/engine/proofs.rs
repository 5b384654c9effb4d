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
//! - Request sockets of a listener that was closed live on until their timer ends. The state hook says whether its SYN queue was
//!   empty then (a SYN that another CPU handles at that very moment may be missed). Each keeps its listener allocated: there is
//!   none if the namespace's sockets (`used`) are no more than the full TCP sockets, if no listener left any for that long, or if
//!   none did since a walk that showed no request socket.
//!
//! If nothing but listeners was shown, what the fd scan shows is the namespace's scan: it shows their addresses and bind buckets.
//!
//! Of other sockets it shows the state alone. If each that is shown is known, in its state, and each that is known is shown, nothing
//! was added, removed or changed since the last walk, and the last scan is as new as the fd scan. Only a walk shows bind buckets and
//! devices, which change without an event: walks go on at the share of namespaces in which nothing happens.
//!
//! Where something happens, a regular walk follows within its budget. Among very many sockets an fd scan stands in for it, for a few
//! minutes: to read a million sockets and a million files takes twice as long as the files alone. There it is enough that the full
//! sockets are right: at a moment of which every event has come, `inuse` is what the model knows; the fd scan shows no other socket or
//! state; it misses none that a process was known to own, and few others. A socket that an event touches meanwhile is as that event has it.
//! TIME_WAIT and request sockets wait for the walk, and the last scan is not said to be newer than it is. Where walks come rarely, the same is
//! looked at between them.
//!
//! Another connection in the same state under the address of one that ended needs two events that were lost without being
//! counted: after a loss that was counted, and after hooks were suspended, a walk comes first.
//!
//! All else is walked, and soon where the counts or the states differ from the model's.

mod candidate;

use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

pub(super) use self::candidate::Candidate;
use self::candidate::{Role, Verdict};
use super::{
    Engine,
    schedule::{Extent, Payer, SLICE, Stopwatch, WORTH_AN_FD_SCAN},
};
use crate::{
    decode,
    errno::Refusal,
    input::Input,
    model::{
        Unlike,
        event::{Event, Found},
        quality::Hook,
        units::{NetnsId, TcpState},
    },
};

/// The longest time that the timer of a request socket runs (`TCP_RTO_MAX` of include/net/tcp.h), and a little more.
const REQUEST_TIMER: Duration = Duration::from_secs(125);

/// Namespaces that are read for the first time in one round, at most: the ring has to be read in between.
const NEW_IN_A_ROUND: usize = 100;

/// Looks at the counts of a namespace for a moment of which every event has come.
const TRIES: u32 = 3;

/// What proofs rest on.
pub(super) struct Proofs {
    /// Since when no end of a listener can have been missed.
    complete_since: Instant,
    /// When a listener of the namespace ended last that may have left request sockets.
    ended: FxHashMap<NetnsId, Instant>,
    /// Namespaces that the fd scan under way is about.
    candidates: FxHashMap<NetnsId, Candidate>,
}

/// Namespaces to be looked at with one fd scan, by their [`Role`].
#[derive(Default)]
pub(super) struct ToCount {
    quiet: Vec<NetnsId>,
    in_place_of_walk: FxHashSet<NetnsId>,
    between_walks: Vec<NetnsId>,
}

impl ToCount {
    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = NetnsId> {
        self.quiet.iter().chain(&self.in_place_of_walk).chain(&self.between_walks).copied()
    }
}

/// What a round of proofs did.
#[derive(Default)]
pub(super) struct Proven {
    pub(super) namespaces: Vec<NetnsId>,
    /// Sockets that it found.
    pub(super) found: u32,
}

impl Proofs {
    pub(super) fn new(now: Instant) -> Self {
        Self { complete_since: now, ended: FxHashMap::default(), candidates: FxHashMap::default() }
    }

    /// Takes note of an event and its record.
    pub(super) fn note(&mut self, record: &[u8], event: &Event) {
        match event {
            Event::State { socket, old: TcpState::Listen, .. } if decode::leaves_requests(record) => {
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
            Event::Held { netns, state: Some(state), .. } if !matches!(state, TcpState::Listen | TcpState::Closed) => {
                if let Some(candidate) = self.candidates.get_mut(netns) {
                    candidate.has_others = true;
                }
            }
            _ => {}
        }
    }

    /// Records were lost, or not written: an end of a listener may be among them.
    pub(super) fn note_loss(&mut self) {
        self.complete_since = Instant::now();
    }

    /// Whether closed listeners of this namespace have no request socket left; `is_without`: the model knows none at all there.
    fn is_rid_of_requests(&self, netns: NetnsId, is_without: bool, walked_at: Option<Instant>, now: Instant) -> bool {
        let since = self.ended.get(&netns).map_or(self.complete_since, |ended| self.complete_since.max(*ended));
        let has_shown_all = is_without && walked_at.is_some_and(|walked_at| walked_at >= since);
        has_shown_all || now.saturating_duration_since(since) >= REQUEST_TIMER
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
        // Where only TIME_WAIT and request sockets were, none may be left by now, unless something happens there.
        let known = self.feed.model().known_sockets();
        let is_busy = |netns: &NetnsId| {
            known.get(netns).is_some_and(|it| it.others > 0 || it.time_wait > 0 && !self.schedule.can_wait(*netns))
        };
        let most_new = if extent == Extent::Due { NEW_IN_A_ROUND } else { usize::MAX };
        let mut new = 0;
        let mut may_be = |netns: &NetnsId| {
            new += usize::from(self.schedule.is_unread(*netns));
            new <= most_new && !is_busy(netns)
        };
        let provable: Vec<NetnsId> = namespaces.iter().copied().filter(|netns| may_be(netns)).collect();
        if provable.len() < least { Vec::new() } else { provable }
    }

    /// Of these namespaces, whose walks are due, the ones with so many sockets that an fd scan may stand in for the walk.
    pub(super) fn spareable(&self, namespaces: &[NetnsId], extent: Extent) -> FxHashSet<NetnsId> {
        let model = self.feed.model();
        if extent == Extent::Whole || !self.live.has(Hook::FdOwners) || model.len() <= self.options.many_sockets {
            return FxHashSet::default();
        }
        let (known, now) = (model.known_sockets(), Instant::now());
        let has_many = |netns: &NetnsId| known.get(netns).is_some_and(|known| known.others > self.options.many_sockets);
        namespaces.iter().copied().filter(|netns| has_many(netns) && self.schedule.may_spare(*netns, now)).collect()
    }

    /// These, and the namespaces that wait for a walk for long.
    pub(super) fn with_old(&mut self, provable: &[NetnsId], spareable: FxHashSet<NetnsId>, extent: Extent) -> ToCount {
        let mut to_count = ToCount { quiet: provable.to_vec(), in_place_of_walk: spareable, ..ToCount::default() };
        if extent == Extent::Due {
            let known: FxHashSet<NetnsId> = to_count.all().collect();
            let mut old = self.schedule.due_counts(self.options.count_after, Instant::now());
            old.retain(|netns| !known.contains(netns));
            let (quiet, busy): (Vec<_>, Vec<_>) = old.into_iter().partition(|netns| self.schedule.can_wait(*netns));
            to_count.quiet.extend(quiet);
            to_count.between_walks = busy;
        }
        to_count
    }

    /// Scans all open files, and with them those of these namespaces of which the kernel's counts prove that nothing else is
    /// there. Returns the namespaces that need no walk. Counts that prove nothing are paid for too: they are read again later. An fd
    /// scan that would only stand in for walks is not made if the counts already show that it cannot.
    pub(super) fn scan_files_for(&mut self, to_count: &ToCount, payer: Payer) -> Result<Proven, Refusal> {
        let work = Stopwatch::start();
        let lost_before = self.count_losses();
        self.choose_candidates(to_count);
        let cpu = work.cpu();
        let spares = |candidate: &Candidate| candidate.role == Role::InPlaceOfWalk;
        if payer == Payer::Tables && !self.proofs.candidates.values().any(spares) {
            self.proofs.candidates.clear();
            self.schedule.pay_for_tables(cpu);
            return Ok(Proven::default());
        }
        let scanned = self.scan_files_in_turn(payer);
        let candidates = std::mem::take(&mut self.proofs.candidates);
        if !matches!(scanned, Ok(true)) || self.count_losses() != lost_before {
            self.schedule.pay_for_tables(cpu);
            return scanned.map(|_| Proven::default());
        }
        self.proofs.forget_old_ends(Instant::now());
        let share = cpu / u32::try_from(to_count.all().count()).unwrap_or(u32::MAX).max(1);
        let mut proven = Proven::default();
        let turns = Stopwatch::start();
        let mut paid = Duration::ZERO;
        let unlike = self.feed.model().unlike_shown();
        for (netns, candidate) in candidates {
            let unlike = unlike.get(&netns).copied().unwrap_or_default();
            paid += self.conclude(netns, &candidate, unlike, share, &mut proven);
        }
        self.schedule.pay_for_tables((cpu + turns.cpu()).saturating_sub(paid));
        Ok(proven)
    }

    /// Acts on what the counts of a namespace and the fd scan say. Returns what its own turn has paid of the work.
    fn conclude(
        &mut self,
        netns: NetnsId,
        candidate: &Candidate,
        unlike: Unlike,
        share: Duration,
        proven: &mut Proven,
    ) -> Duration {
        let (turn, now) = (Stopwatch::start(), Instant::now());
        let known = candidate.known;
        let walked_at = self.schedule.walked_at(netns);
        let is_rid_of_requests = self.proofs.is_rid_of_requests(netns, known.requests == 0, walked_at, now);
        let verdict = candidate.judge(is_rid_of_requests, unlike);
        let is_settled = candidate.events == self.schedule.events_of(netns);
        if candidate.role != Role::Quiet && !(verdict == Verdict::OnlyListeners && is_settled) {
            self.conclude_busy(netns, candidate, (verdict, is_settled), proven);
            return Duration::ZERO;
        }
        if !is_settled {
            return Duration::ZERO;
        }
        match verdict {
            Verdict::OnlyListeners => {
                self.schedule.begin_table(netns, now);
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
            Verdict::Unchanged | Verdict::FullUnchanged | Verdict::Differs | Verdict::Inconclusive => {}
        }
        Duration::ZERO
    }

    /// The same of a namespace in which something happens.
    fn conclude_busy(
        &mut self,
        netns: NetnsId,
        candidate: &Candidate,
        (verdict, is_settled): (Verdict, bool),
        proven: &mut Proven,
    ) {
        let (now, since) = (Instant::now(), self.proofs.complete_since);
        let is_right = matches!(verdict, Verdict::Unchanged | Verdict::FullUnchanged);
        match candidate.role {
            Role::InPlaceOfWalk if is_right && self.schedule.spare(netns, now, candidate.events, since) => {
                proven.namespaces.push(netns);
            }
            Role::BetweenWalks if is_right => {}
            Role::BetweenWalks if verdict == Verdict::Differs => return self.schedule.ask_for(netns),
            // Something has begun or ended since.
            Role::BetweenWalks if verdict == Verdict::OnlyListeners => return,
            _ => return self.schedule.note_unprovable(netns, now),
        }
        if verdict == Verdict::Unchanged && is_settled && self.schedule.walked_at(netns).is_some_and(|at| at >= since) {
            self.feed.take(Input::Unchanged(netns));
        }
        self.finished_scans += 1;
        proven.found += candidate.known.listeners + candidate.known.others;
    }

    /// Reads the counts of these namespaces: those without TIME_WAIT sockets are candidates. Where something happens it is those in which
    /// the kernel counts as many full sockets as the model.
    fn choose_candidates(&mut self, to_count: &ToCount) {
        self.drain();
        let began = Instant::now();
        let mut events: FxHashMap<NetnsId, u64> = FxHashMap::default();
        for netns in &to_count.quiet {
            self.schedule.begin_count(*netns, began);
            events.insert(*netns, self.schedule.events_of(*netns));
        }
        let totals = self.namespaces.totals_of_each(&to_count.quiet);
        let known = self.feed.model().known_sockets();
        self.proofs.candidates.clear();
        for (netns, totals) in totals {
            // One that was replaced, or cannot be read, is left to a walk, which says so.
            let Ok(totals) = totals else { continue };
            if totals.time_wait == 0 && self.namespaces.is_same(netns, totals.identity) {
                let events = events.get(&netns).copied().unwrap_or(0);
                let known = known.get(&netns).copied().unwrap_or_default();
                self.proofs.candidates.insert(netns, Candidate::new(totals, known, events));
            }
        }
        let in_place_of_walk = to_count.in_place_of_walk.iter().map(|netns| (*netns, Role::InPlaceOfWalk));
        let between_walks = to_count.between_walks.iter().map(|netns| (*netns, Role::BetweenWalks));
        for (netns, role) in in_place_of_walk.chain(between_walks) {
            // The others are still due then.
            if began.elapsed() > SLICE {
                break;
            }
            self.schedule.begin_count(netns, began);
            if let Some(candidate) = self.counts_agree(netns) {
                self.proofs.candidates.insert(netns, Candidate { role, ..candidate });
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

    /// The counts of a namespace in which the kernel counts as many full sockets as the model knows, at a moment of which every event
    /// has come; `None` if it does not. After few missed runs that says soon whose they were. They may also have changed a state
    /// and no number, or begun one socket and ended another: the next event of that socket corrects that, or the next regular scan.
    pub(super) fn counts_agree(&mut self, netns: NetnsId) -> Option<Candidate> {
        for _ in 0..TRIES {
            self.drain();
            let events = self.schedule.events_of(netns);
            let totals = self.namespaces.totals(netns).ok()?;
            self.drain();
            let candidate = Candidate::new(totals, self.feed.model().known_sockets_of(netns), events);
            let is_settled = self.schedule.events_of(netns) == events;
            if is_settled && candidate.agrees() && self.namespaces.is_same(netns, totals.identity) {
                return Some(candidate);
            }
        }
        None
    }

    /// Everything that was lost so far.
    fn count_losses(&mut self) -> u64 {
        self.read_missed();
        self.take_losses();
        self.losses.total()
    }

    /// Scans all open files, and accounts for it. Returns whether the scan has shown all.
    pub(super) fn scan_files_in_turn(&mut self, payer: Payer) -> Result<bool, Refusal> {
        if !self.live.has(Hook::FdOwners) {
            return Ok(false);
        }
        let pass = Stopwatch::start();
        self.schedule.begin_files(Instant::now());
        let scanned = self.scan_open_files();
        self.schedule.end_files(Instant::now(), pass.cpu(), payer);
        // What the kernel refused it would refuse again. Without a refusal the end of its records came too late.
        if scanned.as_ref().is_err_and(|refusal| refusal.errno.is_none()) {
            self.schedule.ask_for_files();
        }
        scanned
    }
}

#[cfg(test)]
mod tests;
