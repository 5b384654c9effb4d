//! `observer serve`.

use std::process::ExitCode;

use clap::Args;

use super::{Context, value};
use crate::{
    export::openmetrics::Bounds,
    serve::{self, ListenAddress, ServeOptions},
};

/// Choices of `observer serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Listen here: ADDRESS:PORT, or unix:PATH for a Unix socket (mode 0660). Give it once for each. 127.0.0.1:28232 by
    /// default, or the sockets of the service manager (LISTEN_FDS).
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<ListenAddress>,
    /// Serve at most this many series. observer_series_left_out says what is missing.
    #[arg(long, value_name = "SERIES", default_value_t = Bounds::default().series, value_parser = value::series)]
    max_series: usize,
}

impl ServeArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let Self { listen, max_series } = self;
        serve::run(context.engine, &ServeOptions { listen, bounds: Bounds { series: max_series } })
    }
}
