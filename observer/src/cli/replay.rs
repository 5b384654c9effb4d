//! `observer replay`: a recording on the live screen; without one, its end as `snapshot` prints it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::{Context, snapshot::FormArgs, value};
use crate::{
    frame::{FrameSource as _, RecordedSource},
    replay::{self, ReplayOptions},
};

/// Choices of `observer replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The recording; `-` is standard input, which is read to its end first.
    file: PathBuf,
    /// The screen's speed, as a multiple of the recorded one.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = value::speed)]
    speed: f64,
    /// The moment at which the screen starts, in seconds since the start of the recording.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = value::seconds)]
    from: Duration,
    #[command(flatten)]
    form: FormArgs,
}

impl ReplayArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let Self { file, speed, from, form } = self;
        if context.has_screen && !form.is_for_programs() {
            return replay::show(ReplayOptions { file, speed, from }, context.look);
        }
        let mut source = RecordedSource::open(&file)?;
        source.finish()?;
        form.print(&source.frame(form.detail())?)
    }
}
