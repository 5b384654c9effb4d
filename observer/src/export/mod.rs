//! Snapshots for scripts and pipes.

pub mod check;
mod gaps;
mod hits;
mod json;
mod limit;
pub mod limits;
mod quality;
mod table;
pub mod watch;

use std::io::{self, Write};

use crate::{
    engine::{Engine, Options, Scans},
    model::snapshot::Snapshot,
};

/// Attaches and scans once.
fn take(options: Options, destinations: usize) -> anyhow::Result<Snapshot> {
    Ok(Engine::start(Options { scans: Scans::OnlyAtStart, ..options })?.snapshot(destinations))
}

/// Attaches, scans, and prints what is there.
pub fn print(options: Options, as_json: bool, sort: Option<&str>, out: &mut impl Write) -> anyhow::Result<()> {
    write(&take(options, destinations(as_json))?, as_json, sort, out)
}

/// How many destinations of each endpoint are printed.
pub(crate) const fn destinations(as_json: bool) -> usize {
    if as_json { usize::MAX } else { 1 }
}

/// Prints a snapshot; a table is in the order of the field `sort`.
pub(crate) fn write(
    snapshot: &Snapshot,
    as_json: bool,
    sort: Option<&str>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if as_json {
        json::write(snapshot, out)?;
    } else {
        out.write_all(table::render(snapshot, sort).as_bytes())?;
    }
    out.flush().map_err(|error: io::Error| error.into())
}
