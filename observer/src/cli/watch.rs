//! `observer watch`: frame after frame, one JSON object a line.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::{Context, print, value};
use crate::{
    engine::EngineOptions,
    export,
    frame::{Detail, FrameSource, LiveSource, RecordedSource},
};

/// Choices of `observer watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Time between two lines.
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = value::interval)]
    interval: Duration,
    /// End after this many lines.
    #[arg(short = 'n', value_name = "COUNT")]
    count: Option<u64>,
    /// Read this recording instead of this host; `-` is standard input. Intervals are times of the recording: nothing
    /// waits. The last line is the end of the recording.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// The first line's moment, in seconds since the start of the recording; after its first scan by default.
    #[arg(long, value_name = "SECONDS", requires = "recording", value_parser = value::seconds)]
    from: Option<Duration>,
    /// Read the `observer serve --attach-socket` at this Unix socket instead of attaching. Needs no rights but to connect. Counts
    /// since start begin with this command.
    #[arg(long, value_name = "PATH", conflicts_with = "recording")]
    attach_to: Option<PathBuf>,
}

impl WatchArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let mut source = self.source(context.engine)?;
        let mut due = source.now();
        let mut written = 0;
        while self.count.is_none_or(|count| written < count) {
            let goes_on = source.advance_to(due)?;
            print(&export::json_line(&source.frame(Detail::ALL)?)?)?;
            written += 1;
            if !goes_on {
                break;
            }
            // After a stop (SIGSTOP, a suspended host, a slow reader) there is one line, not one for each missed interval.
            due = (due + self.interval).max(source.now());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn source(&self, engine: EngineOptions) -> anyhow::Result<Box<dyn FrameSource>> {
        if let Some(path) = &self.attach_to {
            return Ok(Box::new(RecordedSource::attach(path)?));
        }
        let Some(file) = &self.recording else { return Ok(Box::new(LiveSource::start(engine)?)) };
        let mut source = RecordedSource::open(file)?;
        match self.from {
            None => source.seek_first_scan()?,
            from => source.seek(from)?,
        }
        Ok(Box::new(source))
    }
}
