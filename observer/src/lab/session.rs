//! One run of a lab: its workers, the engine that watches, and the presenter of its events.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    presenter::{LabEvent, Presenter},
    report::{Check, CheckValue, Measurement, Point},
    stage,
    watcher::Watcher,
    worker::request::Connect,
    worker_pool::{Connected, WorkerPool},
};
use crate::{
    frame::transcript::Speaker,
    model::{
        headroom::PortUse,
        limit::{LimitKind, Scope},
        snapshot::{Direction, EndpointRow, Snapshot},
        units::TcpState,
    },
};

/// No lab runs for longer.
pub(super) const TIME_LIMIT: Duration = Duration::from_mins(10);
/// How long to wait for the engine or the kernel to settle.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two progress events.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two looks at an awaited condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a lab works with.
pub(super) struct Session<'a> {
    /// At most this many connections at a time.
    pub(super) scale: u32,
    /// Its worker processes.
    pub(super) workers: WorkerPool,
    /// Checks so far.
    pub(super) checks: Vec<Check>,
    /// Measured numbers that do not affect the verdict.
    pub(super) measurements: Vec<Measurement>,
    /// Points measured so far.
    pub(super) curve: Vec<Point>,
    /// Why the measurement does not decide, where it does not.
    pub(super) inconclusive_reason: Option<String>,
    watcher: Option<Watcher>,
    presenter: &'a mut dyn Presenter,
    steps: u32,
}

impl<'a> Session<'a> {
    pub(super) fn new(scale: u32, watcher: Option<Watcher>, presenter: &'a mut dyn Presenter) -> Self {
        Self {
            scale,
            workers: WorkerPool::new(Instant::now() + TIME_LIMIT),
            checks: Vec::new(),
            measurements: Vec::new(),
            curve: Vec::new(),
            inconclusive_reason: None,
            watcher,
            presenter,
            steps: 0,
        }
    }

    /// Announces the next step.
    pub(super) fn step(&mut self, title: impl Into<String>) -> anyhow::Result<()> {
        self.presenter.wait()?;
        self.steps += 1;
        self.show(LabEvent::Step { number: self.steps, title: title.into() })
    }

    /// Says what the rule predicts.
    pub(super) fn theory(&mut self, words: impl Into<String>) -> anyhow::Result<()> {
        self.show(LabEvent::Said(Speaker::Theory, words.into()))
    }

    /// Says what the kernel did.
    pub(super) fn kernel(&mut self, words: impl Into<String>) -> anyhow::Result<()> {
        self.show(LabEvent::Said(Speaker::Kernel, words.into()))
    }

    /// Says what observer counts or predicts.
    pub(super) fn observer(&mut self, words: impl Into<String>) -> anyhow::Result<()> {
        self.show(LabEvent::Said(Speaker::Observer, words.into()))
    }

    /// Shows the points of the curve measured so far.
    pub(super) fn show_curve(&mut self) -> anyhow::Result<()> {
        self.show(LabEvent::Curve(self.curve.clone()))
    }

    fn show(&mut self, event: LabEvent) -> anyhow::Result<()> {
        self.presenter.show(event)
    }

    /// Adds a check.
    pub(super) fn check(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Adds a measured number that does not affect the verdict.
    pub(super) fn measurement(&mut self, what: impl Into<String>, value: u64, unit: &'static str) {
        self.measurements.push(Measurement { what: what.into(), value, unit });
    }

    /// What `wanted` finds in a snapshot right after a scan; `None` where observer lacks the rights. If a scan lost
    /// records or came in the middle of a change, this waits for the next one.
    pub(super) fn observed<T>(&self, wanted: impl Fn(&Snapshot) -> Option<T>) -> anyhow::Result<Option<T>> {
        let Some(watcher) = &self.watcher else { return Ok(None) };
        let (reading, deadline) = (stage::read(), Instant::now() + PATIENCE);
        // The engine reads sysctls every second: it may not know the one that the lab has just set.
        let knows_sysctls = |snapshot: &Snapshot| {
            snapshot
                .namespaces
                .iter()
                .any(|row| (row.port_range, row.tcp_tw_reuse) == (reading.port_range, reading.tcp_tw_reuse))
        };
        let mut scanned = false;
        loop {
            let snapshot = watcher.snapshot(scanned, TIME_LIMIT)?;
            if scanned
                && knows_sysctls(&snapshot)
                && !snapshot.quality.is_unhealed()
                && let Some(found) = wanted(&snapshot)
            {
                return Ok(Some(found));
            }
            ensure!(Instant::now() < deadline, "observer did not report what the lab asked for within {PATIENCE:?}");
            if !scanned && knows_sysctls(&snapshot) {
                scanned = true;
            } else {
                thread::sleep(POLL_INTERVAL);
            }
        }
    }

    /// What observer has counted from events alone, without a scan.
    pub(super) fn live<T>(&self, wanted: impl Fn(&Snapshot) -> Option<T>) -> anyhow::Result<Option<T>> {
        let snapshot = self.watcher.as_ref().map(|watcher| watcher.snapshot(false, TIME_LIMIT)).transpose()?;
        Ok(snapshot.as_ref().and_then(wanted))
    }

    /// How many more connect()s will succeed, as observer predicts. Observer knows a destination once it has a
    /// connection.
    pub(super) fn predicted(&self, from: Ipv4Addr, to: SocketAddrV4) -> anyhow::Result<Option<u32>> {
        self.observed(|snapshot| ports(snapshot, from, to)?.left())
    }

    /// Opens all connections at once and shows the progress: observer's live count or, without one, the clients'.
    pub(super) fn connect_at_once(&mut self, at: SocketAddrV4, requests: &[Connect]) -> anyhow::Result<u32> {
        let Self { workers, watcher, presenter, .. } = self;
        let of = requests.iter().map(|request| u64::from(request.most)).sum();
        let mut next = Instant::now();
        let connected = workers.connect_at_once(requests, |opened| {
            if Instant::now() < next {
                return Ok(());
            }
            next = Instant::now() + PROGRESS_INTERVAL;
            let snapshot = watcher.as_ref().map(|watcher| watcher.snapshot(false, TIME_LIMIT)).transpose()?;
            let counted = snapshot.as_ref().and_then(|it| Some(inbound(it, at)?.states.get(TcpState::Established)));
            presenter.show(LabEvent::Progress { what: "connections", done: counted.unwrap_or(opened).into(), of })
        })?;
        Ok(connected.opened)
    }

    /// Opens connections until the kernel refuses one, at most `of` + 1, and shows the progress.
    pub(super) fn connect_until_refused(&mut self, connect: Connect, of: u32) -> anyhow::Result<Connected> {
        let mut sum = Connected::default();
        while sum.refused.is_none() && sum.opened <= of {
            let most = (of / 10).max(1).min(of + 1 - sum.opened);
            let Connected { opened, refused, connect_median_ns } = self.workers.connect(Connect { most, ..connect })?;
            sum = Connected { opened: sum.opened + opened, refused, connect_median_ns };
            self.presenter.show(LabEvent::Progress { what: "connections", done: sum.opened.into(), of: of.into() })?;
        }
        Ok(sum)
    }
}

/// Waits until a condition outside observer holds.
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Waits until the namespace has no connection left.
pub(super) fn wait_until_closed() -> anyhow::Result<()> {
    wait_until("all connections to be closed", || Ok(stage::read().established_or_close_wait == Some(0)))
}

/// A count as the value of a check.
pub(super) fn value(count: Option<impl Into<CheckValue>>) -> Option<CheckValue> {
    count.map(Into::into)
}

/// The endpoint row of a server's address.
pub(super) fn inbound(snapshot: &Snapshot, at: SocketAddrV4) -> Option<&EndpointRow> {
    snapshot.endpoints.iter().find(|row| {
        let key = &row.key;
        (key.direction, key.local_ip, key.local_port) == (Direction::Inbound, IpAddr::V4(*at.ip()), Some(at.port()))
    })
}

/// Port use from a local address towards a destination.
pub(super) fn ports(snapshot: &Snapshot, from: Ipv4Addr, to: SocketAddrV4) -> Option<PortUse> {
    let is_source =
        |row: &&EndpointRow| row.key.direction == Direction::Outbound && row.key.local_ip == IpAddr::V4(from);
    let row = snapshot.endpoints.iter().find(is_source)?;
    row.destinations.iter().find(|row| row.remote == to.into())?.ports
}

/// How many connections wait at a listener.
pub(super) fn queue(snapshot: &Snapshot, at: SocketAddrV4) -> Option<u64> {
    let limit = snapshot.limits.iter().find(|limit| {
        let is_at = matches!(limit.scope, Scope::Listener { local, .. } if local == at.into());
        limit.kind == LimitKind::AcceptQueue && is_at
    })?;
    Some(limit.used)
}
