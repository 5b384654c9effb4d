//! What a recorder keeps, and what goes first. Pure: the directory carries it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{RecorderBounds, name::IncidentName};

/// Filesystems give room in blocks; each file and each folder takes one more than its bytes say.
const BLOCK: u64 = 4096;
/// The folder itself and that of the incidents.
const FOLDERS: u64 = 2;
/// This much before and after its worst moment belongs to an incident.
pub(crate) const AROUND: Duration = Duration::from_mins(1);

/// A segment that is there, in the history or with an incident.
#[derive(Clone, Copy, Debug)]
struct Segment {
    began: Duration,
    /// `None` while it is being written.
    ended: Option<Duration>,
    bytes: u64,
    in_history: bool,
}

impl Segment {
    const fn room(&self) -> u64 {
        self.bytes.next_multiple_of(BLOCK)
    }
}

/// An incident that is there.
#[derive(Clone, Debug)]
struct Kept {
    name: IncidentName,
    /// The numbers of its segments.
    segments: BTreeSet<u64>,
}

impl Kept {
    fn is_around(&self, segment: &Segment) -> bool {
        let (from, to) = (self.name.at.saturating_sub(AROUND), self.name.at + AROUND);
        segment.began <= to && segment.ended.is_some_and(|ended| ended >= from)
    }
}

/// What has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// This segment leaves the history.
    Segment(u64),
    /// This incident goes, with its segments.
    Incident(u64),
}

/// All segments and incidents.
#[derive(Debug)]
pub(super) struct Shelf {
    bounds: RecorderBounds,
    segments: BTreeMap<u64, Segment>,
    incidents: BTreeMap<u64, Kept>,
}

impl Shelf {
    pub(super) const fn new(bounds: RecorderBounds) -> Self {
        Self { bounds, segments: BTreeMap::new(), incidents: BTreeMap::new() }
    }

    /// A complete segment that is there already.
    pub(super) fn add_found(&mut self, number: u64, began: Duration, ended: Duration, bytes: u64, in_history: bool) {
        let ended = Some(ended);
        let found = Segment { began, ended, bytes, in_history };
        self.segments.entry(number).and_modify(|known| known.in_history |= in_history).or_insert(found);
    }

    /// An incident that is there already.
    pub(super) fn add_incident(&mut self, name: IncidentName, segments: BTreeSet<u64>) {
        self.incidents.insert(name.number, Kept { name, segments });
    }

    /// A segment begins.
    pub(super) fn open(&mut self, number: u64, began: Duration) {
        self.segments.insert(number, Segment { began, ended: None, bytes: 0, in_history: true });
    }

    /// So many bytes were added to the one that is being written.
    pub(super) fn add_bytes(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.bytes += bytes;
        }
    }

    /// It is complete.
    pub(super) fn close(&mut self, number: u64, ended: Duration) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.ended = Some(ended);
        }
    }

    /// The number of the next segment, and of the next incident.
    pub(super) fn next_number(&self) -> u64 {
        self.segments.keys().next_back().map_or(1, |last| last + 1)
    }

    pub(super) fn next_incident(&self) -> u64 {
        self.incidents.keys().next_back().map_or(1, |last| last + 1)
    }

    /// The incident around whose worst moment this time lies.
    pub(super) fn incident_at(&self, at: Duration) -> Option<&IncidentName> {
        let kept = self.incidents.values().next_back()?;
        (at <= kept.name.at + AROUND).then_some(&kept.name)
    }

    /// The name of an incident that is there.
    pub(super) fn incident(&self, number: u64) -> Option<&IncidentName> {
        self.incidents.get(&number).map(|kept| &kept.name)
    }

    /// Segments that belong to an incident and are not with it yet, each with the incident. What would make incidents take more
    /// than half of all is not among them: the minute before says more than what comes after.
    pub(super) fn missing_links(&self) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut apart = self.apart();
        for (incident, kept) in &self.incidents {
            let around = self.segments.iter().filter(|(_, segment)| segment.in_history && kept.is_around(segment));
            for (number, segment) in around.filter(|(number, _)| !kept.segments.contains(number)) {
                apart += segment.room();
                if apart <= self.bounds.bytes / 2 {
                    missing.push((*incident, *number));
                }
            }
        }
        missing
    }

    /// A segment is with an incident now.
    pub(super) fn link(&mut self, incident: u64, segment: u64) {
        if let Some(kept) = self.incidents.get_mut(&incident) {
            kept.segments.insert(segment);
        }
    }

    /// The segments of an incident.
    pub(super) fn segments_of(&self, incident: u64) -> Vec<(u64, Duration)> {
        let numbers = self.incidents.get(&incident).into_iter().flat_map(|kept| &kept.segments);
        numbers.filter_map(|number| Some((*number, self.segments.get(number)?.began))).collect()
    }

    /// When a segment began.
    pub(super) fn began(&self, number: u64) -> Option<Duration> {
        self.segments.get(&number).map(|segment| segment.began)
    }

    /// Room that everything takes.
    pub(super) fn bytes(&self) -> u64 {
        let folders = FOLDERS + self.incidents.len() as u64;
        folders * BLOCK + self.segments.values().map(Segment::room).sum::<u64>()
    }

    /// How many segments the history has.
    pub(super) fn len(&self) -> u64 {
        self.history().count() as u64
    }

    /// How many incidents there are.
    pub(super) fn incident_count(&self) -> u64 {
        self.incidents.len() as u64
    }

    /// When the oldest segment of the history began.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.history().next().map(|(_, segment)| segment.began)
    }

    fn history(&self) -> impl Iterator<Item = (u64, &Segment)> {
        self.segments.iter().filter(|(_, segment)| segment.in_history).map(|(number, segment)| (*number, segment))
    }

    /// Room that incidents take, with what the history has too: that will leave the history.
    fn apart(&self) -> u64 {
        let numbers: BTreeSet<u64> = self.incidents.values().flat_map(|kept| kept.segments.iter().copied()).collect();
        numbers.iter().filter_map(|number| self.segments.get(number)).map(Segment::room).sum()
    }

    /// What has to go before `more` bytes are added to the segment that is being written, or to a new one. `None` where they
    /// fit; an error where they do not and nothing can go.
    pub(super) fn next_removal(&self, more: u64, now: Duration) -> Result<Option<Removal>, NoRoom> {
        let oldest_incident = || self.incidents.keys().next().copied().map(Removal::Incident);
        if self.incidents.len() as u64 > self.bounds.incidents {
            return Ok(oldest_incident());
        }
        let mut history = self.history();
        let (oldest, second) = (history.next(), history.next());
        let closed = oldest.filter(|(_, segment)| segment.ended.is_some()).map(|(number, _)| Removal::Segment(number));
        // What begins then is the last that the time to keep needs.
        if second.is_some_and(|(_, second)| second.began + self.bounds.keep <= now) {
            return Ok(closed);
        }
        let open = self.segments.values().find(|segment| segment.ended.is_none());
        let (before, after) = match open {
            Some(open) => (open.room(), (open.bytes + more).next_multiple_of(BLOCK)),
            None => (0, more.next_multiple_of(BLOCK)),
        };
        if self.bytes() - before + after <= self.bounds.bytes {
            return Ok(None);
        }
        // For what fits in no case nothing goes.
        if FOLDERS * BLOCK + after > self.bounds.bytes {
            return Err(NoRoom);
        }
        let are_incidents_large = self.apart() > self.bounds.bytes / 2;
        let incident = oldest_incident().filter(|_| are_incidents_large || closed.is_none());
        incident.or(closed).map(Some).ok_or(NoRoom)
    }

    /// It is gone.
    pub(super) fn remove(&mut self, removal: Removal) {
        match removal {
            Removal::Segment(number) => {
                if let Some(segment) = self.segments.get_mut(&number) {
                    segment.in_history = false;
                }
            }
            Removal::Incident(number) => {
                self.incidents.remove(&number);
            }
        }
        let incidents = &self.incidents;
        let is_kept = |number: &u64| incidents.values().any(|kept| kept.segments.contains(number));
        self.segments.retain(|number, segment| segment.in_history || is_kept(number));
    }
}

/// Everything that can go is gone, and there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
