//! The engine's rounds: scans of the kernel's tables, readings of namespaces, readings of the host. If the system
//! refuses a round (no descriptors, no memory, no thread), the engine skips it, counts it, shows it, and tries the next
//! one.

use std::{
    collections::BTreeSet,
    io, thread,
    time::{Duration, Instant},
};

use super::{
    CONSPICUOUS, Drained, Engine, PASS_END, PASS_END_LOOK, READ_HOST, SEARCH, WALK, Watched,
    schedule::{self, Stopwatch},
};
use zerocopy::IntoBytes as _;

use crate::{
    decode,
    errno::{self, Refusal},
    host::{handle, netns::Reading},
    input::Input,
    model::{
        gaps::{Gap, Skipped, Unread},
        namespace::NamespaceReading,
        quality::{Hook, ScanSummary},
        units::NetnsId,
    },
    source::scan::Pass,
};

/// After a reading that was refused.
const PAUSE: Duration = Duration::from_secs(1);

/// The result of one iterator pass.
struct Passed {
    /// Sockets that a scan found.
    found: u32,
    /// Whether all its records arrived.
    is_complete: bool,
}

/// The result of reading a namespace.
enum Looked {
    /// Read, except these files.
    Read(Gap),
    /// The kernel refuses to let observer enter it.
    NotEntered(Option<i32>),
    /// It has no handle any more.
    Gone,
}

impl Engine {
    /// Scans the kernel's tables of every namespace now.
    pub fn scan(&mut self) -> anyhow::Result<()> {
        Ok(self.scan_all()?)
    }

    /// One round of each kind.
    pub(super) fn look_around(&mut self) -> Result<(), Refusal> {
        self.read_namespaces()?;
        self.scan_all()?;
        self.read_host()?;
        self.name_all_members();
        Ok(())
    }

    pub(super) fn scan_or_skip(&mut self) {
        if let Err(refusal) = self.scan_all() {
            self.skip(refusal);
            // The scan failed: its request stays for the next one.
            self.schedule.ask();
        }
    }

    pub(super) fn read_namespaces_or_skip(&mut self) {
        if let Err(refusal) = self.read_namespaces() {
            self.skip(refusal);
            let later = Instant::now() + PAUSE;
            (self.next_namespaces, self.next_search) = (later, later);
        }
        self.publish_gaps();
    }

    pub(super) fn read_host_or_skip(&mut self) {
        if let Err(refusal) = self.read_host() {
            self.skip(refusal);
        }
        self.publish_gaps();
    }

    fn skip(&mut self, refusal: Refusal) {
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

    /// Scans every namespace and all open files. After a refusal it still scans the rest, and then returns the first
    /// error.
    fn scan_all(&mut self) -> Result<(), Refusal> {
        self.drain();
        self.take_losses();
        self.schedule.begin(self.feed.model().events_total());
        let round = Stopwatch::start();
        self.walk.begin();
        let scanned = self.scan_tables();
        // Counted now: a snapshot then shows the losses beside the drift that they caused.
        self.read_missed();
        self.take_losses();
        let took = round.elapsed();
        self.schedule.end(Instant::now(), round.cpu());
        let found = scanned?;
        self.feed.take(Input::EndRound(ScanSummary { finished_at: self.started.elapsed(), took, found }));
        let renamed = self.namespaces.name_by_fd_owners();
        let (devices, none) = (self.feed.model().devices_in_use(), BTreeSet::new());
        for netns in renamed {
            self.read_namespace(netns, devices.get(&netns).unwrap_or(&none))?;
        }
        Ok(())
    }

    fn scan_tables(&mut self) -> Result<u32, Refusal> {
        let (mut found, mut refused) = (0, None);
        let before = self.namespaces.ids();
        for netns in &before {
            note(self.scan_namespace(*netns), &mut found, &mut refused);
        }
        if self.live.has(Hook::FdOwners) {
            note(self.scan_open_files(), &mut found, &mut refused);
        }
        // The fd scan may have found namespaces that only a socket keeps alive, and scans may have found devices.
        if self.feed.model().unread_namespaces().next().is_some() || self.feed.model().has_unread_devices() {
            note(self.read_namespaces().map(|()| 0), &mut found, &mut refused);
            for netns in self.namespaces.ids().into_iter().filter(|netns| !before.contains(netns)) {
                note(self.scan_namespace(netns), &mut found, &mut refused);
            }
        }
        refused.map_or(Ok(found), Err)
    }

    fn scan_open_files(&mut self) -> Result<u32, Refusal> {
        let pass = self.live.start_pass(Hook::FdOwners)?;
        self.feed.take(Input::BeginFdScan);
        if self.run_pass(pass, Hook::FdOwners)?.is_complete {
            self.walk_processes();
            self.feed.take(Input::EndFdScan);
        }
        Ok(0)
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
        let live = &mut self.live;
        let pass = match self.namespaces.enter(netns, || live.start_pass(Hook::Scan)) {
            Ok(pass) => pass?,
            Err(error) if errno::is_scarce(&error) => return Err(refused_entry(netns, &error)),
            Err(error) => {
                // It is gone, or observer cannot enter it. The reading of namespaces counts that.
                tracing::debug!(netns = netns.0, %error, "the namespace cannot be entered");
                return Ok(0);
            }
        };
        self.drain();
        self.feed.take(Input::BeginScan(netns));
        let passed = self.run_pass(pass, Hook::Scan);
        if matches!(passed, Ok(Passed { is_complete: true, .. })) {
            self.feed.take(Input::EndScan);
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
        let (mut found, mut ended) = (0, None);
        let mut add = |drained: Drained| {
            found += drained.found;
            ended = drained.ended.or(ended);
            ended
        };
        while pass.step().map_err(|error| Refusal::new(format!("read the {hook} iterator"), &error))? {
            add(self.drain());
        }
        let has_lost = |engine: &Self| engine.live.losses().scan_ring_full != lost_before;
        let deadline = Instant::now() + PASS_END;
        while add(self.drain()) != pass.number() && !has_lost(self) && Instant::now() < deadline {
            thread::sleep(PASS_END_LOOK);
        }
        let is_complete = ended.is_some() && ended == pass.number();
        if !is_complete && !has_lost(self) {
            let late =
                format!("the end of the {hook} iterator's records did not arrive within {} s", PASS_END.as_secs());
            return Err(Refusal::from(late));
        }
        Ok(Passed { found, is_complete: is_complete && !has_lost(self) })
    }

    /// Finds namespaces, reads each, and forgets those that are gone.
    fn read_namespaces(&mut self) -> Result<(), Refusal> {
        let (round, began) = (Stopwatch::start(), Instant::now());
        let is_named = self.feed.model().unread_namespaces().next().is_some();
        let walks = began >= self.next_walk || (is_named && self.watched == Watched::All);
        if walks {
            self.next_walk = began + WALK;
            self.find_namespaces(began)?;
        }
        let (devices, none) = (self.feed.model().devices_in_use(), BTreeSet::new());
        let memberships = self.gaps.get(Unread::Memberships);
        let (mut unread_files, mut not_entered, mut refused) = (Gap::default(), Gap::default(), None);
        for netns in self.namespaces.ids() {
            match self.read_namespace(netns, devices.get(&netns).unwrap_or(&none)) {
                Ok(Looked::Read(unread)) => unread_files = unread_files.and(unread),
                Ok(Looked::NotEntered(errno)) => not_entered.add(errno),
                // Its sockets exist; its handle may belong to a process that observer cannot read.
                Ok(Looked::Gone) if memberships.count > 0 && !self.feed.model().is_empty(netns) => {
                    not_entered.add(memberships.errno);
                }
                Ok(Looked::Gone) => {}
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        if refused.is_some() {
            // This round did not reach everything: gaps of earlier rounds stay.
            self.unread_files = self.unread_files.or_larger(unread_files);
            self.gaps.set(Unread::Namespaces, self.gaps.get(Unread::Namespaces).or_larger(not_entered));
        } else {
            self.unread_files = unread_files;
            self.gaps.set(Unread::Namespaces, not_entered);
        }
        self.next_namespaces = Instant::now() + schedule::pause_after(round.cpu());
        self.next_search = Instant::now() + SEARCH;
        refused.map_or(Ok(()), Err)
    }

    /// Finds namespaces and their names, and forgets those that are gone.
    fn find_namespaces(&mut self, now: Instant) -> Result<(), Refusal> {
        let refusal = |error| Refusal::new("look for network namespaces", &error);
        if self.watched == Watched::Own {
            return self.namespaces.refresh_own(&mut self.resolver).map_err(refusal);
        }
        let unread =
            self.namespaces.refresh(&mut self.resolver, self.feed.model().unread_namespaces(), now).map_err(refusal)?;
        self.gaps.set(Unread::Memberships, unread);
        for netns in self.namespaces.take_gone(now, |netns| self.feed.model().is_empty(netns)) {
            self.feed.take(Input::ForgetNamespace(netns));
        }
        Ok(())
    }

    /// Reads one namespace. While descriptors or memory are short the model keeps its last reading.
    fn read_namespace(&mut self, netns: NetnsId, devices: &BTreeSet<u32>) -> Result<Looked, Refusal> {
        let read = self.namespaces.read(netns, devices);
        self.drain();
        let (looked, reading) = match read {
            Ok(Reading { scarcity: Some(refusal), .. }) => return Err(refusal),
            Ok(Reading { namespace, unread, .. }) => (Looked::Read(unread), namespace),
            Err(error) if errno::is_scarce(&error) => return Err(refused_entry(netns, &error)),
            Err(error) => {
                let is_gone = handle::is_absence(&error);
                let looked = if is_gone { Looked::Gone } else { Looked::NotEntered(error.raw_os_error()) };
                (looked, NamespaceReading { name: self.namespaces.name(netns), ..NamespaceReading::default() })
            }
        };
        if let (Some(established), Some(time_wait)) = (reading.established_or_close_wait, reading.time_wait) {
            let known = self.feed.model().kernel_totals(netns);
            let difference = [i64::from(established) - i64::from(known[0]), i64::from(time_wait) - i64::from(known[1])];
            self.schedule.compare(netns, difference, self.feed.model().events_total());
        }
        self.feed.take(Input::Namespace(netns, Box::new(reading)));
        Ok(looked)
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
        self.feed.take(Input::Tick);
        self.complete_services();
        self.next_host = now + READ_HOST;
        host
    }

    /// While descriptors are short nothing can be read of it, and what was known stays true.
    fn read_missed(&mut self) {
        self.missed = self.live.missed().or(self.missed);
    }
}

fn note(outcome: Result<u32, Refusal>, found: &mut u32, refused: &mut Option<Refusal>) {
    match outcome {
        Ok(more) => *found += more,
        Err(refusal) => *refused = refused.take().or(Some(refusal)),
    }
}

fn refused_entry(netns: NetnsId, error: &io::Error) -> Refusal {
    Refusal::new(format!("enter network namespace {}", netns.0), error)
}
