//! `observer snapshot --openmetrics` and `--prometheus`, read by programs that this project did not write: promtool, the
//! OpenMetrics parser of Prometheus' Python client, Prometheus itself, and node_exporter. The same series in OTLP, read by
//! rotel, a collector.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod alerts;
mod bounds;
mod exposition;
mod formats;
#[path = "../program/http.rs"]
mod http;
mod names;
mod near;
#[cfg(feature = "otlp")]
mod otlp;
mod page;
mod programs;
mod prometheus;
#[cfg(feature = "otlp")]
mod rotel;
mod running;
mod synthetic;
mod values;

use std::{fs, path::PathBuf};

use observer::{
    export::{
        openmetrics::{self, Format},
        series::{Bounds, Kept},
    },
    frame::Frame,
};

use self::exposition::Exposition;

/// Every recording of the repository.
fn recordings() -> Vec<PathBuf> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let recordings: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "obs")).collect();
    assert!(recordings.len() >= 5, "{recordings:?}");
    recordings
}

fn recording(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.obs"))
}

fn text(frame: &Frame, format: Format) -> String {
    String::from_utf8(openmetrics::render(frame, format, Bounds::default(), &mut Kept::default())).unwrap()
}

fn exposition(frame: &Frame) -> Exposition {
    Exposition::parse(&text(frame, Format::OpenMetrics))
}
