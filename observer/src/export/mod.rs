//! Renderers: each makes bytes of a [`Frame`], whatever source it comes from.

mod arithmetic;
pub mod check;
mod counts;
mod gaps;
mod hits;
mod json;
mod limit;
pub mod limits;
pub mod openmetrics;
#[cfg(feature = "otlp")]
pub mod otlp;
mod quality;
pub mod report;
pub mod series;
mod service;
mod table;
mod value;

use serde::Serialize;

use crate::frame::Frame;

/// The version of every JSON document. docs/json.md describes its fields.
pub const SCHEMA: u32 = 2;

/// The plain table, in the order of the field `sort`.
#[must_use]
pub fn table(frame: &Frame, sort: Option<&str>) -> String {
    table::render(&frame.snapshot, sort)
}

/// One JSON object over several lines.
pub fn json(frame: &Frame) -> serde_json::Result<Vec<u8>> {
    pretty(&json::Document::new(&frame.snapshot))
}

/// The same object on a line of its own.
pub fn json_line(frame: &Frame) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&json::Document::new(&frame.snapshot))?;
    line.push(b'\n');
    Ok(line)
}

fn pretty(document: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    Ok(text)
}
