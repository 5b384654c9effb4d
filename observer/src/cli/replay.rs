//! `observer replay`: a recording on the live screen; without one, its end as `snapshot` prints it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::{Context, snapshot::FormArgs, value};
use crate::{
    frame::{FrameSource as _, RecordedSource},
    outlet,
    replay::{self, Begin, ReplayOptions, moment::Moment},
};

/// Choices of `observer replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The recording, or the directory of a recorder; `-` is standard input, which the screen shows as it comes.
    file: PathBuf,
    /// The screen's speed, as a multiple of the recorded one.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = value::speed)]
    speed: f64,
    /// The moment at which the screen starts, in seconds since the start of the recording.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = value::seconds)]
    from: Duration,
    /// The moment at which the screen starts, in local time: 03:12, 03:12:07, "2026-11-27 03:12" or 2026-11-27T03:12:07Z. Without a
    /// date the last such time that is recorded. Where no screen is shown, print that moment instead of the end.
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, conflicts_with_all = ["from", "follow"])]
    at: Option<Moment>,
    /// Of a recorder's directory: start a minute before the incident of this number, as `observer report` lists them. Where no
    /// screen is shown, print its worst moment.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["from", "follow", "at"])]
    incident: Option<u64>,
    /// Begin at the end of a file that is still being recorded, and show what is added to it.
    #[arg(long, conflicts_with = "from")]
    follow: bool,
    /// Write the recording to this new file with pseudonyms in the place of addresses and names, and show nothing; `-` is
    /// standard output. The directory of a recorder becomes a new directory. Ports, process ids, states, times and numbers stay.
    #[arg(long, value_name = "OUT", conflicts_with_all = ["speed", "from", "at", "incident", "follow", "FormArgs"])]
    anonymize: Option<PathBuf>,
    #[command(flatten)]
    form: FormArgs,
}

impl ReplayArgs {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let Self { file, speed, from, at, incident, follow: follows, anonymize, form } = self;
        if let Some(to) = anonymize {
            let said = replay::anonymize(&file, &to)?;
            outlet::to_stderr(&format!("observer: {said}\n"));
            return Ok(ExitCode::SUCCESS);
        }
        let begin = match (at, incident) {
            (Some(at), _) => Begin::At(at),
            (None, Some(number)) => Begin::Incident(number),
            (None, None) => Begin::From(from),
        };
        if context.has_screen && !form.is_for_programs() {
            return replay::show(&ReplayOptions { file, speed, begin, follows }, context.look);
        }
        let mut source = match begin {
            Begin::From(from) => {
                let mut source = RecordedSource::open(&file)?;
                source.finish(from)?;
                source
            }
            begin => RecordedSource::open_at(&file, &begin)?,
        };
        form.print(&source.frame(form.detail())?)
    }
}
