//! A recorder: a directory of segments within a bound, of which the oldest go. Each segment is a recording of its own. What is
//! recorded around an incident is kept apart.
//!
//! `streams` says where a segment begins and ends; `shelf` what is there and what goes first; `directory` carries it out; `name`
//! has the names, which are the only index.
//!
//! **Invariant**: all files and folders together never take more than [`RecorderBounds::bytes`], also while one is written.
//! **Invariant**: an error of the disk ends a segment, and never the recorder: it is counted, and what is not written is.

mod directory;
pub(crate) mod name;
mod shelf;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;

pub(crate) use self::shelf::AROUND;
use self::{
    directory::Directory,
    name::{IncidentName, SegmentName},
    shelf::{NoRoom, Removal, Shelf},
};
use super::{
    incident::Incident,
    queue::{Consumer, Item},
};
use crate::{
    errno,
    host::{clock::wall_clock, privileges::User},
    model::alarm::Severity,
};

/// After an error the next segment begins so much later.
const RETRY: Duration = Duration::from_secs(10);

/// What a recorder keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderBounds {
    /// For so long.
    pub keep: Duration,
    /// Bytes of everything in the directory, at most.
    pub bytes: u64,
    /// Incidents, at most.
    pub incidents: u64,
}

impl RecorderBounds {
    /// A segment has to hold a round of scans.
    pub const LEAST_BYTES: u64 = 1 << 20;
}

impl Default for RecorderBounds {
    fn default() -> Self {
        Self { keep: Duration::from_hours(1), bytes: 512 << 20, incidents: 10 }
    }
}

/// When a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentBounds {
    /// The next round of scans after so long begins another one,
    pub(super) length: Duration,
    /// or after so many bytes.
    pub(super) enough: u64,
    /// It never gets more bytes, whether such a round comes or not.
    pub(super) most: u64,
}

impl SegmentBounds {
    const fn of(bounds: RecorderBounds) -> Self {
        let sixtieth = bounds.keep.as_secs() / 60;
        let seconds = if sixtieth < 10 { 10 } else { sixtieth };
        let length = Duration::from_secs(if sixtieth > 300 { 300 } else { seconds });
        Self { length, enough: bounds.bytes / 16, most: bounds.bytes / 4 }
    }
}

/// How a recorder stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecorderStatus {
    /// Room that everything in the directory takes.
    pub bytes: u64,
    /// The bound on it.
    pub most_bytes: u64,
    /// Segments of the history.
    pub segments: u64,
    /// When the oldest one began, since the Unix epoch.
    pub oldest: Option<Duration>,
    /// Incidents that are kept.
    pub incidents: u64,
    /// How often the system refused to write.
    pub errors: u64,
    /// The last of these, in words.
    pub last_error: Option<String>,
    /// Inputs that were not recorded.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct State {
    status: RecorderStatus,
    /// When a segment ended with an error, until another begins.
    failed_at: Option<Instant>,
    /// The last segment that did, counted from the first that this recorder was to begin.
    ended: u64,
    /// Inputs that came after that, or were lost before and could not be reported, and are not in [`Handle::take_dropped`] yet.
    dropped: u64,
}

/// What other threads know of a recorder.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Mutex<State>>);

impl Handle {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> RecorderStatus {
        self.lock().status.clone()
    }

    /// The last segment that ended with an error, counted by beginnings, from 1: nothing more of it is written.
    pub(super) fn ended(&self) -> u64 {
        self.lock().ended
    }

    fn note(&self, error: &io::Error) {
        tracing::warn!(%error, "the recorder");
        let status = &mut self.lock().status;
        status.errors += 1;
        status.last_error = Some(errno::describe(error));
    }

    /// Whether the next segment may begin.
    pub(super) fn may_begin(&self) -> bool {
        self.lock().failed_at.is_none_or(|at| at.elapsed() >= RETRY)
    }

    /// Inputs that no segment has, and none reports as lost.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.lock().dropped)
    }

    /// So many inputs never came to the recorder.
    pub(super) fn add_lost(&self, inputs: u64) {
        self.lock().status.lost += inputs;
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct OpenSegment {
    name: SegmentName,
    file: File,
    /// Of whole chunks.
    bytes: u64,
}

/// Writes to a directory of its own.
#[derive(Debug)]
pub struct Recorder {
    directory: Directory,
    shelf: Shelf,
    open: Option<OpenSegment>,
    has_begun: bool,
    /// Beginnings that came, with those that failed.
    beginnings: u64,
    /// Of the newest incident.
    severity: Option<Severity>,
    handle: Handle,
    bounds: RecorderBounds,
}

impl Recorder {
    /// Opens the directory, or makes it, and brings what is in it within the bounds. Where root calls this and becomes `owner`
    /// later, everything in it belongs to that user.
    pub fn open(path: &Path, bounds: RecorderBounds, owner: Option<User>) -> anyhow::Result<Self> {
        let directory = Directory::open(path, owner)?;
        let (shelf, handle) = (Shelf::new(bounds), Handle::default());
        let (has_begun, beginnings, severity) = (false, 0, None);
        let mut recorder = Self { directory, shelf, open: None, has_begun, beginnings, severity, handle, bounds };
        let adopted = recorder.adopt().and_then(|()| recorder.make_room(0));
        adopted.with_context(|| format!("read the directory {}", errno::printable(path)))?;
        recorder.publish();
        Ok(recorder)
    }

    /// For other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// When its segments end.
    pub(super) const fn segment_bounds(&self) -> SegmentBounds {
        SegmentBounds::of(self.bounds)
    }

    /// What an earlier recorder has left. A segment that it did not complete is good up to its last whole chunk.
    fn adopt(&mut self) -> io::Result<()> {
        let mut found = self.directory.segments()?;
        found.sort_unstable_by_key(|found| found.name.number);
        for segment in found.iter().filter(|segment| segment.name.is_open) {
            self.directory.rename_complete(segment.name)?;
        }
        let ends: Vec<Duration> = found.iter().skip(1).map(|next| next.name.began).chain([wall_clock()]).collect();
        for (segment, ended) in found.iter().zip(ends) {
            self.shelf.add_found(segment.name.number, segment.name.began, ended, segment.bytes, true);
        }
        for (name, found) in self.directory.incidents()? {
            for segment in &found {
                self.shelf.add_found(segment.name.number, segment.name.began, name.at, segment.bytes, false);
            }
            let numbers: BTreeSet<u64> = found.iter().map(|segment| segment.name.number).collect();
            self.shelf.add_incident(name, numbers);
        }
        self.link()
    }

    /// Removes what has to go before `more` bytes are written.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        loop {
            match self.shelf.next_removal(more, wall_clock()) {
                Ok(None) => return Ok(()),
                Ok(Some(removal)) => self.remove(removal)?,
                Err(NoRoom) => return Err(io::Error::other("the bound on bytes leaves no room for a segment")),
            }
        }
    }

    fn remove(&mut self, removal: Removal) -> io::Result<()> {
        match removal {
            Removal::Segment(number) => {
                if let Some(began) = self.shelf.began(number) {
                    self.directory.remove_segment(SegmentName { number, began, is_open: false })?;
                }
            }
            Removal::Incident(number) => {
                if let Some(name) = self.shelf.incident(number) {
                    self.directory.remove_incident(name)?;
                }
            }
        }
        self.shelf.remove(removal);
        Ok(())
    }

    /// The next segment begins.
    fn begin(&mut self, bytes: &[u8], at: Duration) -> io::Result<()> {
        self.complete()?;
        self.make_room(bytes.len() as u64)?;
        let name = SegmentName { number: self.shelf.next_number(), began: at, is_open: true };
        let file = self.directory.create(name)?;
        self.shelf.open(name.number, at);
        self.open = Some(OpenSegment { name, file, bytes: 0 });
        self.write(bytes)?;
        self.has_begun = true;
        self.handle.lock().failed_at = None;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.make_room(length)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.write_all(bytes)?;
        open.bytes += length;
        self.shelf.add_bytes(open.name.number, length);
        Ok(())
    }

    /// Completes the segment that is being written.
    fn complete(&mut self) -> io::Result<()> {
        let Some(OpenSegment { name, file, .. }) = self.open.take() else { return Ok(()) };
        self.shelf.close(name.number, wall_clock());
        self.directory.complete(name, &file)?;
        self.link_or_note();
        Ok(())
    }

    /// What cannot be kept apart is no reason not to record: not every filesystem has links.
    fn link_or_note(&mut self) {
        if let Err(error) = self.link() {
            self.handle.note(&error);
        }
    }

    /// Puts segments that are complete to the incidents that they are around.
    fn link(&mut self) -> io::Result<()> {
        for (incident, number) in self.shelf.missing_links() {
            let segment = self.shelf.began(number).map(|began| SegmentName { number, began, is_open: false });
            let (Some(segment), Some(name)) = (segment, self.shelf.incident(incident)) else { continue };
            self.directory.link(segment, name)?;
            self.shelf.link(incident, number);
        }
        Ok(())
    }

    /// Keeps what is recorded around this moment. Within a minute of another incident it is the same one, under the name of the
    /// worst of it.
    fn keep_apart(&mut self, incident: &Incident) -> io::Result<()> {
        let Incident { at, severity, words } = incident;
        // Names have whole seconds: at the next one the alarm has come.
        let (at, words) = (Duration::from_secs(at.as_secs() + 1), words.clone());
        if let Some(name) = self.shelf.incident_at(at).cloned() {
            if self.severity.is_some_and(|known| known >= *severity) {
                return Ok(());
            }
            let worse = IncidentName { at, words, ..name.clone() };
            self.directory.rename_incident(&name, &worse)?;
            let segments = self.shelf.segments_of(name.number).into_iter().map(|(number, _)| number).collect();
            self.shelf.add_incident(worse, segments);
        } else {
            let name = IncidentName { number: self.shelf.next_incident(), at, words };
            self.directory.make_incident(&name)?;
            self.shelf.add_incident(name, BTreeSet::new());
        }
        self.severity = Some(*severity);
        self.link()?;
        self.make_room(0)
    }

    /// Ends the segment at its last whole chunk. What comes until the next one begins is not recorded.
    fn fail(&mut self, error: &io::Error) {
        if let Some(OpenSegment { name, file, bytes }) = self.open.take() {
            // A disk without room still lets go of some.
            let _ = file.set_len(bytes);
            self.shelf.close(name.number, wall_clock());
            // One that did not even begin is no segment: its number comes again.
            let ended = if bytes == 0 {
                self.shelf.remove(Removal::Segment(name.number));
                self.directory.remove_segment(name)
            } else {
                self.directory.complete(name, &file)
            };
            if let Err(error) = ended {
                self.handle.note(&error);
            }
            self.link_or_note();
        }
        self.handle.note(error);
        let mut state = self.handle.lock();
        state.failed_at = Some(Instant::now());
        state.ended = self.beginnings;
    }

    fn publish(&self) {
        let status = &mut self.handle.lock().status;
        status.bytes = self.shelf.bytes();
        status.most_bytes = self.bounds.bytes;
        status.segments = self.shelf.len();
        status.oldest = self.shelf.oldest();
        status.incidents = self.shelf.incident_count();
    }
}

impl Consumer for Recorder {
    /// Fails only where not even a first segment can be made.
    fn take(&mut self, item: &Item) -> io::Result<()> {
        let taken = match item {
            Item::Beginning { bytes, at, .. } => {
                self.beginnings += 1;
                self.begin(bytes, *at)
            }
            Item::Chunk { bytes, .. } if self.open.is_some() => self.write(bytes),
            Item::Chunk { inputs, .. } => {
                self.drop_inputs(*inputs);
                Ok(())
            }
            Item::Incident(incident) => {
                self.keep_apart(incident).unwrap_or_else(|error| self.handle.note(&error));
                Ok(())
            }
        };
        if let Err(error) = taken {
            self.fail(&error);
            match item {
                Item::Chunk { inputs, .. } => self.drop_inputs(*inputs),
                // They are in the status already.
                Item::Beginning { lost, .. } => self.handle.lock().dropped += lost,
                Item::Incident(_) => {}
            }
            if !self.has_begun {
                return Err(error);
            }
        }
        self.publish();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let completed = self.complete();
        self.publish();
        completed
    }
}

impl Recorder {
    fn drop_inputs(&self, inputs: u64) {
        let mut state = self.handle.lock();
        state.dropped += inputs;
        state.status.lost += inputs;
    }
}

#[cfg(test)]
mod tests;
