//! Frames of a recording. Nothing of the machine that reads it is in them.

use std::{io::Read, path::Path, time::Duration};

use anyhow::{Context as _, ensure};

use super::{Detail, Frame, FrameSource};
use crate::{
    model::{snapshot::Snapshot, units::NetnsId},
    replay::{self, Replay},
};

/// A recording, read from its start to its end.
pub struct RecordedSource {
    replay: Replay<Box<dyn Read>>,
    name: String,
}

impl RecordedSource {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let (replay, name) = replay::open(path)?;
        Ok(Self { replay, name })
    }

    /// Takes in all of it.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.replay.finish().with_context(|| self.name.clone())
    }

    /// Goes to a moment, `None` for the end. Fails beyond the end, and before the first complete scan: nothing is known
    /// there that a live command would print.
    pub fn seek(&mut self, at: Option<Duration>) -> anyhow::Result<()> {
        match at {
            None => self.finish()?,
            Some(at) => {
                let goes_on = self.advance_to(at)?;
                let end = self.replay.now();
                ensure!(
                    goes_on || end >= at,
                    "{} ends at {:.3} seconds: {:.3} is after its end",
                    self.name,
                    end.as_secs_f64(),
                    at.as_secs_f64()
                );
            }
        }
        self.require_scan()
    }

    /// Goes to where a live command prints first: the first scan of every namespace, and the reading of the host after
    /// it.
    pub fn seek_first_scan(&mut self) -> anyhow::Result<()> {
        self.replay.advance_to_first_reading().with_context(|| self.name.clone())?;
        self.require_scan()
    }

    fn require_scan(&mut self) -> anyhow::Result<()> {
        let scans = self.replay.snapshot(0).quality.scans_total;
        ensure!(
            scans > 0,
            "{} has no complete scan in its first {:.3} seconds",
            self.name,
            self.replay.now().as_secs_f64()
        );
        Ok(())
    }
}

impl FrameSource for RecordedSource {
    fn advance_to(&mut self, at: Duration) -> anyhow::Result<bool> {
        self.replay.advance(at).with_context(|| self.name.clone())?;
        Ok(!self.replay.is_over())
    }

    fn now(&self) -> Duration {
        self.replay.now()
    }

    fn frame(&mut self, detail: Detail) -> anyhow::Result<Frame> {
        let snapshot = self.replay.snapshot(detail.destinations);
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
