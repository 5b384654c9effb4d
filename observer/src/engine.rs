//! The owner of source and model: drains, scans, reads the host, and publishes snapshots. Runs on a thread of its own;
//! nothing waits for it and it waits for nobody.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use tokio::sync::watch;

use crate::{
    host,
    model::{
        Model,
        event::Event,
        snapshot::Snapshot,
        trust::{Hook, Losses, ScanSummary},
        units::NetnsId,
    },
    probe::{
        attach::{self, Kernel, LoadOptions},
        error::ProbeError,
    },
    source::live::Live,
};

/// Bytes of the ring buffer: at 80 bytes a record, 100,000 records; at the 36 MB/s of a saturated loopback 230 ms.
const RING_BYTES: u32 = 8 << 20;
/// Between two looks at the ring. At 40 a second an idle engine costs next to nothing, and the ring holds ten times
/// what a saturated loopback writes in between.
const POLL: Duration = Duration::from_millis(25);
/// Between two snapshots for the screen.
const PUBLISH: Duration = Duration::from_millis(250);
/// Between two readings of sysctls and totals.
const READ_HOST: Duration = Duration::from_secs(1);
/// The shortest time between two scans.
const SCAN_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// A scan may take this part of the time: 2 %.
const SCAN_BUDGET: u32 = 50;
/// Destinations listed of each endpoint in snapshots for the screen.
const DESTINATIONS_ON_SCREEN: usize = 32;

/// When the kernel's tables are scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scans {
    /// At start and then as often as the budget allows.
    Regularly,
    /// Only at start: for tests of what events alone tell.
    OnlyAtStart,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When to scan.
    pub scans: Scans,
    /// Whether the kernel side sends its diagnostics.
    pub diagnostics: bool,
}

/// Source and model, attached and scanned once.
pub struct Engine {
    live: Live,
    model: Model,
    netns: NetnsId,
    started: Instant,
    scans: Scans,
    last_scan: Option<Scanned>,
    undecodable: u64,
    next_reading: Instant,
}

/// What decides when the next scan is due.
#[derive(Clone, Copy)]
struct Scanned {
    at: Instant,
    took: Duration,
    /// Losses counted when it began.
    losses: u64,
}

impl Engine {
    /// Attaches to the network namespace of the calling thread and takes in what is there.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let started = Instant::now();
        require_rights()?;
        let netns = host::netns::current().context("read /proc/thread-self/ns/net")?;
        let kernel = Kernel::read()?;
        let attached = attach::attach(
            &kernel,
            LoadOptions { ring_bytes: RING_BYTES, netns: Some(netns), diagnostics: options.diagnostics },
        )?;
        attached.require_vital_hooks()?;
        let mut model = Model::new(attached.hooks.clone());
        model.set_namespace(netns, host::netns::read());
        let live = Live::new(attached, options.diagnostics).context("read the kernel side's diagnostics")?;
        let mut engine = Self {
            live,
            model,
            netns,
            started,
            scans: options.scans,
            last_scan: None,
            undecodable: 0,
            next_reading: started,
        };
        engine.scan()?;
        engine.read_host();
        Ok(engine)
    }

    /// Everything as it is now, with at most `destinations` of each endpoint.
    #[must_use]
    pub fn snapshot(&self, destinations: usize) -> Snapshot {
        self.model.snapshot(SystemTime::now(), self.started.elapsed(), destinations)
    }

    /// Takes in what has come, and does what is due.
    pub fn poll(&mut self) -> anyhow::Result<()> {
        self.drain();
        if self.is_scan_due() {
            self.scan()?;
        }
        if Instant::now() >= self.next_reading {
            self.read_host();
        }
        Ok(())
    }

    /// Polls and publishes until nobody listens any more.
    pub fn run(mut self, publish: &watch::Sender<Arc<Snapshot>>) -> anyhow::Result<()> {
        let mut next_publish = Instant::now();
        while !publish.is_closed() {
            self.poll()?;
            if Instant::now() >= next_publish {
                publish.send_replace(Arc::new(self.snapshot(DESTINATIONS_ON_SCREEN)));
                next_publish = Instant::now() + PUBLISH;
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The first snapshot for the screen.
    #[must_use]
    pub fn first_snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.snapshot(DESTINATIONS_ON_SCREEN))
    }

    /// Scans the kernel's tables now.
    pub fn scan(&mut self) -> anyhow::Result<()> {
        self.drain();
        let losses = self.take_losses();
        let began = Instant::now();
        self.model.begin_scan(self.netns);
        match self.run_pass(Hook::Scan) {
            Ok(found) => {
                let took = began.elapsed();
                self.model.end_scan(ScanSummary { finished_at: self.started.elapsed(), took, found });
            }
            Err(error) => {
                self.model.abandon_scan();
                return Err(error);
            }
        }
        if self.live.has(Hook::Holders) {
            self.run_pass(Hook::Holders)?;
        }
        self.last_scan = Some(Scanned { at: Instant::now(), took: began.elapsed(), losses });
        Ok(())
    }

    /// One pass of an iterator, drained as it goes; returns how many sockets it found.
    fn run_pass(&mut self, hook: Hook) -> anyhow::Result<u32> {
        let mut pass = self
            .live
            .start_pass(hook)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("start the {hook} iterator"))?;
        let mut found = 0;
        loop {
            let more = pass.step().with_context(|| format!("read the {hook} iterator"))?;
            found += self.drain();
            if !more {
                return Ok(found);
            }
        }
    }

    /// Applies every record that is in the ring; returns how many of them a scan found.
    fn drain(&mut self) -> u32 {
        let Self { live, model, undecodable, started, .. } = self;
        let now = started.elapsed();
        let mut found = 0;
        live.drain(|event| match event {
            Ok(event) => {
                found += u32::from(matches!(event, Event::Scanned { .. }));
                model.apply(&event, now);
            }
            Err(error) => {
                *undecodable += 1;
                tracing::warn!(%error, "record");
            }
        });
        found
    }

    fn is_scan_due(&mut self) -> bool {
        let losses = self.take_losses();
        let Some(last) = self.last_scan else {
            return true;
        };
        if self.scans == Scans::OnlyAtStart {
            return false;
        }
        // A loss is healed at once, though not at the cost of more than half of the time.
        let wait = if losses > last.losses { last.took } else { SCAN_AT_MOST_EVERY.max(last.took * SCAN_BUDGET) };
        last.at.elapsed() >= wait
    }

    /// Tells the model of losses; returns their sum.
    fn take_losses(&mut self) -> u64 {
        let losses = Losses { undecodable: self.undecodable, ..self.live.losses() };
        self.model.set_losses(losses, self.started.elapsed());
        losses.total()
    }

    fn read_host(&mut self) {
        self.live.flush_diagnostics();
        self.model.set_namespace(self.netns, host::netns::read());
        self.model.set_host(host::files::read());
        self.model.tick(self.started.elapsed());
        self.next_reading = Instant::now() + READ_HOST;
    }
}

/// Fails if this process may not use BPF, by what it can know of itself.
pub fn require_rights() -> Result<(), ProbeError> {
    if host::rights::in_user_namespace() {
        return Err(ProbeError::UserNamespace);
    }
    let missing = host::rights::missing();
    if missing.is_empty() { Ok(()) } else { Err(ProbeError::MissingCapabilities(missing.join(" and "))) }
}
