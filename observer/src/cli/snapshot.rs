//! `observer snapshot`: one frame, as a table, as JSON, or as series for Prometheus.

use std::process::ExitCode;

use clap::Args;

use super::{Context, print, source::SourceArgs, value};
use crate::{
    export::{
        self,
        openmetrics::{self, Format},
        series::{Bounds, Kept},
    },
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
    json: bool,
    /// Print series for Prometheus in OpenMetrics 1.0 instead of a table.
    #[arg(long, group = "metrics", conflicts_with = "json")]
    openmetrics: bool,
    /// Print series for Prometheus in the text format 0.0.4, which node_exporter's textfile collector reads.
    #[arg(long, group = "metrics", conflicts_with = "json")]
    prometheus: bool,
    /// Print at most this many series, 5000 by default. observer_series_left_out says what is missing.
    #[arg(long, value_name = "SERIES", requires = "metrics", value_parser = value::series)]
    max_series: Option<usize>,
    /// Sort the tables by this field: time_wait, sockets, failures_total, ... (docs/metrics.md has all).
    ///
    /// A table without the field keeps its order.
    #[arg(long, value_name = "ID", value_parser = sort::parse_of_two::<EndpointRow, ServiceRow>, conflicts_with_all = ["json", "metrics"])]
    sort: Option<&'static str>,
}

impl FormArgs {
    /// What a frame has to contain.
    pub(super) const fn detail(&self) -> Detail {
        if self.is_for_programs() { Detail::ALL } else { Detail::TABLE }
    }

    /// Whether programs read it, on whatever standard output is.
    pub(super) const fn is_for_programs(&self) -> bool {
        self.json || self.openmetrics || self.prometheus
    }

    pub(super) fn print(&self, frame: &Frame) -> anyhow::Result<ExitCode> {
        let series = |format| {
            let bounds = self.max_series.map_or_else(Bounds::default, |series| Bounds { series });
            print(&openmetrics::render(frame, format, bounds, &mut Kept::default()))
        };
        match self {
            Self { json: true, .. } => print(&export::json(frame)?),
            Self { openmetrics: true, .. } => series(Format::OpenMetrics),
            Self { prometheus: true, .. } => series(Format::Text),
            Self { sort, .. } => print(export::table(frame, *sort).as_bytes()),
        }
    }
}

impl SnapshotArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        self.form.print(&self.source.frame(context.engine, self.form.detail())?)
    }
}
