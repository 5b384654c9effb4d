//! The owner of source and model: drains, scans, reads the host, and publishes snapshots. Runs on a thread of its own;
//! nothing waits for it and it waits for nobody.

mod feed;
mod host;
mod namespaces;
mod schedule;
mod walk;

use std::{
    fs::File,
    thread,
    time::{Duration, Instant, SystemTime},
};

pub use self::schedule::Scans;
use self::{feed::Feed, host::HostReader, namespaces::Namespaces, schedule::Schedule, walk::Walk};
use crate::{
    decode,
    host::{clock, netns, pid_namespace::PidView, rights},
    input::{Input, Outcome},
    model::{
        Basis, Model,
        event::Event,
        query::{Connections, Query},
        snapshot::Snapshot,
        trust::{Hook, Losses, ScanSummary},
        units::NetnsId,
    },
    probe::{
        attach::{self, Kernel, LoadOptions},
        error::ProbeError,
        plan::ForcedRungs,
    },
    recording::{Header, Tally, Writer},
    screen::Source,
    source::{live::Live, scan::Pass},
};
use anyhow::Context as _;
use zerocopy::IntoBytes as _;

/// Between two looks at the ring, which holds four times what a saturated loopback writes in between. Each look wakes a
/// processor that might have slept on.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// Between two looks at the processes' open files.
const READ_HOST: Duration = Duration::from_secs(1);
/// Between two walks over all processes for namespaces that no event has named.
const WALK: Duration = Duration::from_secs(3);
/// Processes with the most sockets, whose descriptors are counted.
const CONSPICUOUS: usize = 32;
/// The shortest time between two searches for namespaces that events have named.
const SEARCH: Duration = Duration::from_millis(100);

/// Which network namespaces are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// All of the host.
    All,
    /// The one in which the engine is started.
    Own,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When to scan.
    pub scans: Scans,
    /// Which network namespaces to watch.
    pub watched: Watched,
    /// Bytes of the ring buffer: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Whether the kernel side sends its diagnostics.
    pub diagnostics: bool,
    /// Rungs that were asked for in place of the best that works.
    pub rungs: ForcedRungs,
    /// Whether EMFILE and ENFILE are told of every call that makes descriptors, not of sockets' alone.
    pub every_fd_call: bool,
}

impl Options {
    /// At 80 bytes a record 100,000 records; at the 36 MB/s of a saturated loopback 230 ms.
    pub const RING_BYTES: u32 = 8 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scans: Scans::Regularly,
            watched: Watched::All,
            ring_bytes: Self::RING_BYTES,
            diagnostics: false,
            rungs: ForcedRungs::default(),
            every_fd_call: false,
        }
    }
}

/// Source and model, attached and scanned once.
pub struct Engine {
    live: Live,
    feed: Feed,
    watched: Watched,
    namespaces: Namespaces,
    started: Instant,
    schedule: Schedule,
    host: HostReader,
    processes: PidView,
    walk: Walk,
    undecodable: u64,
    missed: Option<u64>,
    /// What the model was told last.
    losses: Losses,
    next_host: Instant,
    next_namespaces: Instant,
    next_search: Instant,
    next_walk: Instant,
}

/// What was in the ring.
#[derive(Clone, Copy, Default)]
struct Drained {
    records: u32,
    /// Of these, sockets that a scan found.
    found: u32,
}

/// What came of a pass of an iterator.
struct Passed {
    /// Sockets that a scan found.
    found: u32,
    /// None of its records was lost.
    is_complete: bool,
}

impl Engine {
    /// Attaches, and takes in what is there.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        Self::start_with(options, |_| Ok(None))
    }

    /// As [`Self::start`], and records all that it takes in; `open` gives the file once the hooks are attached.
    pub fn start_recording(options: Options, open: impl FnOnce() -> anyhow::Result<File>) -> anyhow::Result<Self> {
        Self::start_with(options, |header| Ok(Some(Writer::start(open()?, &header).context("write the recording")?)))
    }

    fn start_with(
        options: Options,
        record: impl FnOnce(Header) -> anyhow::Result<Option<Writer<File>>>,
    ) -> anyhow::Result<Self> {
        let wall_clock = SystemTime::now();
        let (started, started_at) = (Instant::now(), clock::monotonic());
        require_rights()?;
        let own = netns::current().context("read /proc/thread-self/ns/net")?;
        let kernel = Kernel::read()?;
        let processes = PidView::read();
        let attached = attach::attach(
            &kernel,
            LoadOptions {
                ring_bytes: options.ring_bytes,
                netns: (options.watched == Watched::Own).then_some(own),
                processes,
                diagnostics: options.diagnostics,
                rungs: options.rungs,
                every_fd_call: options.every_fd_call,
            },
        )?;
        attached.require_vital_hooks()?;
        let basis = Basis {
            started_at,
            reads_buckets: kernel.reads_buckets(),
            frees_buckets: kernel.frees_buckets(),
            processes: processes.scope(),
        };
        let host = HostReader::new(started);
        let header = Header {
            observer: env!("CARGO_PKG_VERSION").to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            kernel: host.kernel().to_owned(),
            started_at: wall_clock.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            hooks: attached.hooks.clone(),
            basis,
        };
        let feed = Feed::new(attached.hooks.clone(), basis, started, record(header)?);
        let live = Live::new(attached, options.diagnostics).context("read the kernel side's diagnostics")?;
        let mut engine = Self {
            live,
            feed,
            watched: options.watched,
            namespaces: Namespaces::new(own),
            started,
            schedule: Schedule::new(options.scans),
            host,
            processes,
            walk: Walk::default(),
            undecodable: 0,
            missed: None,
            losses: Losses::default(),
            next_host: started,
            next_namespaces: started,
            next_search: started,
            next_walk: started,
        };
        engine.read_namespaces()?;
        engine.scan()?;
        engine.read_host();
        Ok(engine)
    }

    /// Everything as it is now, with at most `destinations` of each endpoint.
    #[must_use]
    pub fn snapshot(&mut self, destinations: usize) -> Snapshot {
        self.feed.snapshot(SystemTime::now(), self.started.elapsed(), destinations)
    }

    /// The youngest `most` of the connections that are asked for.
    #[must_use]
    pub fn connections(&self, query: &Query, most: usize) -> Connections {
        self.feed.model().connections(query, self.started.elapsed(), most)
    }

    /// Takes in what has come, and does what is due.
    pub fn poll(&mut self) -> anyhow::Result<()> {
        let drained = self.drain();
        // What finds no room in the ring leaves it full: without a record there is no such loss. Others are seen when the
        // host is read.
        if drained.records > 0 {
            self.take_losses();
        }
        if self.feed.take_wish_for_scan() {
            self.schedule.hurry();
        }
        let now = Instant::now();
        let is_named = now >= self.next_search && self.feed.model().unread_namespaces().next().is_some();
        if is_named || now >= self.next_namespaces {
            self.read_namespaces()?;
        }
        if self.schedule.is_due(now, self.feed.model().events_total()) {
            self.scan()?;
        }
        if now >= self.next_host {
            self.read_host();
        }
        self.feed.check()
    }

    /// Polls until `is_over`.
    pub fn poll_until(&mut self, mut is_over: impl FnMut() -> bool) -> anyhow::Result<()> {
        loop {
            self.poll()?;
            if is_over() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
    }

    /// Detaches, and completes the recording, if there is one.
    pub fn finish(mut self) -> anyhow::Result<Option<Tally>> {
        self.drain();
        self.take_losses();
        self.feed.take(Input::Tick);
        self.feed.finish()
    }

    /// Scans the kernel's tables of every namespace now.
    pub fn scan(&mut self) -> anyhow::Result<()> {
        self.drain();
        self.take_losses();
        self.schedule.begin(self.feed.model().events_total());
        let began = Instant::now();
        let mut found = 0;
        self.walk.begin();
        let mut scanned = self.namespaces.ids();
        for netns in &scanned {
            found += self.scan_namespace(*netns)?;
        }
        if self.live.has(Hook::Holders) {
            let pass = self.live.start_pass(Hook::Holders).map_err(anyhow::Error::msg).context("start the iterator")?;
            self.feed.take(Input::BeginHolders);
            if self.run_pass(pass, Hook::Holders)?.is_complete {
                self.walk_processes();
                self.feed.take(Input::EndHolders);
            }
        }
        // Open files have shown namespaces that nothing but a socket holds.
        if self.feed.model().unread_namespaces().next().is_some() {
            self.read_namespaces()?;
            let before = std::mem::replace(&mut scanned, self.namespaces.ids());
            for netns in scanned.into_iter().filter(|netns| !before.contains(netns)) {
                found += self.scan_namespace(netns)?;
            }
        }
        // Counted now, so that a snapshot shows the losses beside the drift that they caused.
        self.missed = self.live.missed();
        self.take_losses();
        let took = began.elapsed();
        self.feed.take(Input::EndRound(ScanSummary { finished_at: self.started.elapsed(), took, found }));
        self.schedule.end(Instant::now(), took);
        Ok(())
    }

    /// Owners that the pass could not show.
    fn walk_processes(&mut self) {
        if !self.processes.needs_walk() {
            return;
        }
        for (id, netns, by, fd) in self.walk.holders() {
            let record = decode::holder_record(id, netns, by, fd);
            self.feed.take(Input::Record(record.as_bytes()));
        }
    }

    /// Scans one namespace; one that is gone has no sockets to be found.
    fn scan_namespace(&mut self, netns: NetnsId) -> anyhow::Result<u32> {
        let live = &mut self.live;
        let pass = match self.namespaces.enter(netns, || live.start_pass(Hook::Scan)) {
            Ok(pass) => pass.map_err(anyhow::Error::msg).context("start the scan iterator")?,
            Err(error) => {
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
            // What was not shown is not known to be gone.
            self.feed.take(Input::AbandonScan);
        }
        Ok(passed?.found)
    }

    /// One pass of an iterator, drained as it goes.
    fn run_pass(&mut self, mut pass: Pass, hook: Hook) -> anyhow::Result<Passed> {
        let lost_before = self.live.losses().scan_ring_full;
        let mut found = 0;
        while pass.step().with_context(|| format!("read the {hook} iterator"))? {
            found += self.drain().found;
        }
        found += self.drain().found;
        Ok(Passed { found, is_complete: self.live.losses().scan_ring_full == lost_before })
    }

    /// Applies every record that is in the ring.
    fn drain(&mut self) -> Drained {
        let Self { live, feed, namespaces, walk, undecodable, started, .. } = self;
        let now = started.elapsed();
        let mut drained = Drained::default();
        live.drain(|record| match feed.take_at(now, Input::Record(record)) {
            Outcome::Event(event) => {
                drained.records += 1;
                drained.found += u32::from(matches!(event, Event::Scanned { .. }));
                namespaces.note(&event);
                walk.note(&event);
            }
            Outcome::Undecodable(error) => {
                drained.records += 1;
                *undecodable += 1;
                tracing::warn!(%error, "record");
            }
            Outcome::Done | Outcome::NewLosses => {}
        });
        drained
    }

    /// Tells the model of losses; a new one asks for a scan.
    fn take_losses(&mut self) {
        let losses = Losses { undecodable: self.undecodable, missed: self.missed, ..self.live.losses() };
        // Asked many times a second: no news is no input.
        if std::mem::replace(&mut self.losses, losses) != losses
            && matches!(self.feed.take(Input::Losses(losses)), Outcome::NewLosses)
        {
            self.schedule.ask();
        }
    }

    /// Looks for namespaces, reads each, and forgets those that are gone.
    fn read_namespaces(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let is_named = self.feed.model().unread_namespaces().next().is_some();
        if self.watched == Watched::All && (is_named || began >= self.next_walk) {
            self.next_walk = began + WALK;
            self.namespaces
                .refresh(self.feed.model().unread_namespaces(), began)
                .context("look for network namespaces")?;
            for netns in self.namespaces.take_gone(began, |netns| self.feed.model().is_empty(netns)) {
                self.feed.take(Input::ForgetNamespace(netns));
            }
        }
        for netns in self.namespaces.ids() {
            let reading = self.namespaces.read(netns);
            self.drain();
            if let (Some(established), Some(time_wait)) = (reading.established_or_close_wait, reading.time_wait) {
                let known = self.feed.model().kernel_totals(netns);
                let difference =
                    [i64::from(established) - i64::from(known[0]), i64::from(time_wait) - i64::from(known[1])];
                self.schedule.compare(netns, difference, self.feed.model().events_total());
            }
            self.feed.take(Input::Namespace(netns, Box::new(reading)));
        }
        self.next_namespaces = Instant::now() + schedule::pause_after(began.elapsed());
        self.next_search = Instant::now() + SEARCH;
        Ok(())
    }

    fn read_host(&mut self) {
        self.live.flush_diagnostics();
        self.missed = self.live.missed();
        self.take_losses();
        let now = Instant::now();
        let host = self.host.read(now, &self.feed.model().conspicuous(CONSPICUOUS));
        self.feed.take(Input::Host(Box::new(host)));
        self.feed.take(Input::Tick);
        self.next_host = now + READ_HOST;
    }
}

impl Source for Engine {
    fn advance(&mut self) -> anyhow::Result<()> {
        self.poll()
    }

    fn snapshot(&mut self, destinations: usize) -> Snapshot {
        Self::snapshot(self, destinations)
    }

    fn model(&self) -> &Model {
        self.feed.model()
    }

    fn restart_totals(&mut self) {
        self.feed.take(Input::RestartTotals);
    }
}

/// Fails if this process may not use BPF, by what it can know of itself.
pub fn require_rights() -> Result<(), ProbeError> {
    if rights::in_user_namespace() {
        return Err(ProbeError::UserNamespace);
    }
    let missing = rights::missing();
    if missing.is_empty() { Ok(()) } else { Err(ProbeError::MissingCapabilities(missing.join(" and "))) }
}
