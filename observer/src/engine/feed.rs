//! The model, and the only way to change it. Each input also goes to whoever reads along: a recording, viewers.

use std::{
    io,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use rustc_hash::FxHashSet;

use crate::{
    host::clock::Uptime,
    input::{self, Input, Outcome},
    model::{Model, service::CgroupId, snapshot::Snapshot, units::NetnsId},
    recording::{Header, Sink, Streams, Tally},
};

/// The model of a live engine.
pub(super) struct Feed {
    model: Model,
    uptime: Uptime,
    streams: Streams,
    /// The recording could not be written on.
    failed: Option<io::Error>,
}

impl Feed {
    /// An empty model.
    pub(super) fn new(header: Header, uptime: Uptime, max_waiting: usize) -> Self {
        let model = Model::new(header.hooks.clone(), header.basis);
        Self { model, uptime, streams: Streams::new(header, max_waiting), failed: None }
    }

    /// Everything from the first input on goes there too.
    pub(super) fn record(&mut self, sink: Sink) -> anyhow::Result<()> {
        self.streams.add_at_start(sink).context("write the recording")
    }

    /// Everything from the next round of scans on goes there too.
    pub(super) fn stream_to(&mut self, sink: Sink) -> io::Result<()> {
        self.streams.add(sink)
    }

    /// See [`Streams::wants_scan`].
    pub(super) fn wants_scan(&self) -> bool {
        self.streams.wants_scan()
    }

    /// See [`Streams::wants_to_go_on`].
    pub(super) fn wants_to_go_on(&self) -> bool {
        self.streams.wants_to_go_on()
    }

    /// See [`Streams::wants_segment`].
    pub(super) fn wants_segment(&self) -> bool {
        self.streams.wants_segment(self.uptime.elapsed())
    }

    /// A second has passed: what became urgent in it is kept apart by a recorder.
    pub(super) fn tick(&mut self) {
        let now = self.uptime.elapsed();
        self.take_at(now, Input::Tick);
        self.streams.note_alarms(now, self.model.alarms());
    }

    /// A round of scans over all namespaces and all open files begins.
    pub(super) fn begin_round(&mut self) {
        let now = self.uptime.elapsed();
        let passed = self.streams.begin_round(now, || input::readings(&self.model));
        self.note(passed);
    }

    /// It is complete.
    pub(super) fn end_round(&mut self) {
        let now = self.uptime.elapsed();
        let passed = self.streams.end_round(now, || input::services(&self.model));
        self.note(passed);
    }

    /// Applies an input at the present time.
    pub(super) fn take(&mut self, input: Input<'_>) -> Outcome {
        self.take_at(self.uptime.elapsed(), input)
    }

    /// Like [`Self::take`], with a time that the caller read.
    pub(super) fn take_at(&mut self, now: Duration, input: Input<'_>) -> Outcome {
        let passed = self.streams.write(now, &input);
        self.note(passed);
        input::apply(&mut self.model, now, input)
    }

    /// As [`Self::take_at`] of a record that is applied with a later one, which is not taken yet.
    pub(super) fn take_joined_at(&mut self, now: Duration, record: &[u8], next: &[u8]) -> Outcome {
        self.pass_at(now, record);
        input::apply_joined(&mut self.model, now, record, next)
    }

    /// Takes a record that need not be applied: whoever reads along gets it.
    pub(super) fn leave_out_at(&mut self, now: Duration, record: &[u8]) {
        self.pass_at(now, record);
        input::leave_out(&mut self.model);
    }

    fn pass_at(&mut self, now: Duration, record: &[u8]) {
        let passed = self.streams.write(now, &Input::Record(record));
        self.note(passed);
    }

    fn note(&mut self, passed: io::Result<()>) {
        if let Err(error) = passed {
            self.failed.get_or_insert(error);
        }
    }

    /// The model.
    pub(super) const fn model(&self) -> &Model {
        &self.model
    }

    /// See [`Model::take_scan_requests`].
    pub(super) fn take_scan_requests(&mut self) -> FxHashSet<NetnsId> {
        self.model.take_scan_requests()
    }

    /// See [`Model::take_forgotten_cgroups`].
    pub(super) fn take_forgotten_cgroups(&mut self) -> Vec<CgroupId> {
        self.model.take_forgotten_cgroups()
    }

    /// See [`Model::snapshot`].
    pub(super) fn snapshot(&mut self, taken_at: SystemTime, uptime: Duration, destinations: usize) -> Snapshot {
        self.model.snapshot(taken_at, uptime, destinations)
    }

    /// Passes on what has waited long enough: called when rights are reduced, because this starts threads. Fails if the recording could not be written.
    pub(super) fn pass_on(&mut self) -> anyhow::Result<()> {
        let passed = self.streams.start().and_then(|()| self.streams.pass_on(self.uptime.elapsed()));
        self.note(passed);
        self.check()
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.failed.take().map_or(Ok(()), Err).context("write the recording")
    }

    /// Completes the recording, if there is one.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<Tally>> {
        self.check()?;
        self.streams.finish().context("write the recording")
    }
}
