//! Frames of a recording. Nothing of the machine that reads it is in them.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};

use super::{Detail, Frame, FrameSource};
use crate::{
    model::{snapshot::Snapshot, units::NetnsId},
    replay::{self, Begin, Connected, Reel},
};

/// A recording, read from its start to its end. Of a recorder's directory the last one.
pub struct RecordedSource {
    reel: Reel,
}

impl RecordedSource {
    /// Opens a file or a recorder's directory; `-` is standard input.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { reel: Reel::open(path)? })
    }

    /// The same at a wall-clock time, or at an incident.
    pub(crate) fn open_at(path: &Path, begin: &Begin) -> anyhow::Result<Self> {
        let (reel, position) = Reel::seekable(path, begin)?;
        let mut source = Self { reel };
        source.advance_to(position)?;
        source.reel.check_end(position)?;
        // A recording begins with a scan: in the moment before that has ended, what it shows is the first that is known.
        if source.reel.replay_mut().snapshot(0).quality.scans_total == 0 {
            source.seek_first_scan()?;
        }
        Ok(source)
    }

    /// The stream of a running service, from its first scan on.
    pub fn attach(path: &Path) -> anyhow::Result<Self> {
        Self::of_service(replay::connect(path)?)
    }

    /// The same of a service that is connected.
    pub(crate) fn of_service(service: Connected) -> anyhow::Result<Self> {
        let Connected { replay, name, .. } = service;
        let mut source = Self { reel: Reel::of_stream(name, replay) };
        source.seek_first_scan()?;
        Ok(source)
    }

    /// Takes in all of it. Fails if that is over before the moment `from`.
    pub fn finish(&mut self, from: Duration) -> anyhow::Result<()> {
        self.reel.advance(Duration::MAX)?;
        Ok(self.reel.check_end(from)?)
    }

    /// Goes to a moment, `None` for the end. Fails beyond the end, and before the first complete scan: nothing is known
    /// there that a live command would print.
    pub fn seek(&mut self, at: Option<Duration>) -> anyhow::Result<()> {
        match at {
            None => self.finish(Duration::ZERO)?,
            Some(at) => {
                self.advance_to(at)?;
                self.reel.check_end(at)?;
            }
        }
        self.require_scan()
    }

    /// Goes to where a live command prints first: the first scan of every namespace, and the reading of the host after
    /// it.
    pub fn seek_first_scan(&mut self) -> anyhow::Result<()> {
        let name = self.reel.name();
        self.reel.replay_mut().advance_to_first_reading().context(name)?;
        self.require_scan()
    }

    fn require_scan(&mut self) -> anyhow::Result<()> {
        let scans = self.reel.replay_mut().snapshot(0).quality.scans_total;
        ensure!(
            scans > 0,
            "{} has no complete scan in its first {:.3} seconds",
            self.reel.name(),
            self.reel.now().as_secs_f64()
        );
        Ok(())
    }
}

impl FrameSource for RecordedSource {
    fn advance_to(&mut self, at: Duration) -> anyhow::Result<bool> {
        self.reel.advance(at)?;
        Ok(!self.reel.is_over())
    }

    fn now(&self) -> Duration {
        self.reel.now()
    }

    fn frame(&mut self, detail: Detail) -> anyhow::Result<Frame> {
        let snapshot = self.reel.replay_mut().snapshot(detail.destinations);
        let own = own_of(&snapshot);
        Ok(Frame { own, ..Frame::from(snapshot) })
    }
}

/// A recording does not say in which namespace observer ran.
fn own_of(snapshot: &Snapshot) -> Option<NetnsId> {
    match snapshot.namespaces.as_slice() {
        [only] => Some(only.netns),
        rows => rows.iter().find(|row| row.name.as_deref() == Some("host")).map(|row| row.netns),
    }
}
