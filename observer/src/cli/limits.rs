//! `observer limits`: all limits of a frame, as text or as JSON.

use std::process::ExitCode;

use clap::Args;

use super::{Context, print, source::SourceArgs};
use crate::{export::limits, frame::Detail, model::limit::Limit, present::sort};

/// Choices of `observer limits`.
#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Print one JSON object (schema 2) instead of text.
    #[arg(long)]
    json: bool,
    /// Sort the table by this field: ratio, used, seconds_to_full, ... (docs/metrics.md has all).
    #[arg(long, value_name = "ID", value_parser = sort::parse::<Limit>, conflicts_with = "json")]
    sort: Option<&'static str>,
}

impl LimitsArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let detail = if self.json { Detail::ALL } else { Detail::TABLE };
        let frame = self.source.frame(context.engine, Detail { local: true, ..detail })?;
        if self.json { print(&limits::json(&frame)?) } else { print(limits::text(&frame, self.sort).as_bytes()) }
    }
}
