//! Values of options.

use std::time::Duration;

use crate::{export::series::Bounds, recording::RecorderBounds};

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

/// A length of time with its unit: `90s`, `30m`, `1h`, `2d`.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    let wrong = || "not a time as 90s, 30m, 1h or 2d".to_owned();
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[number.len()..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let is_sane = |seconds: &u64| (10..=31_536_000).contains(seconds);
    seconds.filter(is_sane).map(Duration::from_secs).ok_or_else(wrong)
}

/// A number of bytes: `64M`, `2G`, in powers of 1,024.
fn bytes(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[number.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("not a number of bytes as 64M or 2G".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "not a number of bytes as 64M or 2G".to_owned())
}

/// As many bytes as a recorder needs.
pub(super) fn recorder_bytes(text: &str) -> Result<u64, String> {
    let is_enough = |bytes: &u64| (RecorderBounds::LEAST_BYTES..=1 << 50).contains(bytes);
    Some(bytes(text)?).filter(is_enough).ok_or_else(|| "not a number of bytes from 1M on".to_owned())
}

/// Bytes that wait for a reader: a few chunks at least, and not the memory of a host.
pub(super) fn waiting_bytes(text: &str) -> Result<usize, String> {
    let is_sane = |bytes: &u64| (64 << 10..=1 << 30).contains(bytes);
    let bytes = Some(bytes(text)?).filter(is_sane).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| "not a number of bytes from 64K to 1G".to_owned())
}

/// What a recorder keeps, where the user has a say in it.
pub(super) fn recorder_bounds(keep: Option<Duration>, bytes: Option<u64>, incidents: Option<u64>) -> RecorderBounds {
    let default = RecorderBounds::default();
    RecorderBounds {
        keep: keep.unwrap_or(default.keep),
        bytes: bytes.unwrap_or(default.bytes),
        incidents: incidents.unwrap_or(default.incidents),
    }
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
