//! Frames of the running kernel.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Detail, Frame, FrameSource, LocalReadings};
use crate::{
    engine::{Engine, EngineOptions, Purpose, Scans},
    host::{addresses, netns, proc, processes},
    model::units::{NetnsId, Pid},
};

/// An engine on this host.
pub struct LiveSource {
    engine: Engine,
    own: NetnsId,
    started: Instant,
}

impl LiveSource {
    /// Attaches and scans once; later scans come as the engine's schedule has them.
    pub fn start(options: EngineOptions) -> anyhow::Result<Self> {
        proc::require()?;
        let own = netns::current().context("read /proc/thread-self/ns/net")?;
        let engine = Engine::start(options)?;
        Ok(Self { engine, own, started: Instant::now() })
    }

    /// Attaches and scans, for a single frame.
    pub fn once(options: EngineOptions) -> anyhow::Result<Self> {
        let (purpose, scans) = (Purpose::OneFrame, Scans::OnlyAtStart);
        Self::start(EngineOptions { purpose, scans, max_cost: None, ..options })
    }
}

impl FrameSource for LiveSource {
    fn advance_to(&mut self, at: Duration) -> anyhow::Result<bool> {
        let at = tokio::time::Instant::from_std(self.started + at);
        self.engine.poll_until(async { tokio::time::sleep_until(at).await })?;
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
