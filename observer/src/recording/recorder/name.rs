//! Names in the directory of a recorder. They are its only index: nothing beside them can be wrong.
//!
//! ```text
//! 00000017-20261127T031207Z.obs            a segment: its number, and the time of its beginning in UTC
//! 00000018-20261127T031307Z.obs.part       the one that is being written
//! incidents/3-20261127T031301Z-ports-exhausted/
//!                                          its number, its worst moment, and what it was; the segments around it are in it
//! ```
//!
//! Numbers grow over restarts and never come again: they order the segments whatever the clock did.

use std::{fmt, time::Duration};

/// The folder of the incidents.
pub(crate) const INCIDENTS: &str = "incidents";
/// The time of a name, in UTC.
const TIME: &str = "%Y%m%dT%H%M%SZ";
const ENDING: &str = ".obs";
const OPEN_ENDING: &str = ".obs.part";

fn time(since_1970: Duration) -> String {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).strftime(TIME).to_string()
}

fn parse_time(text: &str) -> Option<Duration> {
    let time = jiff::civil::DateTime::strptime(TIME, text).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Duration::from_secs(u64::try_from(time.timestamp().as_second()).ok()?))
}

/// The name of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentName {
    pub(crate) number: u64,
    /// When it began, since the Unix epoch, in whole seconds.
    pub(crate) began: Duration,
    /// Whether it is being written, or was when the recorder ended without a chance to complete it.
    pub(crate) is_open: bool,
}

impl SegmentName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (stem, is_open) = match (name.strip_suffix(OPEN_ENDING), name.strip_suffix(ENDING)) {
            (Some(stem), _) => (stem, true),
            (None, Some(stem)) => (stem, false),
            (None, None) => return None,
        };
        let (number, began) = stem.split_once('-')?;
        Some(Self { number: parse_number(number)?, began: parse_time(began)?, is_open })
    }

    /// The same once it is complete.
    pub(crate) const fn closed(self) -> Self {
        Self { is_open: false, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = if self.is_open { OPEN_ENDING } else { ENDING };
        write!(f, "{:08}-{}{ending}", self.number, time(self.began))
    }
}

/// The name of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncidentName {
    pub(crate) number: u64,
    /// Its worst moment, since the Unix epoch, in whole seconds.
    pub(crate) at: Duration,
    /// What it was: ids of JSON, `ports exhausted`.
    pub(crate) words: String,
}

impl IncidentName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let (number, at, words) = (parts.next()?, parts.next()?, parts.next()?);
        let is_word = |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter == '-';
        (!words.is_empty() && words.chars().all(is_word)).then_some(())?;
        Some(Self { number: parse_number(number)?, at: parse_time(at)?, words: words.replace('-', " ") })
    }
}

impl fmt::Display for IncidentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.number, time(self.at), self.words.replace(' ', "-"))
    }
}

/// Digits alone: parse() would take a sign too.
fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_not_ours() {
        let began = Duration::from_secs(1_795_749_127);
        for is_open in [false, true] {
            let name = SegmentName { number: 17, began, is_open };
            assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }
        let segment = SegmentName { number: 17, began, is_open: true };
        assert_eq!(segment.to_string(), "00000017-20261127T031207Z.obs.part");
        assert_eq!(segment.closed().to_string(), "00000017-20261127T031207Z.obs");
        let name = IncidentName { number: 3, at: began, words: "ports exhausted".to_owned() };
        assert_eq!(name.to_string(), "3-20261127T031207Z-ports-exhausted");
        assert_eq!(IncidentName::parse(&name.to_string()), Some(name));
        for other in
            ["", "x.obs", "17.obs", "+17-20261127T031207Z.obs", "17-20261327T031207Z.obs", "17-20261127T031207Z"]
        {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
        for other in ["", "3", "3-20261127T031207Z", "3-20261127T031207Z-", "3-20261127T031207Z-../x", "-1-x-y"] {
            assert_eq!(IncidentName::parse(other), None, "{other}");
        }
    }
}
