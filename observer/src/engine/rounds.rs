//! The engine's rounds: scans of the kernel's tables, and readings of the host; those of namespaces are in `readings`. If the system
//! refuses a round (no descriptors, no memory, no thread), the engine skips it, counts it, shows it, and tries the next
//! one.

use std::{
    collections::BTreeSet,
    io, thread,
    time::{Duration, Instant},
};

use super::{
    Engine, FirstLook, PASS_END, PASS_END_LOOK, READ_HOST, Watched,
    drain::Drained,
    proofs::{Proven, ToCount},
    schedule::{Extent, Payer, SLICE, Stopwatch},
};
use rustc_hash::FxHashSet;
use zerocopy::IntoBytes as _;

use crate::{
    decode,
    errno::{self, Refusal},
    host::netns::{self, Identity},
    input::Input,
    model::{
        gaps::Skipped,
        quality::{Hook, ScanSummary},
        units::NetnsId,
    },
    source::scan::{self, Pass},
};

/// Parts of a pass after which it is long: from there on the kernel's work and ours are done on two CPUs. Before, that would take
/// longer than it saves.
const PARTS_ALONE: u32 = 16;
/// A long pass may fill this share of the ring buffer: one part of so many.
const RING_AHEAD: u32 = 16;
/// How many processes have their descriptors counted: those with the most sockets.
const CONSPICUOUS: usize = 32;

/// The result of one iterator pass.
struct Passed {
    /// Sockets that a scan found.
    found: u32,
    /// Whether all its records arrived.
    is_complete: bool,
}

impl Engine {
    /// Scans the kernel's tables of every namespace now.
    pub fn scan(&mut self) -> anyhow::Result<()> {
        Ok(self.scan_all()?)
    }

    /// One round of each kind.
    pub(super) fn look_around(&mut self, first: FirstLook) -> Result<(), Refusal> {
        if first == FirstLook::Own {
            return self.look_at_own();
        }
        self.read_namespaces(Extent::Whole)?;
        self.scan_all()?;
        self.read_host()?;
        self.name_all_members();
        Ok(())
    }

    /// The least that a first frame needs: what is in the own namespace, with its owners. The first poll looks for the others
    /// and scans those with the most open sockets first.
    fn look_at_own(&mut self) -> Result<(), Refusal> {
        if self.live.has(Hook::FdOwners) {
            let pass = Stopwatch::start();
            self.scan_open_files()?;
            self.first_scan.0 += pass.elapsed();
        }
        let own = [self.namespaces.own()];
        self.scan_round(&own, false, Extent::Due)?;
        self.read_host()
    }

    /// Runs the scans that are due.
    pub(super) fn scan_or_skip(&mut self) {
        let now = Instant::now();
        if self.schedule.is_whole_due(now) {
            if let Err(refusal) = self.scan_all() {
                self.skip(refusal);
            }
            return;
        }
        let known = self.namespaces.ids();
        let due = self.schedule.due_tables(&known, now);
        let new = due.iter().filter(|netns| self.schedule.is_unscanned(**netns)).count();
        let with_files = self.live.has(Hook::FdOwners) && self.schedule.are_files_due(now, new);
        if due.is_empty() && !with_files {
            return;
        }
        if let Err(refusal) = self.scan_round(&due, with_files, Extent::Due) {
            self.skip(refusal);
        }
    }

    pub(super) fn read_host_or_skip(&mut self) {
        if let Err(refusal) = self.read_host() {
            self.skip(refusal);
        }
        self.publish_gaps();
    }

    pub(super) fn skip(&mut self, refusal: Refusal) {
        tracing::warn!(%refusal, "round skipped");
        let Refusal { operation, errno, cause } = refusal;
        let rounds = self.gaps.skipped.rounds + 1;
        self.gaps.skipped = Skipped { rounds, operation, errno, cause };
        self.publish_gaps();
    }

    /// Reports gaps to the model, if they changed.
    pub(super) fn publish_gaps(&mut self) {
        if self.gaps != self.published {
            self.published = self.gaps.clone();
            self.feed.take(Input::Gaps(Box::new(self.gaps.clone())));
        }
    }

    /// Scans every namespace and all open files.
    fn scan_all(&mut self) -> Result<(), Refusal> {
        let all = self.namespaces.ids();
        self.scan_round(&all, self.live.has(Hook::FdOwners), Extent::Whole)
    }

    /// Scans these namespaces, as far as the budgets go, and all open files. After a refusal it still scans the rest, and
    /// then returns the first error.
    fn scan_round(&mut self, namespaces: &[NetnsId], with_files: bool, extent: Extent) -> Result<(), Refusal> {
        self.drain();
        self.take_losses();
        let round = Stopwatch::start();
        if extent == Extent::Whole {
            self.schedule.begin_whole();
            self.feed.begin_round();
        }
        let scans_before = self.finished_scans;
        let scanned = self.scan_tables(namespaces, with_files, extent);
        // Counted now: a snapshot then shows the losses beside the drift that they caused.
        self.read_missed();
        self.take_losses();
        let took = round.elapsed();
        if extent == Extent::Whole {
            self.schedule.end_whole(Instant::now(), round.cpu());
        }
        let found = scanned?;
        self.end_round(extent, scans_before, took, found);
        for netns in self.namespaces.name_by_fd_owners() {
            self.rename(netns);
        }
        Ok(())
    }

    /// Reports the round to the model, if it completed a scan. The first one is over when no namespace waits for its scan.
    fn end_round(&mut self, extent: Extent, scans_before: u64, took: Duration, found: u32) {
        let finished_at = self.uptime.elapsed();
        if extent == Extent::Whole {
            self.schedule.end_start();
        }
        if self.schedule.is_starting() {
            self.first_scan.0 += took;
            self.first_scan.1 += found;
            let has_unscanned = || self.namespaces.ids().into_iter().any(|netns| self.schedule.is_unscanned(netns));
            if self.knows_namespaces() && !has_unscanned() {
                self.schedule.end_start();
                let (took, found) = self.first_scan;
                self.feed.take(Input::EndRound(ScanSummary { finished_at, took, found }));
            }
        } else if self.finished_scans != scans_before {
            self.feed.take(Input::EndRound(ScanSummary { finished_at, took, found }));
        }
        if extent == Extent::Whole {
            self.feed.end_round();
        }
    }

    /// Whether there is no namespace left to be found.
    fn knows_namespaces(&self) -> bool {
        self.options.watched == Watched::Own || self.namespaces.were_looked_for()
    }

    fn scan_tables(&mut self, namespaces: &[NetnsId], with_files: bool, extent: Extent) -> Result<u32, Refusal> {
        let (mut found, mut refused) = (0, None);
        let before = self.namespaces.ids();
        let began = Instant::now();
        let provable = self.provable(namespaces, extent);
        let spareable = self.spareable(namespaces, extent);
        let payer = if with_files { Payer::OpenFiles } else { Payer::Tables };
        let looks = with_files || !spareable.is_empty();
        let to_count = if looks { self.with_old(&provable, spareable, extent) } else { ToCount::default() };
        let all: Vec<NetnsId> = to_count.all().collect();
        let by_counts = !all.is_empty();
        let mut proven = Proven::default();
        if by_counts {
            let scanned = self.read_unread(&all).and_then(|()| self.scan_files_for(&to_count, payer));
            proven = scanned.unwrap_or_else(|refusal| refused_round(refusal, &mut refused));
            found += proven.found;
        }
        let proven: FxHashSet<NetnsId> = proven.namespaces.into_iter().collect();
        let provable: FxHashSet<NetnsId> =
            if with_files { FxHashSet::default() } else { provable.into_iter().collect() };
        let mut has_walked = false;
        for netns in namespaces.iter().filter(|netns| !proven.contains(netns)) {
            let now = Instant::now();
            if extent == Extent::Due && (now - began > SLICE || !self.schedule.may_scan(*netns, now)) {
                break;
            }
            // The next fd scan may prove it.
            if extent == Extent::Due && provable.contains(netns) && self.schedule.can_wait(*netns) {
                continue;
            }
            if extent == Extent::Due && self.may_spare_repair(*netns) {
                continue;
            }
            note(self.scan_in_turn(*netns), &mut found, &mut refused);
            has_walked = true;
        }
        if with_files && (!by_counts || (extent == Extent::Whole && has_walked)) {
            note(self.scan_files_in_turn(Payer::OpenFiles).map(|_| 0), &mut found, &mut refused);
        }
        // The fd scan may have found namespaces that only a socket keeps alive, and scans may have found devices.
        if extent == Extent::Whole && (self.has_unknown_namespaces() || self.has_unread_devices()) {
            note(self.read_namespaces(Extent::Whole).map(|()| 0), &mut found, &mut refused);
            for netns in self.namespaces.ids().into_iter().filter(|netns| !before.contains(netns)) {
                note(self.scan_in_turn(netns), &mut found, &mut refused);
            }
        }
        refused.map_or(Ok(found), Err)
    }

    /// After few missed runs, whether the kernel's counts show that a walk that takes long may wait until it would come anyhow: hundreds of
    /// namespaces in which much happens would keep a tenth of a CPU busy for a minute, for one event.
    fn may_spare_repair(&mut self, netns: NetnsId) -> bool {
        if self.schedule.repair_takes(netns).is_none_or(|walk| walk < self.options.long_walk) {
            return false;
        }
        let work = Stopwatch::start();
        let agree = self.counts_agree(netns).is_some();
        if agree {
            self.schedule.spare_repair(netns);
        }
        self.schedule.pay_for_tables(work.cpu());
        agree
    }

    /// Scans one namespace, and accounts for it. What its table shows needs its port range.
    fn scan_in_turn(&mut self, netns: NetnsId) -> Result<u32, Refusal> {
        let turn = Stopwatch::start();
        if self.schedule.is_unread(netns) {
            self.read_unread(&[netns])?;
        }
        self.schedule.begin_table(netns, Instant::now());
        let drift_before = self.feed.model().drift();
        let scanned = self.scan_namespace(netns);
        if self.feed.model().drift() != drift_before {
            // Something happens there that no event shows.
            self.schedule.note_event(netns);
        }
        self.schedule.end_table(netns, Instant::now(), turn.cpu());
        if scanned.is_err() {
            // The scan failed: its request stays for the next one.
            self.schedule.ask_for(netns);
        }
        scanned
    }

    /// Returns whether all its records have come.
    pub(super) fn scan_open_files(&mut self) -> Result<bool, Refusal> {
        let pass = self.live.start_pass(Hook::FdOwners)?;
        self.feed.take(Input::BeginFdScan);
        let is_complete = self.run_pass(pass, Hook::FdOwners)?.is_complete;
        if is_complete {
            self.walk_processes();
            self.feed.take(Input::EndFdScan);
        }
        Ok(is_complete)
    }

    /// Owners that the pass could not show.
    fn walk_processes(&mut self) {
        if !self.processes.needs_walk() {
            return;
        }
        for (id, netns, by, fd) in self.walk.fd_owners() {
            let record = decode::fd_owner_record(id, netns, by, fd);
            self.feed.take(Input::Record(record.as_bytes()));
        }
    }

    /// Scans one namespace. A namespace that is gone has no sockets.
    fn scan_namespace(&mut self, netns: NetnsId) -> Result<u32, Refusal> {
        let live = &self.live;
        let (pass, cookie) = match self.namespaces.enter(netns, || (live.start_pass(Hook::Scan), netns::cookie())) {
            Ok((pass, cookie)) => (pass?, cookie),
            Err(error) if errno::is_scarce(&error) => return Err(refused_entry(netns, &error)),
            Err(error) => {
                // It is gone, or observer cannot enter it. The reading of namespaces counts that.
                tracing::debug!(netns = netns.0, %error, "the namespace cannot be entered");
                return Ok(0);
            }
        };
        self.drain();
        if self.namespaces.is_replaced(netns, Identity { cookie, traffic: None }) {
            self.replace(netns)?;
            self.read_namespace(netns, &BTreeSet::new())?;
        }
        self.walk.begin(netns);
        self.feed.take(Input::BeginScan(netns));
        let passed = self.run_pass(pass, Hook::Scan);
        if matches!(passed, Ok(Passed { is_complete: true, .. })) {
            self.feed.take(Input::EndScan);
            self.finished_scans += 1;
        } else {
            // The scan did not show every socket: a socket it did not show may still exist.
            self.feed.take(Input::AbandonScan);
        }
        Ok(passed?.found)
    }

    /// One iterator pass. Drains the ring buffer between its reads, and then until the iterator's last record.
    ///
    /// A hook on another CPU, or in a task that was interrupted, may have reserved room in the ring and not yet written its
    /// record. Nothing after it can be read until then: an empty ring does not say that all of the scan has arrived.
    fn run_pass(&mut self, mut pass: Pass, hook: Hook) -> Result<Passed, Refusal> {
        let lost_before = self.live.losses().scan_ring_full;
        let mut all = Drained::default();
        let refused = |error: io::Error| Refusal::new(format!("read the {hook} iterator"), &error);
        let ahead = self.parts_ahead();
        let mut parts = 0;
        while pass.step().map_err(refused)? {
            all.add(self.drain());
            parts += 1;
            if parts == PARTS_ALONE && ahead > 0 && pass.run_ahead(ahead, || all.add(self.drain())).map_err(refused)? {
                break;
            }
        }
        let has_lost = |engine: &Self| engine.live.losses().scan_ring_full != lost_before;
        let deadline = Instant::now() + PASS_END;
        loop {
            all.add(self.drain());
            if all.ended == pass.number() || has_lost(self) || Instant::now() >= deadline {
                break;
            }
            thread::sleep(PASS_END_LOOK);
        }
        let is_complete = all.ended.is_some() && all.ended == pass.number();
        if !is_complete && !has_lost(self) {
            let late =
                format!("the end of the {hook} iterator's records did not arrive within {} s", PASS_END.as_secs());
            return Err(Refusal::from(late));
        }
        Ok(Passed { found: all.found, is_complete: is_complete && !has_lost(self) })
    }

    /// Parts of a long pass that may wait in the ring buffer while others are taken from it: hooks need most of it.
    fn parts_ahead(&self) -> usize {
        (self.options.ring_bytes / RING_AHEAD / scan::PART_BYTES) as usize
    }

    fn read_host(&mut self) -> Result<(), Refusal> {
        self.live.flush_diagnostics();
        self.read_missed();
        self.take_losses();
        let now = Instant::now();
        let conspicuous = self.feed.model().conspicuous(CONSPICUOUS);
        let host = self.host.read(now, &conspicuous, &mut self.gaps, self.unread_files);
        let host = host.map(|host| {
            self.feed.take(Input::Host(Box::new(host)));
        });
        self.feed.tick();
        self.control_cost(now);
        self.complete_services();
        self.next_host = now + READ_HOST;
        host
    }

    /// While descriptors are short nothing can be read of it, and what was known stays true.
    pub(super) fn read_missed(&mut self) {
        self.missed = self.live.missed().or(self.missed);
    }
}

fn refused_round<T: Default>(refusal: Refusal, refused: &mut Option<Refusal>) -> T {
    refused.get_or_insert(refusal);
    T::default()
}

fn note(outcome: Result<u32, Refusal>, found: &mut u32, refused: &mut Option<Refusal>) {
    match outcome {
        Ok(more) => *found += more,
        Err(refusal) => *refused = refused.take().or(Some(refusal)),
    }
}

pub(super) fn refused_entry(netns: NetnsId, error: &io::Error) -> Refusal {
    Refusal::new(format!("enter network namespace {}", netns.0), error)
}
