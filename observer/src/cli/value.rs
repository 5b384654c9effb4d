//! Values of options.

use std::time::Duration;

use crate::export::series::Bounds;

/// A threshold of `observer check`.
pub(super) fn percent(text: &str) -> Result<u8, String> {
    text.trim_end_matches('%')
        .parse()
        .ok()
        .filter(|percent| (1..=100).contains(percent))
        .ok_or("not 1 to 100".to_owned())
}

/// The most series that an exposition has.
pub(super) fn series(text: &str) -> Result<usize, String> {
    let is_enough = |series: &usize| *series >= Bounds::LEAST_SERIES;
    text.parse().ok().filter(is_enough).ok_or_else(|| format!("not a number from {} on", Bounds::LEAST_SERIES))
}

/// A length of time, in seconds: at most a year, so that no clock overflows.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let is_sane = |seconds: &f64| (0.0..=31_536_000.0).contains(seconds);
    text.parse().ok().filter(is_sane).map(Duration::from_secs_f64).ok_or("not a number of seconds".to_owned())
}

/// The time between two lines of output.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    seconds(text).ok().filter(|time| *time >= Duration::from_millis(50)).ok_or("not 0.05 seconds or more".to_owned())
}

/// The time between two pushes.
#[cfg(feature = "otlp")]
pub(super) fn push_interval(text: &str) -> Result<Duration, String> {
    let is_sane = |time: &Duration| (Duration::from_secs(1)..=Duration::from_hours(1)).contains(time);
    seconds(text.trim_end_matches('s')).ok().filter(is_sane).ok_or("not 1 to 3600 seconds".to_owned())
}

/// A replay's speed.
pub(super) fn speed(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|speed| (0.01..=1000.0).contains(speed)).ok_or("not 0.01 to 1000".to_owned())
}
