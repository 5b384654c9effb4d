//! Scans without a walk. `iter/tcp` walks the host's whole hash table for each namespace. Where the kernel's own counts prove
//! that a namespace has no TCP socket but the listeners that an fd scan shows, what the fd scan shows is its scan.
//!
//! The counts come first, then the fd scan. Of the namespace there is no event in between, and no record is lost:
//! - `inuse` counts each full TCP socket in the kernel's tables, orphans and those that no file leads to among them
//!   (`sock_prot_inuse_add` in `inet_ehash_nolisten`, `__inet_hash` and `inet_unhash`). It is the number of listeners shown.
//! - `tw` counts each TIME_WAIT socket, and each FIN_WAIT2 one without a full socket. It is 0.
//! - Nothing counts request sockets but the SYN queue of their listener (`icsk_accept_queue.qlen`). Each is 0.
//! - Request sockets of a listener that was closed live on until their timer ends. Each keeps its listener allocated: there is
//!   none if the namespace's sockets (`used`) are no more than these listeners, or if no listener was closed for that long.
//!
//! All else is walked.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{
    Engine,
    schedule::{Extent, Stopwatch, WORTH_AN_FD_SCAN},
};
use crate::{
    errno::Refusal,
    host::netns::Totals,
    input::Input,
    model::{
        event::{Event, Found},
        quality::Hook,
        units::{NetnsId, SocketId, TcpState},
    },
};

/// The longest time that the timer of a request socket runs (`TCP_RTO_MAX` of include/net/tcp.h), and a little more.
const REQUEST_TIMER: Duration = Duration::from_secs(125);

/// Namespaces that are read for the first time in one round, at most: the ring has to be read in between.
const NEW_IN_A_ROUND: usize = 100;

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
}

/// The records of a listener.
#[derive(Default)]
struct Shown {
    listener: Vec<u8>,
    queues: Vec<u8>,
    /// Handshakes in progress; `None` where this kernel does not show them.
    syn_queue: Option<u32>,
}

/// What a round of proofs did.
#[derive(Default)]
pub(super) struct Proven {
    pub(super) namespaces: Vec<NetnsId>,
    /// Sockets that it found.
    pub(super) found: u32,
}

impl Candidate {
    /// `is_rid_of_requests`: no listener was closed for as long as request sockets last.
    fn is_proven(&self, is_rid_of_requests: bool) -> bool {
        let Totals { hashed, time_wait, allocated, .. } = self.totals;
        let shown = self.listeners.len() as u64;
        let is_idle = self.listeners.values().all(|shown| !shown.listener.is_empty() && shown.syn_queue == Some(0));
        hashed == shown && time_wait == 0 && is_idle && (allocated == shown || is_rid_of_requests)
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
        let busy = self.feed.model().namespaces_with_full_sockets();
        let most_new = if extent == Extent::Due { NEW_IN_A_ROUND } else { usize::MAX };
        let mut new = 0;
        let mut may_be = |netns: &NetnsId| {
            new += usize::from(self.schedule.is_unread(*netns));
            new <= most_new && !busy.contains(netns)
        };
        let provable: Vec<NetnsId> = namespaces.iter().copied().filter(|netns| may_be(netns)).collect();
        if provable.len() < least { Vec::new() } else { provable }
    }

    /// Scans all open files, and with them those of these namespaces of which the kernel's counts prove that nothing else is
    /// there. Returns these. Counts that prove nothing are paid for too: they are read again with the next fd scan.
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
        let now = Instant::now();
        self.proofs.forget_old_ends(now);
        let share = cpu / u32::try_from(namespaces.len()).unwrap_or(u32::MAX).max(1);
        let mut proven = Proven::default();
        let mut unproven = cpu;
        for (netns, candidate) in candidates {
            let is_same = candidate.events == self.schedule.events_of(netns);
            if is_same && candidate.is_proven(self.proofs.is_rid_of_requests(netns, now)) {
                let turn = Stopwatch::start();
                self.schedule.begin_table(netns);
                proven.found += self.show_listeners(netns, &candidate);
                self.schedule.end_table(netns, Instant::now(), share + turn.cpu());
                proven.namespaces.push(netns);
                unproven = unproven.saturating_sub(share);
            }
        }
        self.schedule.pay_for_tables(unproven);
        Ok(proven)
    }

    /// Reads the counts of these namespaces: those without TIME_WAIT sockets are candidates.
    fn choose_candidates(&mut self, namespaces: &[NetnsId]) {
        self.drain();
        let events: FxHashMap<NetnsId, u64> =
            namespaces.iter().map(|netns| (*netns, self.schedule.events_of(*netns))).collect();
        let totals = self.namespaces.totals_of_each(namespaces);
        self.proofs.candidates.clear();
        for (netns, totals) in totals {
            // One that was replaced, or cannot be read, is left to a walk, which says so.
            let Ok(totals) = totals else { continue };
            if totals.time_wait == 0 && self.namespaces.is_same(netns, totals.identity) {
                let events = events.get(&netns).copied().unwrap_or(0);
                self.proofs.candidates.insert(netns, Candidate { totals, events, listeners: FxHashMap::default() });
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
mod tests {
    use super::*;

    fn is_proven(hashed: u64, time_wait: u64, allocated: u64, syn_queues: &[Option<u32>], is_rid: bool) -> bool {
        let totals = Totals { hashed, time_wait, allocated, ..Totals::default() };
        let shown = |syn_queue| Shown { listener: vec![1], queues: vec![1], syn_queue };
        let listeners = syn_queues.iter().enumerate().map(|(n, queue)| (SocketId(n as u64), shown(*queue)));
        Candidate { totals, events: 0, listeners: listeners.collect() }.is_proven(is_rid)
    }

    #[test]
    fn nothing_but_the_listeners_that_were_shown_is_a_proof() {
        assert!(is_proven(0, 0, 0, &[], false));
        assert!(is_proven(2, 0, 2, &[Some(0), Some(0)], false));
        assert!(is_proven(1, 0, 9, &[Some(0)], true), "sockets of other families");
        assert!(!is_proven(1, 0, 2, &[Some(0)], false), "a closed listener may be among them");
        assert!(!is_proven(2, 0, 2, &[Some(0)], true), "no file leads to the other");
        assert!(!is_proven(1, 0, 2, &[Some(0), Some(0)], true), "one has ended");
        assert!(!is_proven(1, 1, 1, &[Some(0)], true), "TIME_WAIT");
        assert!(!is_proven(1, 0, 1, &[Some(1)], true), "a request socket");
        assert!(!is_proven(1, 0, 1, &[None], true), "this kernel shows no SYN queue");
    }

    #[test]
    fn a_listener_that_was_closed_leaves_doubt_while_its_request_sockets_may_live() {
        let start = Instant::now();
        let mut proofs = Proofs::new(start);
        let netns = NetnsId(1);
        assert!(!proofs.is_rid_of_requests(netns, start + REQUEST_TIMER / 2));
        assert!(proofs.is_rid_of_requests(netns, start + REQUEST_TIMER));
        proofs.ended.insert(netns, start + REQUEST_TIMER);
        assert!(!proofs.is_rid_of_requests(netns, start + REQUEST_TIMER + REQUEST_TIMER / 2));
        assert!(proofs.is_rid_of_requests(NetnsId(2), start + REQUEST_TIMER), "one of another namespace");
        assert!(proofs.is_rid_of_requests(netns, start + 2 * REQUEST_TIMER));
    }
}
