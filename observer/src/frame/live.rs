//! Frames of the running kernel.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Detail, Frame, FrameSource, LocalReadings};
use crate::{
    engine::{Engine, EngineOptions, Purpose, Rest, Scans},
    host::{addresses, netns, proc, processes},
    model::units::{NetnsId, Pid},
};

/// An engine on this host.
pub struct LiveSource {
    engine: Engine,
    /// Opened at the start: later descriptors may be short. `None` of a source of one frame.
    rest: Option<Rest>,
    own: NetnsId,
    started: Instant,
}

impl LiveSource {
    /// Attaches and scans once; later scans come as the engine's schedule has them.
    pub fn start(options: EngineOptions) -> anyhow::Result<Self> {
        let source = Self::at_first(options)?;
        let rest = Some(source.engine.rest()?);
        Ok(Self { rest, ..source })
    }

    /// Attaches and scans, for a single frame.
    pub fn once(options: EngineOptions) -> anyhow::Result<Self> {
        let (purpose, scans) = (Purpose::OneFrame, Scans::OnlyAtStart);
        Self::at_first(EngineOptions { purpose, scans, max_cost: None, ..options })
    }

    fn at_first(options: EngineOptions) -> anyhow::Result<Self> {
        proc::require()?;
        let own = netns::current().context("read /proc/thread-self/ns/net")?;
        let engine = Engine::start(options)?;
        Ok(Self { engine, rest: None, own, started: Instant::now() })
    }
}

impl FrameSource for LiveSource {
    fn advance_to(&mut self, at: Duration) -> anyhow::Result<bool> {
        let Some(rest) = &self.rest else { return Ok(false) };
        let at = tokio::time::Instant::from_std(self.started + at);
        self.engine.poll_until(rest, async { tokio::time::sleep_until(at).await })?;
        Ok(true)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn frame(&mut self, detail: Detail) -> anyhow::Result<Frame> {
        let snapshot = self.engine.snapshot(detail.destinations);
        let local = detail.local.then(read_local).transpose()?;
        Ok(Frame { own: Some(self.own), local, ..Frame::from(snapshot) })
    }
}

fn read_local() -> anyhow::Result<LocalReadings> {
    let files = processes::read(&[Pid(std::process::id())]).pop();
    let addresses = addresses::read().context("list the addresses of this namespace")?;
    Ok(LocalReadings { addresses, files })
}
