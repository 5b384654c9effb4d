//! How fast limits fill: their use over the last half minute, and whether its rise is more than noise.

use std::{collections::VecDeque, time::Duration};

use rustc_hash::FxHashMap;

use super::{Limit, LimitKind, Scope, Turnover};
use crate::model::units::NetnsId;

/// How long samples are kept, one per second. In a shorter window a burst looks like a trend. A longer window predicts
/// too late.
const WINDOW: Duration = Duration::from_secs(30);
/// The shortest time that gives a slope.
pub const SLOPE_NEEDS: Duration = Duration::from_secs(4);
/// The smallest change over the whole window that gives a slope.
const UNITS: f64 = 4.0;
/// A slope must be this many standard errors away from 0.
const STANDARD_ERRORS: f64 = 4.0;
/// The whole change must be this many times as long as a random walk with the same steps: a number that wanders up and
/// down sometimes fits a straight line well.
const RANDOM_WALKS: f64 = 3.0;
/// The fewest arrivals within the window that give a rate.
const ARRIVALS: i64 = 10;

/// Samples of each limit, while it is listed.
#[derive(Default)]
pub(in crate::model) struct Trends(FxHashMap<(LimitKind, Scope), Trend>);

impl Trends {
    /// Takes a sample of every listed limit, and forgets limits that are no longer listed.
    pub(super) fn sample(&mut self, listed: Vec<((LimitKind, Scope), Sample)>, now: Duration) {
        for (key, sample) in listed {
            let trend = self.0.entry(key).or_default();
            trend.push(now, sample);
            trend.is_listed = true;
        }
        self.0.retain(|_, trend| std::mem::take(&mut trend.is_listed));
    }

    /// The namespace is gone: what was measured there belongs to no other of its number.
    pub(in crate::model) fn forget(&mut self, netns: NetnsId) {
        self.0.retain(|(_, scope), _| scope.netns() != Some(netns));
    }

    /// Sets a limit's growth per second.
    pub(super) fn annotate(&self, limit: &mut Limit) {
        let Some(trend) = self.0.get(&(limit.kind, limit.scope)) else { return };
        limit.slope = trend.slope(|sample| sample.used);
        if let Some(Turnover { entering, lasting_slope, .. }) = &mut limit.turnover {
            *entering = trend.entering();
            *lasting_slope = trend.slope(|sample| sample.lasting).unwrap_or(0.0);
        }
    }
}

/// The numbers of a limit at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    used: u64,
    /// Without the part that ends by itself.
    lasting: u64,
    /// How many that end by themselves have come in all.
    entered: i64,
}

impl Sample {
    pub(super) fn new(used: u64, turnover: Option<Turnover>) -> Self {
        let (present, entered) = turnover.map_or((0, 0), |turnover| (turnover.present, turnover.entered));
        Self { used, lasting: used.saturating_sub(present), entered }
    }
}

#[derive(Default)]
struct Trend {
    samples: VecDeque<(Duration, Sample)>,
    /// How many of the last samples are equal. Most limits never move: their samples need not be read again.
    equal: usize,
    /// Since the last round.
    is_listed: bool,
}

impl Trend {
    fn push(&mut self, now: Duration, sample: Sample) {
        while self.samples.front().is_some_and(|(then, _)| now.saturating_sub(*then) > WINDOW) {
            self.samples.pop_front();
        }
        let is_equal = self.samples.back().is_some_and(|(_, last)| *last == sample);
        self.equal = if is_equal { self.equal + 1 } else { 1 };
        self.samples.push_back((now, sample));
    }

    /// Whether nothing has changed within the window.
    fn is_constant(&self) -> bool {
        self.equal >= self.samples.len()
    }

    /// The time between the first and the last sample, if it is long enough.
    fn span(&self) -> Option<f64> {
        let ((first, _), (last, _)) = (self.samples.front()?, self.samples.back()?);
        let span = last.saturating_sub(*first);
        (span >= SLOPE_NEEDS).then_some(span.as_secs_f64())
    }

    /// The slope of the straight line that fits all samples best, if it is more than noise.
    #[expect(clippy::cast_precision_loss, reason = "a slope for people: 53 bits are plenty")]
    fn slope(&self, value: impl Fn(&Sample) -> u64) -> Option<f64> {
        if self.is_constant() {
            return None;
        }
        let span = self.span()?;
        let (first, _) = self.samples.front()?;
        let points: Vec<(f64, f64)> = self
            .samples
            .iter()
            .map(|(then, sample)| (then.saturating_sub(*first).as_secs_f64(), value(sample) as f64))
            .collect();
        let count = points.len() as f64;
        let mean_time = points.iter().map(|(time, _)| time).sum::<f64>() / count;
        let mean = points.iter().map(|(_, value)| value).sum::<f64>() / count;
        let covariance: f64 = points.iter().map(|(time, value)| (time - mean_time) * (value - mean)).sum();
        let variance: f64 = points.iter().map(|(time, _)| (time - mean_time).powi(2)).sum();
        if variance <= 0.0 || points.len() < 3 {
            return None;
        }
        let slope = covariance / variance;
        let residuals: f64 =
            points.iter().map(|(time, value)| (value - mean - slope * (time - mean_time)).powi(2)).sum();
        let standard_error = (residuals / (count - 2.0) / variance).sqrt();
        let steps: f64 = points.windows(2).map(|pair| (pair[1].1 - pair[0].1).powi(2)).sum();
        let change = (slope * span).abs();
        let is_more_than_noise =
            change >= UNITS && slope.abs() >= STANDARD_ERRORS * standard_error && change >= RANDOM_WALKS * steps.sqrt();
        is_more_than_noise.then_some(slope)
    }

    /// How many come per second of those that end by themselves.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people: 53 bits are plenty")]
    fn entering(&self) -> f64 {
        if self.is_constant() {
            return 0.0;
        }
        let Some(((span, (_, first)), (_, last))) = self.span().zip(self.samples.front()).zip(self.samples.back())
        else {
            return 0.0;
        };
        let arrivals = last.entered - first.entered;
        if arrivals >= ARRIVALS { arrivals as f64 / span } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope(samples: impl IntoIterator<Item = (u64, u64)>) -> Option<f64> {
        let mut trend = Trend::default();
        for (second, used) in samples {
            trend.push(Duration::from_secs(second), Sample { used, lasting: used, entered: 0 });
        }
        trend.slope(|sample| sample.used)
    }

    #[test]
    fn a_steady_rise_has_its_slope_and_a_fall_a_negative_one() {
        assert_eq!(slope((0..12).map(|second| (second, 100 + 7 * second))), Some(7.0));
        assert_eq!(slope((0..12).map(|second| (second, 100 - 7 * second))), Some(-7.0));
        assert_eq!(slope((0..12).map(|second| (second, 5))), None, "no change is no slope");
    }

    #[test]
    fn a_few_samples_or_a_short_time_have_none() {
        assert_eq!(slope([]), None);
        assert_eq!(slope([(0, 1), (1, 1_000), (3, 2_000)]), None);
        assert_eq!(slope([(0, 0), (4, 8)]), None);
        assert_eq!(slope((0..30).map(|second| (second, second / 10))), None, "three units in half a minute");
    }

    #[test]
    fn what_was_half_a_minute_ago_is_forgotten() {
        let rise_then_rest = (0..100).map(|second| (second, second.min(60)));
        assert_eq!(slope(rise_then_rest), None);
    }

    #[test]
    fn what_wanders_has_no_slope_and_what_rises_unsteadily_has() {
        // A multiplicative generator: the same numbers on every machine.
        let mut state = 12_345_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut rises, mut seen) = (0, 0);
        for _ in 0..1_000 {
            let mut level = 1_000;
            let walk: Vec<(u64, u64)> = (0..30)
                .map(|second| {
                    level = level + random(21) - 10;
                    (second, level)
                })
                .collect();
            rises += u32::from(slope(walk).is_some());
            let mut level = 1_000;
            let growth: Vec<(u64, u64)> = (0..30)
                .map(|second| {
                    level += random(21);
                    (second, level)
                })
                .collect();
            seen += u32::from(slope(growth).is_some_and(|slope| (6.0..14.0).contains(&slope)));
        }
        assert!(rises < 10, "{rises} of 1,000 random walks were taken for a trend");
        assert!(seen > 950, "{seen} of 1,000 unsteady rises were seen");
    }
}
