//! A frame as Prometheus reads it: OpenMetrics 1.0 or the text format 0.0.4.

mod encode;

use super::series::{self, Bounds, Kept};
use crate::frame::Frame;

/// How series are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4, which node_exporter's textfile collector reads.
    Text,
}

/// The series of a frame. `kept` belongs to the caller from scrape to scrape; for a single one it is empty.
#[must_use]
pub fn render(frame: &Frame, format: Format, bounds: Bounds, kept: &mut Kept) -> Vec<u8> {
    encode::text(series::families(frame, bounds, kept, |metric| metric.name), format)
}
