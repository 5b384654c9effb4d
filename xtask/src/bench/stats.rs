//! Samples and how they are written.

use std::fmt;
use std::time::Duration;

/// Figures of one thing, measured several times.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, value: f64) {
        let place = self.0.partition_point(|other| *other < value);
        self.0.insert(place, value);
    }

    pub(super) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => f64::NAN,
            len if len % 2 == 0 => f64::midpoint(self.0[middle - 1], self.0[middle]),
            _ => self.0[middle],
        }
    }

    /// The same in another unit.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|value| value * factor).collect())
    }

    pub(super) fn highest(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    fn ends(&self) -> Option<(f64, f64)> {
        Some((*self.0.first()?, *self.0.last()?))
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut samples = Self::default();
        values.into_iter().for_each(|value| samples.push(value));
        samples
    }
}

/// The median, and in brackets the lowest and the highest.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ends() {
            None => f.write_str("none"),
            Some((low, high)) => {
                let digits = f.precision().unwrap_or(2);
                write!(f, "{:.digits$} ({low:.digits$} to {high:.digits$})", self.median())
            }
        }
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

/// Nanoseconds of each of `count`.
pub(super) fn each_ns(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e9 / float(count)
}

/// A length of time in the unit that suits it.
pub(super) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_between_the_middle_two() {
        let samples: Samples = [4.0, 1.0, 2.0, 3.0].into_iter().collect();
        assert_eq!(samples.to_string(), "2.50 (1.00 to 4.00)");
        assert_eq!(format!("{:.0}", [3.0, 9.0, 1.0].into_iter().collect::<Samples>()), "3 (1 to 9)");
        assert_eq!(Samples::default().to_string(), "none");
    }
}
