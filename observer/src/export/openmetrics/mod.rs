//! A frame as Prometheus reads it: OpenMetrics 1.0 or the text format 0.0.4.
//!
//! The definitions are in `present::metric`. Series are made of the newest snapshot at each scrape, and a namespace's series
//! end with it. The one thing that lasts from scrape to scrape is [`Kept`].
//!
//! What could not be read is absent. Text from outside is folded and bounded, and escaped by the encoder. No two series have
//! the same labels, because Prometheus would refuse all of them.

mod counted;
mod encode;
mod host;
mod kept;
mod labels;
mod namespaces;
mod near;
mod rows;
mod series;

pub use self::kept::Kept;
use self::{labels::Labels, series::Series};
use crate::{frame::Frame, present::metric};

/// How series are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4, which node_exporter's textfile collector reads.
    Text,
}

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

/// The series of a frame. `kept` belongs to the caller from scrape to scrape; for a single one it is empty.
#[must_use]
pub fn render(frame: &Frame, format: Format, bounds: Bounds, kept: &mut Kept) -> Vec<u8> {
    encode::text(series(frame, bounds, kept).finish(), format)
}

/// What matters most comes first: the bound on all series cuts from the end.
fn series(frame: &Frame, bounds: Bounds, kept: &mut Kept) -> Series {
    let snapshot = &frame.snapshot;
    let labels = Labels::new(snapshot);
    let mut series = Series::new(bounds.series);
    host::add(&mut series, frame);
    near::add(&mut series, snapshot, &labels, kept);
    namespaces::add(&mut series, snapshot, &labels, kept);
    rows::listeners(&mut series, snapshot, &labels);
    rows::processes(&mut series, snapshot, &labels);
    series
}
