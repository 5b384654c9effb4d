//! Where a replay of a recorder's directory stands in all that it has.

use std::time::Duration;

use crate::model::limit::{About, LimitKind};

/// An incident, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentMark {
    /// Its number.
    pub number: u64,
    /// Its worst moment: wall-clock time, since the Unix epoch,
    pub at: Duration,
    /// and the position.
    pub position: Duration,
    /// What it was, with the id of a limit or a failure: `process_files critical`.
    pub words: String,
}

impl IncidentMark {
    /// The same in words for people: `file descriptors critical`.
    #[must_use]
    pub fn name(&self) -> String {
        let (id, rest) = self.words.split_once(' ').unwrap_or((&self.words, ""));
        let limit = LimitKind::ALL.into_iter().map(About::of).find(|about| about.id == id);
        let what = limit.map_or_else(|| id.replace('_', " "), |about| about.name.to_owned());
        format!("{what} {rest}").trim_end().to_owned()
    }
}

/// Everything that is recorded. Positions are in recorded time: what is missing takes none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// What is shown.
    pub position: Duration,
    /// The same as wall-clock time, since the Unix epoch.
    pub now: Duration,
    /// Where it ends.
    pub end: Duration,
    /// Where something is missing: another recording begins.
    pub gaps: Vec<Duration>,
    /// By their positions.
    pub incidents: Vec<IncidentMark>,
}

/// So long after the start of an incident the previous one is still the one before it.
const SLACK: Duration = Duration::from_secs(3);

impl Timeline {
    /// Where the previous incident begins, if it is shown from so much before its worst moment on.
    #[must_use]
    pub fn previous_incident(&self, now: Duration, before: Duration) -> Option<Duration> {
        self.starts(before).rfind(|start| *start + SLACK < now)
    }

    /// The same of the next one.
    #[must_use]
    pub fn next_incident(&self, now: Duration, before: Duration) -> Option<Duration> {
        self.starts(before).find(|start| *start > now)
    }

    fn starts(&self, before: Duration) -> impl DoubleEndedIterator<Item = Duration> + '_ {
        self.incidents.iter().map(move |mark| mark.position.saturating_sub(before))
    }

    /// The incident within whose minutes the position lies, the nearest one.
    #[must_use]
    pub fn incident_near(&self, around: Duration) -> Option<&IncidentMark> {
        let distance = |mark: &&IncidentMark| mark.position.abs_diff(self.position);
        self.incidents.iter().filter(|mark| distance(mark) <= around).min_by_key(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_incident_is_the_next_one_from_its_start_on_and_back_again() {
        let second = Duration::from_secs;
        let mark = |number| IncidentMark {
            number,
            at: second(1_000 + number),
            position: second(100 * number),
            words: "ports exhausted".to_owned(),
        };
        let timeline = Timeline {
            position: second(130),
            now: second(1_130),
            end: second(400),
            gaps: Vec::new(),
            incidents: vec![mark(1), mark(2), mark(3)],
        };
        let next = |now| timeline.next_incident(second(now), second(60)).map(|at| at.as_secs());
        let previous = |now| timeline.previous_incident(second(now), second(60)).map(|at| at.as_secs());
        assert_eq!([0, 40, 139, 140, 240, 300].map(next), [Some(40), Some(140), Some(140), Some(240), None, None]);
        assert_eq!([0, 41, 44, 140, 150, 400].map(previous), [None, None, Some(40), Some(40), Some(140), Some(240)]);
        let near = |around| timeline.incident_near(second(around)).map(|mark| mark.number);
        assert_eq!([20, 30, 100].map(near), [None, Some(1), Some(1)]);
    }

    #[test]
    fn an_incident_is_named_by_the_words_of_its_limit() {
        let named = |words: &str| {
            let second = Duration::from_secs(1);
            IncidentMark { number: 1, at: second, position: second, words: words.to_owned() }.name()
        };
        assert_eq!(named("process_files critical"), "file descriptors critical");
        assert_eq!(named("no_source_address failures"), "no source address failures");
    }
}
