//! Where a command takes its frames from.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::value;
use crate::{
    engine::EngineOptions,
    frame::{Detail, Frame, FrameSource as _, LiveSource, RecordedSource},
};

/// The source of one frame: this host now, or a recording.
#[derive(Debug, Default, Args)]
pub(super) struct SourceArgs {
    /// Read this recording instead of this host; `-` is standard input. Needs no rights. What only the running host can
    /// report (its addresses, this shell's RLIMIT_NOFILE) is absent.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// The moment of the recording, in seconds since its start; its end by default.
    #[arg(long, value_name = "SECONDS", requires = "recording", value_parser = value::seconds)]
    at: Option<Duration>,
    /// Read the `observer serve --attach-socket` at this Unix socket instead of attaching. Needs no rights but to connect. Counts
    /// since start begin with this command.
    #[arg(long, value_name = "PATH", conflicts_with = "recording")]
    attach_to: Option<PathBuf>,
}

impl SourceArgs {
    /// Attaches and scans once, or reads the recording.
    pub(super) fn frame(&self, engine: EngineOptions, detail: Detail) -> anyhow::Result<Frame> {
        if let Some(path) = &self.attach_to {
            return RecordedSource::attach(path)?.frame(detail);
        }
        match &self.recording {
            None => LiveSource::once(engine)?.frame(detail),
            Some(file) => {
                let mut source = RecordedSource::open(file)?;
                source.seek(self.at)?;
                source.frame(detail)
            }
        }
    }
}
