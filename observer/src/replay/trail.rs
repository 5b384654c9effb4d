//! Everything that a recorder's directory has, in order: segments that follow each other without a gap are one recording, and
//! where something is missing another begins. Positions are in recorded time: what is missing takes none.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};

use super::{Replay, Source, moment};
use crate::{
    errno,
    frame::timeline::{IncidentMark, Timeline},
    recording::{
        Chain, Extent, ReadError,
        recorder::name::{INCIDENTS, IncidentName, SegmentName},
    },
};

/// A replay that begins at a moment begins so much before it: rates, trends, history and findings need as much.
const WARM_UP: Duration = Duration::from_mins(2);

/// A segment, and where it stands.
#[derive(Debug)]
struct TrailSegment {
    extent: Extent,
    /// Its beginning.
    position: Duration,
    /// Whether it goes on with the one before.
    follows: bool,
}

impl TrailSegment {
    fn end(&self) -> Duration {
        self.position + self.extent.length
    }

    /// The wall-clock time of a position in it, since the Unix epoch.
    fn wall_clock(&self, position: Duration) -> Duration {
        self.extent.header.started_at + position.saturating_sub(self.position)
    }
}

/// Recordings of one recorder.
pub(crate) struct Trail {
    name: String,
    segments: Vec<TrailSegment>,
    incidents: Vec<IncidentMark>,
    /// Segments that could not be read, and why.
    unread: Vec<(PathBuf, ReadError)>,
}

impl Trail {
    /// All that a directory has: the history, and what is kept of incidents.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = errno::printable(path);
        let list = || -> io::Result<_> {
            let (mut segments, mut incidents) = (BTreeMap::new(), Vec::new());
            add_segments(path, &mut segments)?;
            for file in names(&path.join(INCIDENTS)).or_else(none_there)? {
                if let Some(incident) = IncidentName::parse(&file) {
                    add_segments(&path.join(INCIDENTS).join(&file), &mut segments)?;
                    incidents.push(incident);
                }
            }
            Ok((segments, incidents))
        };
        let (segments, incidents) = list().with_context(|| format!("list the directory {name}"))?;
        let mut trail = Self { name, segments: Vec::new(), incidents: Vec::new(), unread: Vec::new() };
        let mut last_number = None;
        for (number, path) in segments {
            match Extent::of(&path) {
                Ok(extent) => {
                    trail.add(extent, last_number.is_some_and(|last: u64| last + 1 == number));
                    last_number = Some(number);
                }
                // It has gone, or has just begun.
                Err(ReadError::Io(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(ReadError::NotARecording | ReadError::NoHeader) if is_being_written(&path) => {}
                Err(error) => trail.unread.push((path, error)),
            }
        }
        if trail.segments.is_empty() {
            return Err(match trail.unread.pop() {
                Some((path, error)) => anyhow!(error).context(errno::printable(&path)),
                None => {
                    anyhow!("{} has no recording: it is no directory of a recorder, or that has not begun", trail.name)
                }
            });
        }
        trail.mark(incidents);
        Ok(trail)
    }

    /// A single recording.
    pub(crate) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let name = errno::printable(path);
        let extent = Extent::of(path).with_context(|| name.clone())?;
        let mut trail = Self { name, segments: Vec::new(), incidents: Vec::new(), unread: Vec::new() };
        trail.add(extent, false);
        Ok(trail)
    }

    fn add(&mut self, extent: Extent, is_next: bool) {
        let Some(last) = self.segments.last_mut() else {
            self.segments.push(TrailSegment { extent, position: Duration::ZERO, follows: false });
            return;
        };
        let follows = is_next && last.extent.is_of_same_engine(&extent);
        if follows {
            // Up to the beginning of the next one nothing happened.
            last.extent.length = extent.header.begins_at.saturating_sub(last.extent.header.begins_at);
        }
        let position = last.end();
        self.segments.push(TrailSegment { extent, position, follows });
    }

    fn mark(&mut self, incidents: Vec<IncidentName>) {
        let mut marks: Vec<IncidentMark> = Vec::new();
        for IncidentName { number, at, words } in incidents {
            // Names have whole seconds, rounded up. What ended within that second shows the incident at its end, not before.
            let before = at.saturating_sub(Duration::from_secs(1));
            if let Some(position) = self.position_of(at).or_else(|| self.end_between(before, at)) {
                marks.push(IncidentMark { number, at, position, words });
            }
        }
        marks.sort_unstable_by_key(|mark| (mark.position, mark.number));
        self.incidents = marks;
    }

    /// For messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// By their positions.
    pub(crate) fn incidents(&self) -> &[IncidentMark] {
        &self.incidents
    }

    /// Segments that could not be read, and why.
    pub(crate) fn unread(&self) -> &[(PathBuf, ReadError)] {
        &self.unread
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> Duration {
        self.segments.last().map_or(Duration::ZERO, TrailSegment::end)
    }

    /// Where in all of it the position is.
    pub(super) fn timeline(&self, position: Duration) -> Timeline {
        let beginnings = self.segments.iter().filter(|segment| !segment.follows).map(|segment| segment.position);
        Timeline {
            position,
            now: self.wall_clock(position),
            end: self.end(),
            gaps: beginnings.skip(1).collect(),
            incidents: self.incidents.clone(),
        }
    }

    /// Wall-clock times between which something is recorded, since the Unix epoch.
    pub(crate) fn spans(&self) -> Vec<(Duration, Duration)> {
        let mut spans: Vec<(Duration, Duration)> = Vec::new();
        for segment in &self.segments {
            let (from, to) = (segment.extent.header.started_at, segment.wall_clock(segment.end()));
            match spans.last_mut().filter(|_| segment.follows) {
                Some(span) => span.1 = to,
                None => spans.push((from, to)),
            }
        }
        spans
    }

    /// The wall-clock time of a position, since the Unix epoch.
    pub(crate) fn wall_clock(&self, position: Duration) -> Duration {
        let index = self.segment_at(position);
        self.segments.get(index).map_or(Duration::ZERO, |segment| segment.wall_clock(position))
    }

    /// The position of a wall-clock time; the last one where the clock was set back.
    pub(crate) fn position_of(&self, at: Duration) -> Option<Duration> {
        let is_in = |segment: &&TrailSegment| {
            // As the messages have it, in whole seconds.
            let started = Duration::from_secs(segment.extent.header.started_at.as_secs());
            started <= at && at <= segment.wall_clock(segment.end())
        };
        let segment = self.segments.iter().rev().find(is_in)?;
        let position = segment.position + at.saturating_sub(segment.extent.header.started_at);
        Some(if position == segment.end() { self.end_of(segment) } else { position })
    }

    /// The last position of a segment: where another recording begins, the position is that of its beginning.
    fn end_of(&self, segment: &TrailSegment) -> Duration {
        let end = segment.end();
        let is_beginning = self.segments.iter().any(|next| next.position == end && !next.follows);
        if is_beginning { end.saturating_sub(Duration::from_nanos(1)) } else { end }
    }

    /// The last position of what ended between these wall-clock times.
    fn end_between(&self, from: Duration, to: Duration) -> Option<Duration> {
        let has_end = |segment: &&TrailSegment| (from..to).contains(&segment.wall_clock(segment.end()));
        Some(self.end_of(self.segments.iter().rev().find(has_end)?))
    }

    /// The segment that has a position.
    pub(super) fn segment_at(&self, position: Duration) -> usize {
        self.segments.partition_point(|segment| segment.position <= position).saturating_sub(1)
    }

    /// The segment with which a replay begins that is to show this position.
    pub(super) fn first_for(&self, position: Duration) -> usize {
        self.beginning_of(position).max(self.segment_at(position.saturating_sub(WARM_UP)))
    }

    /// The segment with which the recording begins that has this position.
    pub(super) fn beginning_of(&self, position: Duration) -> usize {
        let last = self.segment_at(position);
        (0..=last).rev().find(|index| !self.segments[*index].follows).unwrap_or(0)
    }

    /// How many segments there are.
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// The segment with which the next recording begins after that one.
    pub(super) fn next_beginning(&self, after: usize) -> Option<usize> {
        (after + 1..self.segments.len()).find(|index| !self.segments[*index].follows)
    }

    /// Where a segment begins.
    pub(super) fn position(&self, segment: usize) -> Duration {
        self.segments.get(segment).map_or(Duration::ZERO, |segment| segment.position)
    }

    /// From this segment on, as far as others follow it.
    pub(crate) fn replay(&self, segment: usize) -> anyhow::Result<Replay<Source>> {
        let end = self.next_beginning(segment).unwrap_or(self.segments.len());
        let extents: Vec<Extent> = self.segments[segment..end].iter().map(|it| it.extent.clone()).collect();
        let (first, following) = extents.split_first().context("a replay begins with a segment")?;
        let chain = Chain::open(first, following).with_context(|| format!("open a segment of {}", self.name))?;
        Replay::start(Box::new(chain) as Source).with_context(|| errno::printable(&first.path))
    }

    /// In local time, what is there: for messages.
    pub(crate) fn describe(&self) -> String {
        moment::spans(&self.spans())
    }
}

pub(super) fn is_being_written(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "part")
}

pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

pub(super) fn none_there(error: io::Error) -> io::Result<Vec<String>> {
    if error.kind() == ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error) }
}

/// By number: what gets its name meanwhile is there once.
pub(super) fn add_segments(folder: &Path, segments: &mut BTreeMap<u64, PathBuf>) -> io::Result<()> {
    for file in names(folder).or_else(none_there)? {
        if let Some(name) = SegmentName::parse(&file) {
            segments.entry(name.number).or_insert_with(|| folder.join(file));
        }
    }
    Ok(())
}
