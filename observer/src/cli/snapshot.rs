//! `observer snapshot`: one frame, as a table or as JSON.

use std::process::ExitCode;

use clap::Args;

use super::{Context, print, source::SourceArgs};
use crate::{
    export,
    frame::{Detail, Frame},
    model::snapshot::{EndpointRow, ServiceRow},
    present::sort,
};

/// Choices of `observer snapshot`.
#[derive(Debug, Default, Args)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    form: FormArgs,
}

/// How a frame is printed.
#[derive(Debug, Default, Args)]
pub(super) struct FormArgs {
    /// Print one JSON object (schema 2) instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Sort the tables by this field: time_wait, sockets, failures_total, ... (docs/metrics.md has all).
    ///
    /// A table without the field keeps its order.
    #[arg(long, value_name = "ID", value_parser = sort::parse_of_two::<EndpointRow, ServiceRow>, conflicts_with = "json")]
    sort: Option<&'static str>,
}

impl FormArgs {
    /// What a frame has to contain.
    pub(super) const fn detail(&self) -> Detail {
        if self.json { Detail::ALL } else { Detail::TABLE }
    }

    pub(super) fn print(&self, frame: &Frame) -> anyhow::Result<ExitCode> {
        if self.json { print(&export::json(frame)?) } else { print(export::table(frame, self.sort).as_bytes()) }
    }
}

impl SnapshotArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        self.form.print(&self.source.frame(context.engine, self.form.detail())?)
    }
}
