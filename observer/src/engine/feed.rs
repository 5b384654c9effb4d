//! The model, and the only way to change it. If there is a recording, each input also goes there.

use std::{
    fs::File,
    io,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;

use crate::{
    input::{self, Input, Outcome},
    model::{Basis, Model, quality::HookStatus, service::CgroupId, snapshot::Snapshot},
    recording::{Tally, Writer},
};

/// The model of a live engine.
pub(super) struct Feed {
    model: Model,
    started: Instant,
    recording: Option<Writer<File>>,
    /// The recording could not be written on.
    failed: Option<io::Error>,
}

impl Feed {
    /// An empty model.
    pub(super) fn new(hooks: Vec<HookStatus>, basis: Basis, started: Instant, recording: Option<Writer<File>>) -> Self {
        Self { model: Model::new(hooks, basis), started, recording, failed: None }
    }

    /// Applies an input at the present time.
    pub(super) fn take(&mut self, input: Input<'_>) -> Outcome {
        self.take_at(self.started.elapsed(), input)
    }

    /// Like [`Self::take`], with a time that the caller read.
    pub(super) fn take_at(&mut self, now: Duration, input: Input<'_>) -> Outcome {
        if let Some(recording) = &mut self.recording
            && let Err(error) = recording.write(now, &input)
        {
            self.recording = None;
            self.failed = Some(error);
        }
        input::apply(&mut self.model, now, input)
    }

    /// The model.
    pub(super) const fn model(&self) -> &Model {
        &self.model
    }

    /// See [`Model::take_scan_request`].
    pub(super) fn take_scan_request(&mut self) -> bool {
        self.model.take_scan_request()
    }

    /// See [`Model::take_forgotten_cgroups`].
    pub(super) fn take_forgotten_cgroups(&mut self) -> Vec<CgroupId> {
        self.model.take_forgotten_cgroups()
    }

    /// See [`Model::snapshot`].
    pub(super) fn snapshot(&mut self, taken_at: SystemTime, uptime: Duration, destinations: usize) -> Snapshot {
        self.model.snapshot(taken_at, uptime, destinations)
    }

    /// Fails if a write to the recording has failed.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.failed.take().map_or(Ok(()), Err).context("write the recording")
    }

    /// Completes the recording, if there is one.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<Tally>> {
        self.check()?;
        self.recording.map(Writer::finish).transpose().context("write the recording")
    }
}
