//! `observer serve`.

use std::process::ExitCode;

use clap::Args;

use super::{Context, value};
use crate::{
    export::series::Bounds,
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
    /// Push the same series to this OTLP receiver, as protobuf over HTTP: http://ADDRESS:PORT, with /v1/metrics where there is
    /// no path. A name is looked up once, at start.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL")]
    otlp: Option<serve::ReceiverUrl>,
    /// Time between two pushes, in seconds.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "SECONDS", requires = "otlp", default_value = "15", value_parser = value::push_interval)]
    otlp_interval: std::time::Duration,
}

impl ServeArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        #[cfg(feature = "otlp")]
        let push = self.otlp.map(|url| serve::PushOptions { url, interval: self.otlp_interval });
        #[cfg(not(feature = "otlp"))]
        let push = None;
        let bounds = Bounds { series: self.max_series };
        serve::run(context.engine, &ServeOptions { listen: self.listen, bounds, push })
    }
}
