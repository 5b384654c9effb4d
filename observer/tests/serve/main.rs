//! `observer serve`, read by curl, promtool and raw sockets, and looked at in /proc.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod bounds;
mod confined;
mod documents;
mod load;
#[cfg(feature = "otlp")]
mod otlp;
mod recorder;
mod requests;
#[cfg(feature = "otlp")]
#[path = "../openmetrics/rotel.rs"]
mod rotel;
#[cfg(feature = "otlp")]
#[path = "../openmetrics/running.rs"]
mod running;
mod server;
mod sockets;
mod supervised;

use std::{
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until there is what is wanted.
#[track_caller]
fn eventually<T>(what: &str, mut wanted: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = wanted() {
            return value;
        }
        assert!(Instant::now() < deadline, "did not come: {what}");
        thread::yield_now();
    }
}
