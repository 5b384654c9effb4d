//! The model, and the only way to change it: every input is also recorded, if a recording was requested.

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
    /// Knows nothing yet.
    pub(super) fn new(hooks: Vec<HookStatus>, basis: Basis, started: Instant, recording: Option<Writer<File>>) -> Self {
        Self { model: Model::new(hooks, basis), started, recording, failed: None }
    }

    /// Takes in what is so now.
    pub(super) fn take(&mut self, input: Input<'_>) -> Outcome {
        self.take_at(self.started.elapsed(), input)
    }

    /// As [`Self::take`], for those who ask the clock more rarely.
    pub(super) fn take_at(&mut self, now: Duration, input: Input<'_>) -> Outcome {
        if let Some(recording) = &mut self.recording
            && let Err(error) = recording.write(now, &input)
        {
            self.recording = None;
            self.failed = Some(error);
        }
        input::apply(&mut self.model, now, input)
    }

    /// What is known.
    pub(super) const fn model(&self) -> &Model {
        &self.model
    }

    /// As [`Model::take_scan_request`].
    pub(super) fn take_scan_request(&mut self) -> bool {
        self.model.take_scan_request()
    }

    /// As [`Model::take_forgotten_cgroups`].
    pub(super) fn take_forgotten_cgroups(&mut self) -> Vec<CgroupId> {
        self.model.take_forgotten_cgroups()
    }

    /// As [`Model::snapshot`].
    pub(super) fn snapshot(&mut self, taken_at: SystemTime, uptime: Duration, destinations: usize) -> Snapshot {
        self.model.snapshot(taken_at, uptime, destinations)
    }

    /// Fails if the recording could not be written.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.failed.take().map_or(Ok(()), Err).context("write the recording")
    }

    /// Completes the recording, if there is one.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<Tally>> {
        self.check()?;
        self.recording.map(Writer::finish).transpose().context("write the recording")
    }
}
