//! Moments as people name them: a time of day, in local time, with or without its date.

use std::time::Duration;

use jiff::{
    Timestamp,
    civil::{DateTime, Time},
    tz::TimeZone,
};

use super::{Trail, WrongMoment};
use crate::present::format;

/// A moment as it was typed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Moment {
    /// The last such time of day that is recorded.
    TimeOfDay(Time),
    /// In local time.
    Local(DateTime),
    /// With its distance from UTC.
    Absolute(Timestamp),
}

impl Moment {
    /// `03:12`, `03:12:07`, `2026-11-27 03:12`, `2026-11-27T03:12:07Z`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let has_date = text.contains('-') && text.contains(':');
        let parsed = if has_date {
            text.parse().map(Self::Absolute).or_else(|_| text.parse().map(Self::Local))
        } else {
            text.parse().map(Self::TimeOfDay)
        };
        parsed.map_err(|_| "not a time as 03:12, 03:12:07, \"2026-11-27 03:12\" or 2026-11-27T03:12:07Z".to_owned())
    }

    /// The position that it names.
    pub(crate) fn position_in(&self, trail: &Trail) -> Result<Duration, WrongMoment> {
        let zone = TimeZone::system();
        let position = |at: Timestamp| trail.position_of(Duration::try_from(at.as_duration()).ok()?);
        let local = |at: DateTime| position(at.to_zoned(zone.clone()).ok()?.timestamp());
        let found = match self {
            Self::Absolute(at) => position(*at),
            Self::Local(at) => local(*at),
            Self::TimeOfDay(time) => {
                let of_span = |(from, to): &(Duration, Duration)| {
                    let day = |at: &Duration| Some(stamp(*at)?.to_zoned(zone.clone()).date());
                    let (first, mut date) = (day(from)?, day(to)?);
                    loop {
                        if let Some(position) = local(date.to_datetime(*time)) {
                            return Some(position);
                        }
                        if date <= first {
                            return None;
                        }
                        date = date.yesterday().ok()?;
                    }
                };
                trail.spans().iter().rev().find_map(of_span)
            }
        };
        found.ok_or_else(|| WrongMoment::new(format!("{self} is not in {}: it has {}", trail.name(), trail.describe())))
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimeOfDay(time) => write!(f, "{time}"),
            Self::Local(at) => write!(f, "{} {}", at.date(), at.time()),
            Self::Absolute(at) => write!(f, "{at}"),
        }
    }
}

fn stamp(since_1970: Duration) -> Option<Timestamp> {
    Timestamp::from_duration(since_1970.try_into().ok()?).ok()
}

/// `2026-11-27 02:40:10 to 03:41:02`, the last of several.
pub(super) fn spans(spans: &[(Duration, Duration)]) -> String {
    /// As many as fit into a sentence.
    const NAMED: usize = 3;
    let named = spans.len().saturating_sub(NAMED);
    let words: Vec<String> = spans[named..]
        .iter()
        .map(|(from, to)| format!("{} to {}", format::local_time(*from), format::local_time(*to)))
        .collect();
    match named {
        0 => words.join(", "),
        named => format!("{} and {named} earlier parts", words.join(", ")),
    }
}
