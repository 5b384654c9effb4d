//! `observer serve`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

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
    /// Offer the live screen on this Unix socket, to `observer --attach-to`. Mode 0660, of the group `observer` if there is one: who
    /// may connect sees what root sees, and can change nothing.
    #[arg(long, value_name = "PATH")]
    attach_socket: Option<PathBuf>,
    /// Record into this directory, in segments of which the oldest go, and keep apart what was recorded around incidents. It is
    /// made if it is not there.
    #[arg(long, value_name = "DIRECTORY")]
    recorder: Option<PathBuf>,
    /// Keep this long, one hour by default (10s to 365d).
    #[arg(long, value_name = "TIME", requires = "recorder", value_parser = value::length)]
    recorder_keep: Option<Duration>,
    /// Everything in the directory never takes more bytes, 512M by default (K, M, G).
    #[arg(long, value_name = "BYTES", requires = "recorder", value_parser = value::recorder_bytes)]
    recorder_max_bytes: Option<u64>,
    /// Keep this many incidents, 10 by default.
    #[arg(long, value_name = "NUMBER", requires = "recorder")]
    recorder_keep_incidents: Option<u64>,
    /// Push the same series to this OTLP receiver, as protobuf over HTTP: http://ADDRESS:PORT, with /v1/metrics where there is
    /// no path. A name is looked up once, at start.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL")]
    otlp: Option<serve::ReceiverUrl>,
    /// Time between two pushes, in seconds.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "SECONDS", requires = "otlp", default_value = "15", value_parser = value::push_interval)]
    otlp_interval: Duration,
}

impl ServeArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        #[cfg(feature = "otlp")]
        let push = self.otlp.map(|url| serve::PushOptions { url, interval: self.otlp_interval });
        #[cfg(not(feature = "otlp"))]
        let push = None;
        let bounds = Bounds { series: self.max_series };
        let kept = value::recorder_bounds(self.recorder_keep, self.recorder_max_bytes, self.recorder_keep_incidents);
        let recorder = self.recorder.map(|path| (path, kept));
        let Self { listen, attach_socket, .. } = self;
        serve::run(context.engine, &ServeOptions { listen, bounds, push, attach_socket, recorder })
    }
}
