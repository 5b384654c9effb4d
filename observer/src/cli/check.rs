//! `observer check`: the limits of a frame as one line for monitoring, and an exit status.

use std::process::ExitCode;

use clap::Args;

use super::{Context, print, source::SourceArgs, value};
use crate::{
    export::check::{self, Thresholds},
    frame::Detail,
};

pub(super) const STATUS: &str = "Exit status, as in the Monitoring Plugins Development Guidelines: 0 OK, 1 WARNING, \
    2 CRITICAL, 3 UNKNOWN (also for limits or recordings that could not be read, wrong usage, missing rights, and this \
    help).";

/// Choices of `observer check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Warn from this share of a limit on.
    #[arg(long, short, value_name = "PERCENT", default_value = "80", value_parser = value::percent)]
    warn: u8,
    /// Report a critical state from this share of a limit on.
    #[arg(long, short, value_name = "PERCENT", default_value = "95", value_parser = value::percent)]
    crit: u8,
}

impl CheckArgs {
    /// Fails where the thresholds contradict each other.
    pub(super) fn validate(&self) -> Result<(), String> {
        let Self { warn, crit, .. } = self;
        if warn > crit { Err(format!("--warn {warn} is above --crit {crit}")) } else { Ok(()) }
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let Self { warn, crit, .. } = *self;
        let frame = self.source.frame(context.engine, Detail::LIMITS)?;
        let (status, line) = check::line(&frame, Thresholds { warn, crit });
        print(line.as_bytes())?;
        Ok(status.into())
    }
}
