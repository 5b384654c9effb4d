//! One run of a lab: its namespace, its workers, observer beside it, and who is told.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    crew::{Connected, Crew},
    narrator::{Narrator, Told},
    report::{Check, Fact, Point, Value},
    stage,
    watcher::Watcher,
    worker::order::Connect,
};
use crate::model::{
    headroom::PortUse,
    limit::{LimitKind, Scope},
    narration::Voice,
    snapshot::{Direction, EndpointRow, Snapshot},
    units::TcpState,
};

/// No lab goes on for longer.
pub(super) const TIME_LIMIT: Duration = Duration::from_mins(10);
/// How long the engine and the kernel may take to settle.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two words about how far a step is.
const TELL: Duration = Duration::from_millis(250);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// What a lab works with.
pub(super) struct Session<'a> {
    /// At most so many connections at a time.
    pub(super) scale: u32,
    /// Its worker processes.
    pub(super) crew: Crew,
    /// What it found so far.
    pub(super) checks: Vec<Check>,
    pub(super) facts: Vec<Fact>,
    pub(super) curve: Vec<Point>,
    pub(super) inconclusive: Option<String>,
    watcher: Option<Watcher>,
    narrator: &'a mut dyn Narrator,
    steps: u32,
}

impl<'a> Session<'a> {
    pub(super) fn new(scale: u32, watcher: Option<Watcher>, narrator: &'a mut dyn Narrator) -> Self {
        Self {
            scale,
            crew: Crew::new(Instant::now() + TIME_LIMIT),
            checks: Vec::new(),
            facts: Vec::new(),
            curve: Vec::new(),
            inconclusive: None,
            watcher,
            narrator,
            steps: 0,
        }
    }

    /// Tells what is about to happen.
    pub(super) fn step(&mut self, title: impl Into<String>) -> anyhow::Result<()> {
        self.narrator.wait()?;
        self.steps += 1;
        self.tell(Told::Step { number: self.steps, title: title.into() })
    }

    /// Tells what the rule says.
    pub(super) fn theory(&mut self, words: impl Into<String>) -> anyhow::Result<()> {
        self.tell(Told::Line(Voice::Theory, words.into()))
    }

    /// Tells what the kernel did.
    pub(super) fn kernel(&mut self, words: impl Into<String>) -> anyhow::Result<()> {
        self.tell(Told::Line(Voice::Kernel, words.into()))
    }

    /// Tells what observer sees or foretells.
    pub(super) fn observer(&mut self, words: impl Into<String>) -> anyhow::Result<()> {
        self.tell(Told::Line(Voice::Observer, words.into()))
    }

    /// Shows a curve as far as it is measured.
    pub(super) fn show_curve(&mut self) -> anyhow::Result<()> {
        self.tell(Told::Curve(self.curve.clone()))
    }

    fn tell(&mut self, told: Told) -> anyhow::Result<()> {
        self.narrator.tell(told)
    }

    /// Writes a statement down.
    pub(super) fn check(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Writes a number down that no verdict hangs on.
    pub(super) fn fact(&mut self, what: impl Into<String>, value: u64, unit: &'static str) {
        self.facts.push(Fact { what: what.into(), value, unit });
    }

    /// What `wanted` finds in a snapshot that a scan has just confirmed; `None` where observer may not look. It is given
    /// some time: a scan that lost records, or one in the middle of a change, is followed by another.
    pub(super) fn observed<T>(&self, wanted: impl Fn(&Snapshot) -> Option<T>) -> anyhow::Result<Option<T>> {
        let Some(watcher) = &self.watcher else { return Ok(None) };
        let (reading, deadline) = (stage::read(), Instant::now() + PATIENCE);
        // Sysctls are read every second: one that the lab has just set may not be known yet.
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
            ensure!(Instant::now() < deadline, "observer did not find what it was asked for");
            if !scanned && knows_sysctls(&snapshot) {
                scanned = true;
            } else {
                thread::sleep(LOOK);
            }
        }
    }

    /// What observer has counted by events so far, without a scan.
    pub(super) fn live<T>(&self, wanted: impl Fn(&Snapshot) -> Option<T>) -> anyhow::Result<Option<T>> {
        let snapshot = self.watcher.as_ref().map(|watcher| watcher.snapshot(false, TIME_LIMIT)).transpose()?;
        Ok(snapshot.as_ref().and_then(wanted))
    }

    /// How many connect()s observer foretells to succeed. It knows of a destination once it has one connection.
    pub(super) fn foretold(&self, from: Ipv4Addr, to: SocketAddrV4) -> anyhow::Result<Option<u32>> {
        self.observed(|snapshot| ports(snapshot, from, to)?.left())
    }

    /// Opens all connections at once, and tells how far they are: as observer counts them live, or else by their clients.
    pub(super) fn connect_at_once(&mut self, at: SocketAddrV4, orders: &[Connect]) -> anyhow::Result<u32> {
        let Self { crew, watcher, narrator, .. } = self;
        let of = orders.iter().map(|order| u64::from(order.most)).sum();
        let mut next = Instant::now();
        let connected = crew.connect_at_once(orders, |opened| {
            if Instant::now() < next {
                return Ok(());
            }
            next = Instant::now() + TELL;
            let snapshot = watcher.as_ref().map(|watcher| watcher.snapshot(false, TIME_LIMIT)).transpose()?;
            let counted = snapshot.as_ref().and_then(|it| Some(inbound(it, at)?.states.get(TcpState::Established)));
            narrator.tell(Told::Progress { what: "connections", done: counted.unwrap_or(opened).into(), of })
        })?;
        Ok(connected.opened)
    }

    /// Opens connections to be refused at one more than `of`, and tells how far they are.
    pub(super) fn connect_until_refused(&mut self, connect: Connect, of: u32) -> anyhow::Result<Connected> {
        let mut sum = Connected::default();
        while sum.refused.is_none() && sum.opened <= of {
            let most = (of / 10).max(1).min(of + 1 - sum.opened);
            let Connected { opened, refused, median_nanos } = self.crew.connect(Connect { most, ..connect })?;
            sum = Connected { opened: sum.opened + opened, refused, median_nanos };
            self.narrator.tell(Told::Progress { what: "connections", done: sum.opened.into(), of: of.into() })?;
        }
        Ok(sum)
    }
}

/// Waits until something outside of observer holds.
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until no connection of the namespace is left.
pub(super) fn wait_until_closed() -> anyhow::Result<()> {
    wait_until("all connections to be closed", || Ok(stage::read().established_or_close_wait == Some(0)))
}

/// A count, as a statement holds it.
pub(super) fn value(count: Option<impl Into<Value>>) -> Option<Value> {
    count.map(Into::into)
}

/// The row of a server's address.
pub(super) fn inbound(snapshot: &Snapshot, at: SocketAddrV4) -> Option<&EndpointRow> {
    snapshot.endpoints.iter().find(|row| {
        let key = &row.key;
        (key.direction, key.local_ip, key.local_port) == (Direction::Inbound, IpAddr::V4(*at.ip()), Some(at.port()))
    })
}

/// The ports from an address towards a destination.
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
