//! Snapshots for scripts and pipes.

mod json;
mod table;

use std::io::{self, Write};

use crate::engine::{Engine, Options, Scans};

/// Attaches, scans, and prints what is there.
pub fn print(options: Options, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut engine = Engine::start(Options { scans: Scans::OnlyAtStart, ..options })?;
    let snapshot = engine.snapshot(if as_json { usize::MAX } else { 1 });
    if as_json {
        json::write(&snapshot, out)?;
    } else {
        out.write_all(table::render(&snapshot).as_bytes())?;
    }
    out.flush().map_err(|error: io::Error| error.into())
}
