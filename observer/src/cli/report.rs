//! `observer report`: all that a recorder's directory has, in one table or JSON object.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::print;
use crate::{export, report};

/// Choices of `observer report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The directory of a recorder, or a recording.
    directory: PathBuf,
    /// Print one JSON object (schema 2) instead of tables.
    #[arg(long)]
    json: bool,
}

impl ReportArgs {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let report = report::of(&self.directory)?;
        if self.json { print(&export::report::json(&report)?) } else { print(export::report::text(&report).as_bytes()) }
    }
}
