//! When a limit is reached.

use std::time::Duration;

use super::{Limit, LimitKind};
use crate::model::{reading::NamespaceReading, units::TIME_WAIT_LASTS};

/// The longest forecast: no slope lasts longer.
const PREDICTED: Duration = Duration::from_hours(24);
/// The smallest share in use that gets a forecast. Below it, a rise is only a beginning.
const USED_AT_LEAST: f64 = 0.01;
/// A request socket sends its SYN+ACK again after 1, 2, 4, 8 and 16 seconds, and ends 32 seconds after the last one
/// (`tcp_synack_retries` 5).
const SYN_RECV_LASTS: Duration = Duration::from_secs(63);
/// An orphan that nobody answers ends after eight retries (`tcp_orphan_retries` 0).
const ORPHAN_LASTS: Duration = Duration::from_secs(100);
/// `nf_conntrack_tcp_timeout_time_wait` by default.
const TRACKED_LASTS: Duration = Duration::from_mins(2);

/// The part of a limit's use that ends by itself after a known time: TIME_WAIT sockets. At a steady rate their number
/// levels off at the number that come within that time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turnover {
    /// How many there are.
    pub present: u64,
    /// How many have come in all.
    pub entered: i64,
    /// How many come per second, over the last half minute.
    pub entering: f64,
    /// Growth per second of everything else; 0 if it is no more than noise.
    pub lasting_slope: f64,
}

impl Turnover {
    /// With these counts, before the rate is known.
    pub(super) const fn new(present: u64, entered: i64) -> Self {
        Self { present, entered, entering: 0.0, lasting_slope: 0.0 }
    }

    /// How many more there will be when they level off.
    #[expect(clippy::cast_precision_loss, reason = "a forecast: 53 bits are plenty")]
    fn growth(self) -> f64 {
        (self.entering * TIME_WAIT_LASTS.as_secs_f64() - self.present as f64).max(0.0)
    }
}

/// How long each counted thing lasts, for kinds where all of them end by themselves.
pub(super) fn lifetime(kind: LimitKind, reading: Option<&NamespaceReading>) -> Option<Duration> {
    match kind {
        LimitKind::SynQueue => Some(SYN_RECV_LASTS),
        LimitKind::Orphans => Some(ORPHAN_LASTS),
        LimitKind::Conntrack => {
            let configured = reading.and_then(|reading| reading.conntrack?.closed_timeout);
            Some(configured.unwrap_or(TRACKED_LASTS))
        }
        _ => None,
    }
}

impl Limit {
    /// Time until the limit is full at the present slope. Zero if it is full, `None` without a forecast.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a forecast: 53 bits are plenty")]
    pub fn time_to_full(&self) -> Option<Duration> {
        let Some(left) = self.practical_maximum()?.checked_sub(self.used).filter(|left| *left > 0) else {
            return Some(Duration::ZERO);
        };
        // While the part that ends by itself levels off, the whole follows no straight line. The rest may.
        let slope = self.slope.or_else(|| self.turnover.map(|turnover| turnover.lasting_slope));
        let slope = slope.filter(|slope| *slope > 0.0 && self.ratio() >= USED_AT_LEAST)?;
        let left = left as f64;
        let seconds = match self.turnover {
            None => left / slope,
            Some(turnover) => seconds_with_turnover(left, slope, turnover)?,
        };
        let known = self.lifetime.unwrap_or(PREDICTED).min(PREDICTED);
        Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= known)
    }
}

/// At first everything grows, then only the part that does not end by itself.
fn seconds_with_turnover(left: f64, slope: f64, turnover: Turnover) -> Option<f64> {
    let (growth, lasting) = (turnover.growth(), turnover.lasting_slope);
    let turning = slope - lasting;
    let levels_off_in = if turning > 0.0 { growth / turning } else { 0.0 };
    let by_then = slope * levels_off_in;
    if by_then >= left {
        return Some(left / slope);
    }
    (lasting > 0.0).then(|| levels_off_in + (left - by_then) / lasting)
}
