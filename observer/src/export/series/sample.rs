//! Series as they are collected, within the bound on all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::present::metric::{self, Bound, METRICS, Metric};

/// The number of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::export) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

/// Labels with their values, none of them empty.
pub(in crate::export) type LabelSet = Vec<(&'static str, String)>;

/// One series.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) metric: &'static Metric,
    pub(super) labels: LabelSet,
    pub(super) number: Number,
}

impl Sample {
    pub(super) fn new(metric: &'static Metric, labels: &[(&'static str, &str)], number: impl Into<Number>) -> Self {
        let labels = labels.iter().filter(|(_, value)| !value.is_empty());
        let labels = labels.map(|(key, value)| (*key, (*value).to_owned())).collect();
        Self { metric, labels, number: number.into() }
    }
}

/// All series of one name.
#[derive(Debug)]
pub(in crate::export) struct Family {
    pub(in crate::export) metric: &'static Metric,
    pub(in crate::export) samples: Vec<(LabelSet, Number)>,
}

/// The series so far.
#[derive(Debug)]
pub(super) struct Series {
    samples: BTreeMap<&'static str, Vec<(LabelSet, Number)>>,
    seen: BTreeSet<(&'static str, LabelSet)>,
    left_out: BTreeMap<&'static str, u64>,
    /// Room for more.
    free: usize,
}

impl Series {
    /// With room for so many, those that say what is left out among them.
    pub(super) fn new(most: usize) -> Self {
        let free = most.saturating_sub(METRICS.len());
        Self { samples: BTreeMap::new(), seen: BTreeSet::new(), left_out: BTreeMap::new(), free }
    }

    /// Room for more.
    pub(super) const fn free(&self) -> usize {
        self.free
    }

    /// Adds the series of one row: all of them or none. Two rows that look alike are one, the first.
    pub(super) fn add(&mut self, row: Vec<Sample>) {
        let is_new = |sample: &Sample| !self.seen.contains(&(sample.metric.name, sample.labels.clone()));
        if row.len() > self.free || !row.iter().all(is_new) {
            return self.leave_out(&row);
        }
        self.free -= row.len();
        for Sample { metric, labels, number } in row {
            self.seen.insert((metric.name, labels.clone()));
            self.samples.entry(metric.name).or_default().push((labels, number));
        }
    }

    /// Adds a series of its own.
    pub(super) fn add_one(
        &mut self,
        metric: &'static Metric,
        labels: &[(&'static str, &str)],
        number: impl Into<Number>,
    ) {
        self.add(vec![Sample::new(metric, labels, number)]);
    }

    /// Counts the series of a row that a bound cut.
    pub(super) fn leave_out(&mut self, row: &[Sample]) {
        for sample in row {
            *self.left_out.entry(sample.metric.name).or_default() += 1;
        }
    }

    /// All series in their order, with those that say how many others are left out: zeros too, of metrics with a bound.
    pub(super) fn finish(mut self, name: fn(&Metric) -> &'static str) -> Vec<Family> {
        let is_reported = |metric: &&&Metric| metric.bound != Bound::Fixed || self.left_out.contains_key(metric.name);
        let reported = METRICS.iter().filter(is_reported).map(|metric| {
            let left_out = self.left_out.get(metric.name).copied().unwrap_or(0);
            (vec![("metric", name(metric).to_owned())], Number::Whole(left_out))
        });
        let left_out = reported.collect();
        self.samples.insert(metric::LEFT_OUT.name, left_out);
        let family = |metric: &&'static Metric| {
            let samples = self.samples.remove(metric.name)?;
            Some(Family { metric, samples })
        };
        METRICS.iter().filter_map(family).collect()
    }
}
