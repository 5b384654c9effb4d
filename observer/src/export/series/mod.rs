//! The series of a frame: what Prometheus scrapes and what is pushed with OTLP, in one list.
//!
//! The definitions are in `present::metric`. Series are made of the newest snapshot each time, and a namespace's series end
//! with it. The one thing that lasts from one time to the next is [`Kept`].
//!
//! What could not be read is absent. Text from outside is folded and bounded; the encoders escape it. No two series of a
//! metric have the same labels, because Prometheus would refuse all of them.

mod counted;
mod host;
mod kept;
mod labels;
mod namespaces;
mod near;
mod rows;
mod sample;

pub use self::kept::Kept;
pub(super) use self::sample::{Family, Number};
use self::{labels::Labels, sample::Series};
use crate::{
    frame::Frame,
    present::metric::{self, Metric},
};

/// How many series there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In all. Those that say what is left out count too.
    pub series: usize,
}

impl Bounds {
    /// Room for what belongs to no namespace, what is near its limit, and the sums over all namespaces.
    pub const LEAST_SERIES: usize = 256;
}

impl Default for Bounds {
    fn default() -> Self {
        Self { series: metric::SERIES }
    }
}

/// All series of a frame, in the order of their definitions. `name` is what the encoder calls a metric: series that say how
/// many others are left out have it as a label.
///
/// What matters most is collected first: the bound on all series cuts from the end.
pub(super) fn families(
    frame: &Frame,
    bounds: Bounds,
    kept: &mut Kept,
    name: fn(&Metric) -> &'static str,
) -> Vec<Family> {
    let snapshot = &frame.snapshot;
    let labels = Labels::new(snapshot);
    let mut series = Series::new(bounds.series);
    host::add(&mut series, frame);
    near::add(&mut series, snapshot, &labels, kept);
    namespaces::add(&mut series, snapshot, &labels, kept);
    rows::listeners(&mut series, snapshot, &labels);
    rows::processes(&mut series, snapshot, &labels);
    series.finish(name)
}
