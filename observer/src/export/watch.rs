//! `observer watch`: snapshots for scripts, one JSON object a line.

use std::{
    io::{BufWriter, Write},
    time::{Duration, Instant},
};

use super::json;
use crate::engine::{Engine, Options};

/// How often, and how many times.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// From one line to the next.
    pub interval: Duration,
    /// Lines; `None` for as many as there is time for.
    pub count: Option<u64>,
}

/// Attaches, scans, and prints a line at once and then at every interval. Each is complete when it is written.
pub fn run(options: Options, schedule: Schedule, out: &mut impl Write) -> anyhow::Result<()> {
    let mut engine = Engine::start(options)?;
    let mut out = BufWriter::new(out);
    let mut due = Instant::now();
    let mut written = 0;
    while schedule.count.is_none_or(|count| written < count) {
        engine.poll_until(|| Instant::now() >= due)?;
        json::write_line(&engine.snapshot(usize::MAX), &mut out)?;
        out.flush()?;
        written += 1;
        // After a stop (SIGSTOP, a suspended host, a slow reader) there is one line, and not one for each that was missed.
        due = (due + schedule.interval).max(Instant::now());
    }
    Ok(())
}
