//! The owner of source and model: drains, scans, reads the host, and publishes snapshots. Runs on a thread of its own;
//! nothing waits for it and it waits for nobody.

mod host;
mod namespaces;
mod schedule;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use tokio::sync::watch;

pub use self::schedule::Scans;
use self::{host::HostReader, namespaces::Namespaces, schedule::Schedule};
use crate::{
    host::{clock, netns, rights},
    model::{
        Basis, Model,
        event::Event,
        query::Query,
        snapshot::Snapshot,
        trust::{Hook, Losses, ScanSummary},
        units::NetnsId,
    },
    probe::{
        attach::{self, Kernel, LoadOptions},
        error::ProbeError,
        plan::ForcedRungs,
    },
    source::{live::Live, scan::Pass},
};

/// Between two looks at the ring. At 40 a second an idle engine costs next to nothing, and the ring holds ten times
/// what a saturated loopback writes in between.
const POLL: Duration = Duration::from_millis(25);
/// Between two snapshots for the screen.
const PUBLISH: Duration = Duration::from_millis(250);
/// Between two looks at the processes' open files.
const READ_HOST: Duration = Duration::from_secs(1);
/// Processes with the most sockets, whose descriptors are counted.
const HOLDERS: usize = 32;
/// The shortest time between two searches for namespaces that events have named.
const SEARCH: Duration = Duration::from_millis(100);
/// Destinations listed of each endpoint in snapshots for the screen.
const DESTINATIONS_ON_SCREEN: usize = 32;
/// Single connections listed in snapshots for the screen: nobody scrolls further.
const CONNECTIONS_ON_SCREEN: usize = 1_000;

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
    model: Model,
    watched: Watched,
    namespaces: Namespaces,
    started: Instant,
    schedule: Schedule,
    host: HostReader,
    undecodable: u64,
    missed: Option<u64>,
    next_host: Instant,
    next_namespaces: Instant,
    next_search: Instant,
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
        let (started, started_at) = (Instant::now(), clock::monotonic());
        require_rights()?;
        let own = netns::current().context("read /proc/thread-self/ns/net")?;
        let kernel = Kernel::read()?;
        let attached = attach::attach(
            &kernel,
            LoadOptions {
                ring_bytes: options.ring_bytes,
                netns: (options.watched == Watched::Own).then_some(own),
                diagnostics: options.diagnostics,
                rungs: options.rungs,
                every_fd_call: options.every_fd_call,
            },
        )?;
        attached.require_vital_hooks()?;
        let basis = Basis { started_at, reads_buckets: kernel.reads_buckets(), frees_buckets: kernel.frees_buckets() };
        let model = Model::new(attached.hooks.clone(), basis);
        let live = Live::new(attached, options.diagnostics).context("read the kernel side's diagnostics")?;
        let mut engine = Self {
            live,
            model,
            watched: options.watched,
            namespaces: Namespaces::new(own),
            started,
            schedule: Schedule::new(options.scans),
            host: HostReader::new(started),
            undecodable: 0,
            missed: None,
            next_host: started,
            next_namespaces: started,
            next_search: started,
        };
        engine.read_namespaces()?;
        engine.scan()?;
        engine.read_host();
        Ok(engine)
    }

    /// Everything as it is now, with at most `destinations` of each endpoint.
    #[must_use]
    pub fn snapshot(&mut self, destinations: usize) -> Snapshot {
        self.model.snapshot(SystemTime::now(), self.started.elapsed(), destinations)
    }

    /// Takes in what has come, and does what is due.
    pub fn poll(&mut self) -> anyhow::Result<()> {
        self.drain();
        self.take_losses();
        if self.model.take_wish_for_scan() {
            self.schedule.hurry();
        }
        let now = Instant::now();
        let is_named = now >= self.next_search && self.model.unread_namespaces().next().is_some();
        if is_named || now >= self.next_namespaces {
            self.read_namespaces()?;
        }
        if self.schedule.is_due(now) {
            self.scan()?;
        }
        if now >= self.next_host {
            self.read_host();
        }
        Ok(())
    }

    /// Polls and publishes until nobody listens any more.
    pub fn run(
        mut self,
        publish: &watch::Sender<Arc<Snapshot>>,
        mut queries: watch::Receiver<Option<Query>>,
    ) -> anyhow::Result<()> {
        let mut next_publish = Instant::now();
        while !publish.is_closed() {
            self.poll()?;
            // Whoever asks waits for the answer.
            let is_asked = queries.has_changed().unwrap_or(false);
            if is_asked || Instant::now() >= next_publish {
                let query = queries.borrow_and_update().clone();
                publish.send_replace(self.snapshot_for_screen(query.as_ref()));
                next_publish = Instant::now() + PUBLISH;
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Everything as it is now, with as many destinations as a screen can show.
    #[must_use]
    pub fn snapshot_for_screen(&mut self, query: Option<&Query>) -> Arc<Snapshot> {
        let mut snapshot = self.snapshot(DESTINATIONS_ON_SCREEN);
        let now = snapshot.uptime;
        snapshot.connections = query.map(|query| self.model.connections(query, now, CONNECTIONS_ON_SCREEN));
        Arc::new(snapshot)
    }

    /// Scans the kernel's tables of every namespace now.
    pub fn scan(&mut self) -> anyhow::Result<()> {
        self.drain();
        self.take_losses();
        self.schedule.begin();
        let began = Instant::now();
        let mut found = 0;
        let mut scanned = self.namespaces.ids();
        for netns in &scanned {
            found += self.scan_namespace(*netns)?;
        }
        if self.live.has(Hook::Holders) {
            let pass = self.live.start_pass(Hook::Holders).map_err(anyhow::Error::msg).context("start the iterator")?;
            self.model.begin_holders();
            if self.run_pass(pass, Hook::Holders)?.is_complete {
                self.model.end_holders();
            }
        }
        // Open files have shown namespaces that nothing but a socket holds.
        if self.model.unread_namespaces().next().is_some() {
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
        self.model.end_round(ScanSummary { finished_at: self.started.elapsed(), took, found });
        self.schedule.end(Instant::now(), took);
        Ok(())
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
        self.model.begin_scan(netns);
        let passed = self.run_pass(pass, Hook::Scan);
        if matches!(passed, Ok(Passed { is_complete: true, .. })) {
            self.model.end_scan(self.started.elapsed());
        } else {
            // What was not shown is not known to be gone.
            self.model.abandon_scan();
        }
        Ok(passed?.found)
    }

    /// One pass of an iterator, drained as it goes.
    fn run_pass(&mut self, mut pass: Pass, hook: Hook) -> anyhow::Result<Passed> {
        let lost_before = self.live.losses().scan_ring_full;
        let mut found = 0;
        while pass.step().with_context(|| format!("read the {hook} iterator"))? {
            found += self.drain();
        }
        found += self.drain();
        Ok(Passed { found, is_complete: self.live.losses().scan_ring_full == lost_before })
    }

    /// Applies every record that is in the ring; returns how many of them a scan found.
    fn drain(&mut self) -> u32 {
        let Self { live, model, namespaces, undecodable, started, .. } = self;
        let now = started.elapsed();
        let mut found = 0;
        live.drain(|event| match event {
            Ok(event) => {
                found += u32::from(matches!(event, Event::Scanned { .. }));
                namespaces.note(&event);
                model.apply(&event, now);
            }
            Err(error) => {
                *undecodable += 1;
                tracing::warn!(%error, "record");
            }
        });
        found
    }

    /// Tells the model of losses; a new one asks for a scan.
    fn take_losses(&mut self) {
        let losses = Losses { undecodable: self.undecodable, missed: self.missed, ..self.live.losses() };
        if self.model.set_losses(losses, self.started.elapsed()) {
            self.schedule.ask();
        }
    }

    /// Looks for namespaces, reads each, and forgets those that are gone.
    fn read_namespaces(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        if self.watched == Watched::All {
            self.namespaces.refresh(self.model.unread_namespaces(), began).context("look for network namespaces")?;
            for netns in self.namespaces.take_gone(began, |netns| self.model.is_empty(netns)) {
                self.model.forget_namespace(netns);
            }
        }
        for netns in self.namespaces.ids() {
            let reading = self.namespaces.read(netns);
            self.drain();
            if let (Some(established), Some(time_wait)) = (reading.established_or_close_wait, reading.time_wait) {
                let known = self.model.kernel_totals(netns);
                let difference =
                    [i64::from(established) - i64::from(known[0]), i64::from(time_wait) - i64::from(known[1])];
                self.schedule.compare(netns, difference, self.model.events_total());
            }
            self.model.set_namespace(netns, reading);
        }
        self.next_namespaces = Instant::now() + schedule::pause_after(began.elapsed());
        self.next_search = Instant::now() + SEARCH;
        Ok(())
    }

    fn read_host(&mut self) {
        self.live.flush_diagnostics();
        self.missed = self.live.missed();
        let now = Instant::now();
        self.model.set_host(self.host.read(now, &self.model.top_holders(HOLDERS)));
        self.model.tick(self.started.elapsed());
        self.next_host = now + READ_HOST;
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
