//! `observer record`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::{Context, value};
use crate::{
    outlet,
    record::{self, RecordOptions},
};

/// Choices of `observer record`.
#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// The recording; `-` is standard output (`./-` a file of that name). With --keep or --max-bytes the directory of a flight
    /// recorder, which is made if it is not there.
    file: PathBuf,
    /// End after this time.
    #[arg(long = "for", value_name = "SECONDS", value_parser = value::seconds)]
    length: Option<Duration>,
    /// Replace a regular file of this name. Links, devices and folders are never replaced.
    #[arg(long, conflicts_with_all = ["keep", "max_bytes", "keep_incidents"])]
    force: bool,
    /// Put pseudonyms in the place of addresses and names. Ports, process ids, states, times and numbers stay. For the directory
    /// of a flight recorder there is `observer replay --anonymize`.
    #[arg(long, conflicts_with_all = ["keep", "max_bytes", "keep_incidents"])]
    anonymize: bool,
    /// Record into a directory, in segments of which the oldest go: keep this long (10s to 365d).
    #[arg(long, value_name = "TIME", value_parser = value::length)]
    keep: Option<Duration>,
    /// Record into a directory, in segments of which the oldest go: everything in it never takes more bytes (K, M, G).
    #[arg(long, value_name = "BYTES", value_parser = value::recorder_bytes)]
    max_bytes: Option<u64>,
    /// In that directory, keep apart what was recorded around the newest incidents: limits that became critical or exhausted, and
    /// failures in a loop.
    #[arg(long, value_name = "NUMBER")]
    keep_incidents: Option<u64>,
    /// How many bytes wait for a slow reader or disk (K, M, G). What comes beyond that is lost, and counted; the next scan corrects
    /// what a replay shows.
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = value::waiting_bytes)]
    max_waiting: usize,
}

impl RecordArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let Self { file, length, force, anonymize, keep, max_bytes, keep_incidents, max_waiting } = self;
        let is_recorder = keep.is_some() || max_bytes.is_some() || keep_incidents.is_some();
        let recorder = is_recorder.then(|| value::recorder_bounds(keep, max_bytes, keep_incidents));
        let options = RecordOptions { file, length, replaces: force, anonymizes: anonymize, max_waiting, recorder };
        let said = record::run(context.engine, &options)?;
        outlet::to_stderr(&format!("observer: {said}\n"));
        Ok(ExitCode::SUCCESS)
    }
}
