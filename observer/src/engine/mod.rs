//! Owns the source and the model. The engine drains the ring buffer, scans, reads the host and publishes snapshots. It
//! runs on its own thread, which waits for no other thread.

mod cost;
mod drain;
mod feed;
mod host;
mod namespaces;
mod options;
mod proofs;
mod readings;
mod reduce;
mod rest;
mod rounds;
mod schedule;
mod services;
mod walk;

use std::{
    io,
    time::{Duration, Instant, SystemTime},
};

pub(crate) use self::reduce::reduction;
use self::{
    cost::CostControl,
    feed::Feed,
    host::HostReader,
    namespaces::Namespaces,
    proofs::Proofs,
    readings::Looked,
    schedule::{Cause, Schedule, Waiting},
    walk::Walk,
};
pub use self::{
    options::{EngineOptions, FirstLook, Purpose, Watched},
    reduce::{AfterAttach, NewUser},
    rest::Rest,
    schedule::Scans,
};
use crate::{
    errno::Refusal,
    host::{
        cgroup::Resolver,
        clock::{self, Uptime},
        netns,
        pid_namespace::PidView,
        privileges::Reduction,
        proc, rights,
    },
    input::{Input, Outcome},
    model::{
        Basis, Model,
        gaps::{Gap, Gaps, Unread},
        quality::{Hook, HookStatus, Losses},
        query::{Connections, Query},
        snapshot::Snapshot,
        units::NetnsId,
    },
    probe::{
        attach::{self, LoadOptions},
        error::ProbeError,
        kernel::Kernel,
    },
    recording::{Header, Recorder, Sink, Tally},
    source::live::Live,
};
use anyhow::Context as _;
use rustc_hash::FxHashMap;

/// Time between two reads of the ring buffer, which its hooks shorten when a part of it is full. Each read finds the caches cold: many
/// events at a time cost less than few, and nothing that is shown has to be younger.
const POLL: Duration = Duration::from_millis(250);
/// The same while there is a scan or a reading that somebody needs soon.
const POLL_WANTED: Duration = Duration::from_millis(50);
/// The same after the ring was more than a quarter full.
const POLL_SOON: Duration = Duration::from_millis(10);
/// Time between two readings of the processes' open files.
const READ_HOST: Duration = Duration::from_secs(1);
/// Time between two walks over all processes, which find namespaces that no event has named.
const WALK: Duration = Duration::from_secs(3);
/// How long the records of an iterator may stay behind one that another task has not finished: that task may be without a CPU.
const PASS_END: Duration = Duration::from_secs(1);
/// Time between two looks for the end of them.
const PASS_END_LOOK: Duration = Duration::from_micros(200);
/// An interrupt during a hook's run mostly makes so many runs missed, at most.
const FEW_RUNS: u64 = 2;
/// The shortest time between two searches for namespaces that events have named.
const SEARCH: Duration = Duration::from_millis(100);

/// Source and model, attached and scanned once.
pub struct Engine {
    options: EngineOptions,
    live: Live,
    feed: Feed,
    namespaces: Namespaces,
    uptime: Uptime,
    schedule: Schedule,
    proofs: Proofs,
    /// Scans of namespaces that were completed.
    finished_scans: u64,
    /// How long the rounds of the first scan took so far, without what came between them, and what they found.
    first_scan: (Duration, u32),
    /// The last reading of each namespace.
    looked: FxHashMap<NetnsId, Looked>,
    host: HostReader,
    processes: PidView,
    walk: Walk,
    resolver: Resolver,
    /// Bytes that one look at the ring found since the last poll began, the most.
    fullest: u32,
    undecodable: u64,
    missed: Option<u64>,
    /// The losses that the engine last gave to the model.
    losses: Losses,
    /// Keeps the cost below `--max-cost`, if there is one.
    cost: Option<CostControl>,
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

impl Engine {
    /// Attaches the hooks, gives up rights and scans once.
    pub fn start(options: EngineOptions) -> anyhow::Result<Self> {
        Self::start_reduced(options, None).map(|(engine, _)| engine)
    }

    /// The same, with what this thread gave up: other threads of the process do it too. A recorder takes everything in from the
    /// first input on.
    pub fn start_reduced(
        options: EngineOptions,
        recorder: Option<Recorder>,
    ) -> anyhow::Result<(Self, Option<Reduction>)> {
        let purpose = options.purpose;
        let mut engine = Self::attach(options, || Ok(recorder.map(Sink::Recorder)))?;
        let reduction = engine.reduce_rights()?;
        if purpose == Purpose::OneFrame {
            engine.live.detach_from_calls(Hook::Failures);
        }
        engine.look_first()?;
        Ok((engine, reduction))
    }

    /// Attaches the hooks, scans once, and records every input. `open` says where to, after the hooks are attached. The
    /// rights stay until [`Self::reduce_rights`].
    pub fn start_recording<S: Into<Sink>>(
        options: EngineOptions,
        open: impl FnOnce() -> anyhow::Result<S>,
    ) -> anyhow::Result<Self> {
        let mut engine = Self::attach(options, || Ok(Some(open()?.into())))?;
        engine.look_first()?;
        Ok(engine)
    }

    /// Gives up what this thread needs no more, if the options say so; returns that.
    pub fn reduce_rights(&mut self) -> anyhow::Result<Option<Reduction>> {
        let AfterAttach::DropRights(user) = self.options.after_attach else { return Ok(None) };
        if self.options.watched == Watched::Own {
            // Afterwards other processes may be closed that name the namespace.
            let found = self.namespaces.refresh_own(&mut self.resolver);
            found.map_err(|error| Refusal::new("look for network namespaces", &error))?;
        }
        let reduction = reduce::reduction(|| self.live.serves_scans(), self.options.watched, self.processes, user);
        let kept = reduction.apply()?;
        tracing::info!(?reduction, ?kept, "rights are reduced");
        self.gaps.capabilities = rights::held();
        self.publish_gaps();
        Ok(Some(reduction))
    }

    /// Without a first scan there is nothing to show.
    fn look_first(&mut self) -> anyhow::Result<()> {
        self.look_around(self.options.first_look).map_err(|because| ProbeError::Refused { because })?;
        self.publish_gaps();
        Ok(())
    }

    fn attach(options: EngineOptions, open: impl FnOnce() -> anyhow::Result<Option<Sink>>) -> anyhow::Result<Self> {
        let wall_clock = SystemTime::now();
        let (started, uptime, started_at) = (Instant::now(), Uptime::start(), clock::kernel());
        proc::require()?;
        require_rights()?;
        rights::raise();
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
        let host = HostReader::new(started, options.first_look);
        let mut gaps = Gaps::of(rights::held());
        gaps.set(Unread::Tracefs, attached.tracefs);
        let header = header(wall_clock, host.kernel(), attached.hooks.clone(), basis);
        let mut feed = Feed::new(header, uptime, options.max_waiting);
        open()?.map_or(Ok(()), |sink| feed.record(sink))?;
        let live = Live::new(attached, options.diagnostics).context("read the kernel side's diagnostics")?;
        let mut engine = Self {
            options,
            live,
            feed,
            namespaces: Namespaces::new(own),
            uptime,
            schedule: Schedule::new(options.scans, started),
            proofs: Proofs::new(started),
            finished_scans: 0,
            first_scan: (Duration::ZERO, 0),
            looked: FxHashMap::default(),
            host,
            processes,
            walk: Walk::default(),
            resolver: Resolver::new(),
            fullest: 0,
            undecodable: 0,
            missed: None,
            losses: Losses::default(),
            cost: None,
            gaps,
            published: Gaps::default(),
            unread_files: Gap::default(),
            next_host: started,
            next_namespaces: started,
            next_search: started,
            next_walk: started,
        };
        if let Some(at_most) = options.max_cost {
            engine.limit_cost(at_most, started);
        }
        // What it was given, before it gives something up.
        engine.publish_gaps();
        Ok(engine)
    }

    /// Everything as it is now, with at most `destinations` of each endpoint.
    #[must_use]
    pub fn snapshot(&mut self, destinations: usize) -> Snapshot {
        self.feed.snapshot(SystemTime::now(), self.uptime.elapsed(), destinations)
    }

    /// The connections that match the query: the youngest, at most `most` of them.
    #[must_use]
    pub fn connections(&self, query: &Query, most: usize) -> Connections {
        self.feed.model().connections(query, self.uptime.elapsed(), most)
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
        self.fullest = 0;
        let drained = self.drain();
        // A record is lost only when the ring is full. Without a record there is no such loss. The reading of the host
        // finds the other losses.
        if drained.records > 0 {
            self.take_losses();
        }
        self.end_measurement();
        self.name_members();
        self.schedule.hurry(&self.feed.take_scan_requests());
        if self.feed.wants_scan() {
            self.schedule.show(Waiting::Begin);
        } else if self.feed.wants_to_go_on() {
            self.schedule.show(Waiting::GoOn);
        } else if self.feed.wants_segment() {
            self.schedule.show(Waiting::NextSegment);
        }
        let now = Instant::now();
        let is_named = now >= self.next_search && (self.has_unknown_namespaces() || self.has_unread_devices());
        if is_named || now >= self.next_namespaces {
            self.read_namespaces_or_skip();
        }
        self.scan_or_skip();
        if now >= self.next_host {
            self.read_host_or_skip();
        }
        self.feed.pass_on()
    }

    /// Everything from the next whole round of scans on also goes there. The round comes within a second, or within ten times
    /// what such a round takes here.
    pub fn stream_to(&mut self, sink: Sink) -> io::Result<()> {
        self.feed.stream_to(sink)
    }

    /// The time until the next poll.
    #[must_use]
    pub(crate) const fn pause(&self) -> Duration {
        if self.fullest > self.options.ring_bytes / 4 {
            POLL_SOON
        } else if self.schedule.is_wanted() {
            POLL_WANTED
        } else {
            POLL
        }
    }

    /// Detaches, and completes the recording, if there is one.
    pub fn finish(mut self) -> anyhow::Result<Option<Tally>> {
        self.drain();
        self.take_losses();
        self.feed.take(Input::Tick);
        self.feed.finish()
    }

    /// Reports losses to the model; a new one requests a scan.
    fn take_losses(&mut self) {
        let losses = Losses { undecodable: self.undecodable, missed: self.missed, ..self.live.losses() };
        // This runs many times a second: unchanged losses make no input.
        let before = std::mem::replace(&mut self.losses, losses);
        if before != losses && matches!(self.feed.take(Input::Losses(losses)), Outcome::NewLosses) {
            let lost = losses.since(before);
            let are_few_runs = lost.total() <= FEW_RUNS && lost.total() == lost.missed_if_reported();
            self.schedule.ask(if are_few_runs { Cause::MissedRuns } else { Cause::Doubt });
            self.proofs.note_loss();
        }
    }
}

/// What a recording or a stream of this engine begins with.
fn header(wall_clock: SystemTime, kernel: &str, hooks: Vec<HookStatus>, basis: Basis) -> Header {
    Header {
        observer: env!("CARGO_PKG_VERSION").to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        kernel: kernel.to_owned(),
        started_at: wall_clock.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        hooks,
        basis,
        begins_at: Duration::ZERO,
        losses_before: Losses::default(),
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
