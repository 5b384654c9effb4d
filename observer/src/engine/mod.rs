//! Owns the source and the model. The engine drains the ring buffer, scans, reads the host and publishes snapshots. It
//! runs on its own thread, which waits for no other thread.

mod feed;
mod host;
mod namespaces;
mod rounds;
mod schedule;
mod services;
mod walk;

use std::{
    fs::File,
    thread,
    time::{Duration, Instant, SystemTime},
};

pub use self::schedule::Scans;
use self::{feed::Feed, host::HostReader, namespaces::Namespaces, schedule::ScanSchedule, walk::Walk};
use crate::{
    decode,
    host::{cgroup::Resolver, clock, netns, pid_namespace::PidView, proc, rights},
    input::{Input, Outcome},
    model::{
        Basis, Model,
        event::Event,
        gaps::{Gap, Gaps, Unread},
        quality::Losses,
        query::{Connections, Query},
        snapshot::Snapshot,
    },
    probe::{
        attach::{self, LoadOptions},
        error::ProbeError,
        kernel::Kernel,
        plan::ForcedMethods,
    },
    recording::{Header, Tally, Writer},
    source::live::Live,
};
use anyhow::Context as _;

/// Time between two reads of the ring buffer. The buffer holds four times what a saturated loopback writes in that
/// time. Shorter would wake an idle CPU more often.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// Time between two readings of the processes' open files.
const READ_HOST: Duration = Duration::from_secs(1);
/// Time between two walks over all processes, which find namespaces that no event has named.
const WALK: Duration = Duration::from_secs(3);
/// How many processes have their descriptors counted: those with the most sockets.
const CONSPICUOUS: usize = 32;
/// How long the records of an iterator may stay behind one that another task has not finished: that task may be without a CPU.
const PASS_END: Duration = Duration::from_secs(1);
/// Time between two looks for the end of them.
const PASS_END_LOOK: Duration = Duration::from_micros(200);
/// The shortest time between two searches for namespaces that events have named.
const SEARCH: Duration = Duration::from_millis(100);

/// Which network namespaces the engine watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// All of the host.
    All,
    /// The one in which the engine starts.
    Own,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// When to scan.
    pub scans: Scans,
    /// Which network namespaces to watch.
    pub watched: Watched,
    /// Bytes of the ring buffer: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Whether the BPF programs send diagnostics.
    pub diagnostics: bool,
    /// Attach methods to use instead of the preferred ones.
    pub methods: ForcedMethods,
    /// Whether to report EMFILE and ENFILE of every call that makes descriptors, not only of socket() and accept().
    pub trace_all_fd_syscalls: bool,
}

impl EngineOptions {
    /// Room for 100,000 records of 80 bytes: 230 ms at the 36 MB/s of a saturated loopback.
    pub const RING_BYTES: u32 = 8 << 20;
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            scans: Scans::Regularly,
            watched: Watched::All,
            ring_bytes: Self::RING_BYTES,
            diagnostics: false,
            methods: ForcedMethods::default(),
            trace_all_fd_syscalls: false,
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
    schedule: ScanSchedule,
    host: HostReader,
    processes: PidView,
    walk: Walk,
    resolver: Resolver,
    undecodable: u64,
    missed: Option<u64>,
    /// The losses that the engine last gave to the model.
    losses: Losses,
    gaps: Gaps,
    /// What the model knows of them.
    published: Gaps,
    /// Files of namespaces that were refused when these were last read.
    unread_files: Gap,
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
    /// The pass of an iterator whose last record was among them.
    ended: Option<u64>,
}

impl Engine {
    /// Attaches the hooks and scans once.
    pub fn start(options: EngineOptions) -> anyhow::Result<Self> {
        Self::start_with(options, |_| Ok(None))
    }

    /// Like [`Self::start`], and also records every input. `open` opens the file after the hooks are attached.
    pub fn start_recording(
        options: EngineOptions,
        open: impl FnOnce() -> anyhow::Result<File>,
    ) -> anyhow::Result<Self> {
        Self::start_with(options, |header| Ok(Some(Writer::start(open()?, &header).context("write the recording")?)))
    }

    fn start_with(
        options: EngineOptions,
        record: impl FnOnce(Header) -> anyhow::Result<Option<Writer<File>>>,
    ) -> anyhow::Result<Self> {
        let wall_clock = SystemTime::now();
        let (started, started_at) = (Instant::now(), clock::kernel());
        proc::require()?;
        require_rights()?;
        let own = netns::current().context("read /proc/thread-self/ns/net")?;
        let kernel = Kernel::shared()?;
        let processes = PidView::read();
        let attached = attach::attach(
            &kernel,
            LoadOptions {
                ring_bytes: options.ring_bytes,
                netns: (options.watched == Watched::Own).then_some(own),
                processes,
                diagnostics: options.diagnostics,
                methods: options.methods,
                trace_all_fd_syscalls: options.trace_all_fd_syscalls,
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
        let mut gaps = Gaps::of(rights::effective());
        gaps.set(Unread::Tracefs, attached.tracefs);
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
            schedule: ScanSchedule::new(options.scans),
            host,
            processes,
            walk: Walk::default(),
            resolver: Resolver::new(),
            undecodable: 0,
            missed: None,
            losses: Losses::default(),
            gaps,
            published: Gaps::default(),
            unread_files: Gap::default(),
            next_host: started,
            next_namespaces: started,
            next_search: started,
            next_walk: started,
        };
        // Without a first scan there is nothing to show.
        engine.look_around().map_err(|because| ProbeError::Refused { because })?;
        engine.publish_gaps();
        Ok(engine)
    }

    /// Everything as it is now, with at most `destinations` of each endpoint.
    #[must_use]
    pub fn snapshot(&mut self, destinations: usize) -> Snapshot {
        self.feed.snapshot(SystemTime::now(), self.started.elapsed(), destinations)
    }

    /// The connections that match the query: the youngest, at most `most` of them.
    #[must_use]
    pub fn connections(&self, query: &Query, most: usize) -> Connections {
        self.feed.model().connections(query, self.started.elapsed(), most)
    }

    /// The model.
    pub(crate) const fn model(&self) -> &Model {
        self.feed.model()
    }

    /// Resets totals and peaks.
    pub(crate) fn restart_totals(&mut self) {
        self.feed.take(Input::RestartTotals);
    }

    /// Applies the records in the ring buffer, then runs each scan or reading that is due.
    pub fn poll(&mut self) -> anyhow::Result<()> {
        let drained = self.drain();
        // A record is lost only when the ring is full. Without a record there is no such loss. The reading of the host
        // finds the other losses.
        if drained.records > 0 {
            self.take_losses();
        }
        self.name_members();
        if self.feed.take_scan_request() {
            self.schedule.hurry();
        }
        let now = Instant::now();
        let is_named = now >= self.next_search && self.feed.model().unread_namespaces().next().is_some();
        let has_new_devices = now >= self.next_search && self.feed.model().has_unread_devices();
        if is_named || has_new_devices || now >= self.next_namespaces {
            self.read_namespaces_or_skip();
        }
        if self.schedule.is_due(now, self.feed.model().events_total()) {
            self.scan_or_skip();
        }
        if now >= self.next_host {
            self.read_host_or_skip();
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

    /// Applies every record in the ring buffer.
    fn drain(&mut self) -> Drained {
        let Self { live, feed, namespaces, walk, undecodable, started, .. } = self;
        let now = started.elapsed();
        let mut drained = Drained::default();
        live.drain(|record| {
            if let Some(pass) = decode::pass_end(record) {
                drained.ended = Some(pass);
                return;
            }
            match feed.take_at(now, Input::Record(record)) {
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
            }
        });
        drained
    }

    /// Reports losses to the model; a new one requests a scan.
    fn take_losses(&mut self) {
        let losses = Losses { undecodable: self.undecodable, missed: self.missed, ..self.live.losses() };
        // This runs many times a second: unchanged losses make no input.
        if std::mem::replace(&mut self.losses, losses) != losses
            && matches!(self.feed.take(Input::Losses(losses)), Outcome::NewLosses)
        {
            self.schedule.ask();
        }
    }
}

/// Fails if this process lacks the capabilities for BPF, as far as /proc/self shows.
pub fn require_rights() -> Result<(), ProbeError> {
    if rights::in_user_namespace() {
        return Err(ProbeError::UserNamespace);
    }
    let missing = rights::missing();
    if missing.is_empty() { Ok(()) } else { Err(ProbeError::MissingCapabilities { missing: missing.join(" and ") }) }
}
