//! How fast walls fill: the slope of what was used over the last half minute.

use std::{collections::VecDeque, time::Duration};

use rustc_hash::FxHashMap;

use super::{Subject, Wall, WallKind};

/// One sample a second is kept this long. Shorter, and a burst would foretell the end of the world; longer, and the
/// world could end before it is foretold.
const WINDOW: Duration = Duration::from_secs(30);
/// A slope over less says nothing.
const AT_LEAST: Duration = Duration::from_secs(4);

/// What was used, by wall, as long as the wall is listed.
#[derive(Default)]
pub(in crate::model) struct Trends(FxHashMap<(WallKind, Subject), Trend>);

impl Trends {
    /// Takes a sample of every listed wall, and forgets those that are not listed any more.
    pub(super) fn sample(&mut self, walls: &[Wall], now: Duration) {
        let mut before = std::mem::take(&mut self.0);
        for wall in walls {
            let key = (wall.kind, wall.subject);
            let mut trend = before.remove(&key).unwrap_or_default();
            trend.push(now, wall.used);
            self.0.insert(key, trend);
        }
    }

    /// How much more of the wall is used every second.
    pub(super) fn slope(&self, wall: &Wall) -> Option<f64> {
        self.0.get(&(wall.kind, wall.subject))?.slope()
    }
}

#[derive(Default)]
struct Trend(VecDeque<(Duration, u64)>);

impl Trend {
    fn push(&mut self, now: Duration, used: u64) {
        while self.0.front().is_some_and(|(then, _)| now.saturating_sub(*then) > WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((now, used));
    }

    /// Of the straight line that fits all samples best: one odd sample hardly turns it.
    #[expect(clippy::cast_precision_loss, reason = "a slope for people: 53 bits are plenty")]
    fn slope(&self) -> Option<f64> {
        let ((first, _), (last, _)) = (self.0.front()?, self.0.back()?);
        if last.saturating_sub(*first) < AT_LEAST {
            return None;
        }
        let points = || self.0.iter().map(|(then, used)| (then.saturating_sub(*first).as_secs_f64(), *used as f64));
        let count = self.0.len() as f64;
        let mean_time = points().map(|(time, _)| time).sum::<f64>() / count;
        let mean_used = points().map(|(_, used)| used).sum::<f64>() / count;
        let covariance: f64 = points().map(|(time, used)| (time - mean_time) * (used - mean_used)).sum();
        let variance: f64 = points().map(|(time, _)| (time - mean_time).powi(2)).sum();
        (variance > 0.0).then(|| covariance / variance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope(samples: impl IntoIterator<Item = (u64, u64)>) -> Option<f64> {
        let mut trend = Trend::default();
        samples.into_iter().for_each(|(second, used)| trend.push(Duration::from_secs(second), used));
        trend.slope()
    }

    #[test]
    fn a_steady_rise_has_its_slope_and_a_fall_a_negative_one() {
        assert_eq!(slope((0..10).map(|second| (second, 100 + 7 * second))), Some(7.0));
        assert_eq!(slope((0..10).map(|second| (second, 100 - 7 * second))), Some(-7.0));
        assert_eq!(slope((0..10).map(|second| (second, 5))), Some(0.0));
    }

    #[test]
    fn a_few_samples_or_a_short_time_have_none() {
        assert_eq!(slope([]), None);
        assert_eq!(slope([(0, 1), (1, 1_000), (3, 2_000)]), None);
        assert_eq!(slope([(0, 0), (4, 8)]), Some(2.0));
    }

    #[test]
    fn what_was_half_a_minute_ago_is_forgotten() {
        let rise_then_rest = (0..100).map(|second| (second, second.min(60)));
        assert_eq!(slope(rise_then_rest), Some(0.0));
    }
}
