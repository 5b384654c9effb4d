//! One reader of the engine's inputs: a file, a pipe, a viewer, or a recorder.

use std::{fs::File, io, sync::Arc, time::Duration};

use super::{
    Tally,
    gathered::ChunkCounts,
    incident::Watch,
    queue::{Consumer, Destination, Item, Pushed, Queue},
    recorder::{Handle, Recorder, SegmentBounds},
};

/// Where a stream goes, and what its end means.
pub enum Sink {
    /// A recording: without it the engine ends.
    Recording(Destination),
    /// A viewer, who may come and go.
    Viewer(Destination),
    /// Segments, of which the oldest go.
    Recorder(Recorder),
}

impl From<File> for Sink {
    fn from(file: File) -> Self {
        Self::Recording(Box::new(file))
    }
}

impl From<Recorder> for Sink {
    fn from(recorder: Recorder) -> Self {
        Self::Recorder(recorder)
    }
}

/// How far a reader has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It begins, or goes on, with the next round of scans.
    Waiting,
    /// It gets what comes; the names of services are missing.
    Scanning,
    /// It gets what comes.
    Live,
}

/// What the end of a stream means, and what else its reader needs.
pub(super) enum Role {
    Recording,
    Viewer,
    Recorder(Segments),
}

/// The segment that a recorder writes.
pub(super) struct Segments {
    pub(super) handle: Handle,
    pub(super) bounds: SegmentBounds,
    pub(super) watch: Watch,
    pub(super) began: Duration,
    pub(super) bytes: u64,
    /// Which beginning of the recorder it has, from 1.
    pub(super) beginning: u64,
}

impl Segments {
    fn new(recorder: &Recorder) -> Self {
        let (handle, bounds) = (recorder.handle(), recorder.segment_bounds());
        Self { handle, bounds, watch: Watch::default(), began: Duration::ZERO, bytes: 0, beginning: 0 }
    }

    fn begin(&mut self, now: Duration) {
        (self.began, self.bytes, self.beginning) = (now, 0, self.beginning + 1);
    }

    /// Whether the segment takes this too.
    fn has_room(&self, bytes: u64) -> bool {
        self.bytes + bytes <= self.bounds.most && self.handle.ended() < self.beginning
    }

    const fn has_enough(&self) -> bool {
        self.bytes >= self.bounds.enough
    }

    fn is_long_enough(&self, now: Duration) -> bool {
        self.has_enough() || now.saturating_sub(self.began) >= self.bounds.length
    }
}

/// A stream, and how far its reader has got.
pub(super) struct StreamReader {
    pub(super) queue: Queue,
    pub(super) role: Role,
    pub(super) phase: Phase,
    pub(super) has_begun: bool,
    /// Inputs that it has to be notified of.
    pub(super) lost: u64,
    pub(super) tally: Tally,
}

impl StreamReader {
    pub(super) fn new(sink: Sink, max_waiting: usize) -> Self {
        let (consumer, role): (Box<dyn Consumer>, Role) = match sink {
            Sink::Recording(destination) => (Box::new(destination), Role::Recording),
            Sink::Viewer(destination) => (Box::new(destination), Role::Viewer),
            Sink::Recorder(recorder) => {
                let segments = Segments::new(&recorder);
                (Box::new(recorder), Role::Recorder(segments))
            }
        };
        let (queue, tally) = (Queue::new(consumer, max_waiting), Tally::default());
        Self { queue, role, phase: Phase::Waiting, has_begun: false, lost: 0, tally }
    }

    /// Whether it can begin, or go on.
    pub(super) fn is_ready(&self) -> bool {
        let may_begin = match &self.role {
            Role::Recorder(segments) => segments.handle.may_begin(),
            Role::Recording | Role::Viewer => true,
        };
        self.phase == Phase::Waiting && self.queue.has_room() && may_begin
    }

    /// Whether its segment has what belongs into one.
    pub(super) fn wants_segment(&self, now: Duration) -> bool {
        match &self.role {
            Role::Recorder(segments) => self.phase == Phase::Live && segments.is_long_enough(now),
            Role::Recording | Role::Viewer => false,
        }
    }

    /// Whether it loses inputs, or soon will, until a round of scans.
    pub(super) fn wants_to_go_on(&self) -> bool {
        let is_nearly_full = match &self.role {
            Role::Recorder(segments) => self.phase == Phase::Live && segments.has_enough(),
            Role::Recording | Role::Viewer => false,
        };
        self.has_begun && (self.is_ready() || is_nearly_full)
    }

    /// Whether something of it begins with a round of scans that begins now.
    pub(super) fn begins_now(&self, now: Duration) -> bool {
        self.is_ready() || self.wants_segment(now)
    }

    /// It begins with these bytes, which report so many lost inputs.
    pub(super) fn begin(&mut self, bytes: Vec<u8>, lost: u64, at: Duration, now: Duration) {
        self.has_begun = true;
        let length = bytes.len() as u64;
        // A segment begins however full the queue is: what follows is lost where there is no room.
        if self.queue.push_always(Item::Beginning { bytes: Arc::from(bytes), at, lost }) == Pushed::Taken {
            self.count_beginning(length, now);
        }
    }

    pub(super) fn count_beginning(&mut self, bytes: u64, now: Duration) {
        self.tally.bytes += bytes;
        self.tally.last_at = now;
        if let Role::Recorder(segments) = &mut self.role {
            segments.begin(now);
            segments.bytes = bytes;
        }
    }

    /// Inputs that were lost since it was last notified.
    pub(super) fn take_lost(&mut self) -> u64 {
        let inputs = std::mem::take(&mut self.lost);
        match &self.role {
            // Its status counts them, also those that come back because a beginning failed.
            Role::Recorder(segments) => inputs + segments.handle.take_dropped(),
            Role::Recording | Role::Viewer => {
                self.tally.lost += inputs;
                inputs
            }
        }
    }

    pub(super) fn pass_all(&mut self, chunks: &[(Arc<[u8]>, ChunkCounts)]) {
        for (chunk, counts) in chunks {
            self.pass(chunk, *counts);
        }
    }

    pub(super) fn pass(&mut self, chunk: &Arc<[u8]>, counts: ChunkCounts) {
        if self.phase == Phase::Waiting {
            self.lose(counts.inputs);
            return;
        }
        let has_room = match &self.role {
            Role::Recorder(segments) => segments.has_room(counts.bytes),
            Role::Recording | Role::Viewer => true,
        };
        let item = Item::Chunk { bytes: Arc::clone(chunk), inputs: counts.inputs };
        match if has_room { self.queue.push(item) } else { Pushed::Full } {
            Pushed::Taken => {
                if let Role::Recorder(segments) = &mut self.role {
                    segments.bytes += counts.bytes;
                }
                self.tally.bytes += counts.bytes;
                self.tally.records += counts.records;
                self.tally.last_at = counts.last_at;
            }
            Pushed::Full => {
                self.phase = Phase::Waiting;
                self.lose(counts.inputs);
            }
            // See `end_readers`.
            Pushed::Gone => {}
        }
    }

    pub(super) fn lose(&mut self, inputs: u64) {
        if !self.has_begun {
            return;
        }
        self.lost += inputs;
        if let Role::Recorder(segments) = &self.role {
            segments.handle.add_lost(inputs);
        }
    }

    pub(super) fn finish(self) -> io::Result<Tally> {
        let Self { queue, role, tally, lost, .. } = self;
        queue.finish()?;
        let lost = match role {
            // It counts what came too late for it too.
            Role::Recorder(segments) => segments.handle.status().lost,
            Role::Recording | Role::Viewer => tally.lost + lost,
        };
        Ok(Tally { lost, ..tally })
    }
}
