//! The inputs of a running engine, on their way to any number of readers: a file, a pipe, viewers on a socket.
//!
//! A reader can begin at any round of scans over all namespaces and all open files. Then it first gets what a model has to know beside a scan: the last readings of
//! the host and of every namespace. The round shows all sockets, and after it come the names of services. From there on its
//! model is that of the engine, except for what the engine counted before.
//!
//! A recorder begins again and again: each of its segments begins with such a round, and the one before it ends there.
//!
//! A reader that takes less than comes loses whole chunks. At the next such round it gets how many inputs that were, and
//! begins again as above, with the model that it has: the scan corrects what the loss left wrong.
//!
//! **Invariant**: nothing here waits for a reader, except the end of a recording.

use std::{io, sync::Arc, time::Duration};

use super::{
    Header, Tally,
    gathered::{ChunkCounts, Gathered},
    incident::Incident,
    queue::Item,
    stream_reader::{Phase, Role, Sink, StreamReader},
    writer,
};
use crate::{
    host::clock::wall_clock,
    input::Input,
    model::{Basis, alarm::Alarm, quality::StreamLoss, units::NetnsId},
};

/// All readers, and what they get next.
pub struct Streams {
    about: Header,
    readers: Vec<StreamReader>,
    gathered: Gathered,
    /// Bytes that wait for a reader, at most.
    max_waiting: usize,
}

impl Streams {
    /// Nobody reads yet. `about` is the header of a recording that begins with the engine; at most so many bytes will wait for a
    /// reader.
    #[must_use]
    pub fn new(about: Header, max_waiting: usize) -> Self {
        Self { about, readers: Vec::new(), gathered: Gathered::default(), max_waiting }
    }

    /// Adds a reader that gets everything: the engine has had no input yet.
    pub fn add_at_start(&mut self, sink: Sink) -> io::Result<()> {
        let mut reader = StreamReader::new(sink, self.max_waiting);
        reader.phase = Phase::Live;
        let bytes = Arc::<[u8]>::from(writer::beginning(&self.about)?);
        let length = bytes.len() as u64;
        reader.queue.write_now(&Item::Beginning { bytes, at: self.about.started_at, lost: 0 })?;
        reader.has_begun = true;
        reader.count_beginning(length, Duration::ZERO);
        self.readers.push(reader);
        Ok(())
    }

    /// Begins to write to those that were added at start, from threads with the rights that the calling one has now.
    pub fn start(&mut self) -> io::Result<()> {
        self.readers.iter_mut().try_for_each(|reader| reader.queue.start())
    }

    /// Adds a reader that begins with the next round of scans.
    pub fn add(&mut self, sink: Sink) -> io::Result<()> {
        let mut reader = StreamReader::new(sink, self.max_waiting);
        reader.queue.start()?;
        self.readers.push(reader);
        Ok(())
    }

    /// Whether somebody waits for a round of scans to begin with it, or began with one that was not completed.
    #[must_use]
    pub fn wants_scan(&self) -> bool {
        self.readers.iter().any(|reader| !reader.has_begun || reader.phase == Phase::Scanning)
    }

    /// Whether somebody who has lost inputs has caught up, or a recorder will soon lose some: it goes on with a round of scans.
    #[must_use]
    pub fn wants_to_go_on(&self) -> bool {
        self.readers.iter().any(StreamReader::wants_to_go_on)
    }

    /// Whether a recorder's segment is to end with the next round of scans.
    #[must_use]
    pub fn wants_segment(&self, now: Duration) -> bool {
        self.readers.iter().any(|reader| reader.wants_segment(now))
    }

    /// Keeps apart what a recorder has of the minutes around this moment, if something became urgent.
    pub fn note_alarms(&mut self, now: Duration, alarms: &[Alarm]) {
        let recorders = self.readers.iter_mut().filter_map(|reader| match &mut reader.role {
            Role::Recorder(segments) => Some((&reader.queue, &mut segments.watch)),
            Role::Recording | Role::Viewer => None,
        });
        for (queue, watch) in recorders {
            if let Some(alarm) = watch.worst_new(now, alarms) {
                let incident = Incident { at: wall_clock(), severity: alarm.severity(), words: alarm.words() };
                queue.push_always(Item::Incident(incident));
            }
        }
    }

    /// Takes in the next input.
    pub fn write(&mut self, now: Duration, input: &Input<'_>) -> io::Result<()> {
        if self.readers.is_empty() {
            return Ok(());
        }
        if self.readers.iter().all(|reader| reader.phase == Phase::Waiting) {
            self.readers.iter_mut().for_each(|reader| reader.lose(1));
            return Ok(());
        }
        self.gathered.add(now, input)?;
        self.pass_on(now)
    }

    /// Passes on what has waited long enough.
    pub fn pass_on(&mut self, now: Duration) -> io::Result<()> {
        if self.gathered.is_due(now) { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut chunk = Vec::new();
        let Some(counts) = self.gathered.write_to(&mut chunk)? else { return Ok(()) };
        let chunk = Arc::from(chunk);
        for reader in &mut self.readers {
            reader.pass(&chunk, counts);
        }
        self.end_readers()
    }

    /// A round of scans over everything begins: whoever waits begins with it. `readings` are what is known of the host and its namespaces.
    pub fn begin_round(&mut self, now: Duration, readings: impl FnOnce() -> Vec<Input<'static>>) -> io::Result<()> {
        if !self.readers.iter().any(|reader| reader.begins_now(now)) {
            return Ok(());
        }
        self.flush()?;
        let (header, readings) = (self.header_at(now), readings());
        let namespaces: Vec<NetnsId> = readings.iter().filter_map(namespace_of).collect();
        let readings = packed(now, &readings)?;
        for reader in self.readers.iter_mut().filter(|reader| reader.begins_now(now)) {
            let lost = reader.take_lost();
            let notice = notice_of(lost, &namespaces).map_or_else(|| Ok(Vec::new()), |loss| packed(now, &[loss]))?;
            reader.phase = Phase::Scanning;
            if !reader.has_begun || matches!(reader.role, Role::Recorder(_)) {
                // Written together or not at all: what a segment could not report, the next one does.
                let mut bytes = writer::beginning(&header)?;
                for (chunk, _) in &notice {
                    bytes.extend_from_slice(chunk);
                }
                reader.begin(bytes, lost, header.started_at, now);
            } else {
                reader.pass_all(&notice);
            }
            reader.pass_all(&readings);
        }
        self.end_readers()
    }

    /// A round of scans is complete: whoever began with it gets the names of `services`.
    pub fn end_round(&mut self, now: Duration, services: impl FnOnce() -> Vec<Input<'static>>) -> io::Result<()> {
        if !self.readers.iter().any(|reader| reader.phase == Phase::Scanning) {
            return Ok(());
        }
        self.flush()?;
        let services = packed(now, &services())?;
        for reader in self.readers.iter_mut().filter(|reader| reader.phase == Phase::Scanning) {
            reader.phase = Phase::Live;
            reader.pass_all(&services);
        }
        self.end_readers()
    }

    /// Completes all streams. Waits for the recording, and returns what it holds.
    pub fn finish(mut self) -> io::Result<Option<Tally>> {
        self.flush()?;
        let recording = self.readers.into_iter().find(|reader| !matches!(reader.role, Role::Viewer));
        recording.map(StreamReader::finish).transpose()
    }

    /// Waits for all streams.
    #[cfg(test)]
    fn flush_all(mut self) -> io::Result<()> {
        self.flush()?;
        self.readers.into_iter().try_for_each(|reader| reader.finish().map(drop))
    }

    fn header_at(&self, now: Duration) -> Header {
        let basis = self.about.basis;
        Header {
            started_at: wall_clock(),
            basis: Basis { started_at: basis.started_at.map(|at| at + now), ..basis },
            begins_at: now,
            ..self.about.clone()
        }
    }

    /// Takes out the readers that are gone; fails if the recording is among them.
    fn end_readers(&mut self) -> io::Result<()> {
        let mut failed = None;
        self.readers.retain(|reader| match reader.queue.outcome() {
            None => true,
            Some(outcome) if !matches!(reader.role, Role::Viewer) => {
                failed = outcome.err();
                false
            }
            Some(outcome) => {
                tracing::debug!(?outcome, "a viewer is gone");
                false
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

/// Inputs of the same time, in as many chunks as they need.
fn packed(now: Duration, inputs: &[Input<'_>]) -> io::Result<Vec<(Arc<[u8]>, ChunkCounts)>> {
    let (mut gathered, mut chunks) = (Gathered::default(), Vec::new());
    let mut cut = |gathered: &mut Gathered| {
        let mut chunk = Vec::new();
        let counts = gathered.write_to(&mut chunk)?;
        chunks.extend(counts.map(|counts| (Arc::from(chunk), counts)));
        io::Result::Ok(())
    };
    for input in inputs {
        gathered.add(now, input)?;
        if gathered.is_due(now) {
            cut(&mut gathered)?;
        }
    }
    cut(&mut gathered)?;
    Ok(chunks)
}

/// That so many inputs were lost, if any were.
fn notice_of(inputs: u64, namespaces: &[NetnsId]) -> Option<Input<'static>> {
    (inputs > 0).then(|| Input::StreamLoss(Box::new(StreamLoss { inputs, namespaces: namespaces.to_vec() })))
}

fn namespace_of(input: &Input<'_>) -> Option<NetnsId> {
    match input {
        Input::Namespace(netns, _) => Some(*netns),
        _ => None,
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
