//! `observer lab`.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;

use super::Context;
use crate::lab::{self, Lab};

pub(super) const STATUS: &str =
    "Exit status: 0 the claim is confirmed, 1 it is not (or the lab could not run), 2 wrong usage.";

/// Choices of `observer lab`.
#[derive(Debug, Args)]
pub(super) struct LabArgs {
    /// The lab, as `observer lab` lists them.
    #[arg(value_parser = lab::parse)]
    name: Option<&'static Lab>,
    /// Print the transcript line by line, without the live screen. The default where standard output is no terminal.
    #[arg(long, requires = "name", conflicts_with = "json")]
    plain: bool,
    /// Print only the verdict, as one JSON object (schema 2).
    #[arg(long, requires = "name")]
    json: bool,
    /// Wait for a key before each step: `n` on the screen, Enter in the plain transcript.
    #[arg(long, requires = "name", conflicts_with = "json")]
    step: bool,
    /// Open at most this many connections at a time.
    #[arg(long, requires = "name", value_name = "CONNECTIONS")]
    scale: Option<u32>,
    /// Record the lab to this new file, for `observer replay`.
    #[arg(long, requires = "name", value_name = "FILE")]
    record: Option<PathBuf>,
}

impl LabArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let Self { name, plain, json, step, scale, record } = self;
        let Some(lab) = name else {
            lab::list(&mut io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        };
        let form = match (json, plain || !context.has_screen) {
            (true, _) => lab::Form::Json,
            (false, true) => lab::Form::Plain,
            (false, false) => lab::Form::Screen,
        };
        let options = lab::LabOptions { lab, form, waits: step, scale, record, engine: context.engine };
        lab::run(options, context.look, io::stdout())
    }
}
