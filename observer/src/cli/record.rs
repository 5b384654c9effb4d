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
    /// The recording; `-` is standard output (`./-` a file of that name).
    file: PathBuf,
    /// End after this time.
    #[arg(long = "for", value_name = "SECONDS", value_parser = value::seconds)]
    length: Option<Duration>,
    /// Replace a regular file of this name. Links, devices and folders are never replaced.
    #[arg(long)]
    force: bool,
}

impl RecordArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let Self { file, length, force } = self;
        let said = record::run(context.engine, &RecordOptions { file, length, replaces: force })?;
        outlet::to_stderr(&format!("observer: {said}\n"));
        Ok(ExitCode::SUCCESS)
    }
}
