//! `observer record`: the engine without a screen, and all that it takes in to a file or to standard output.

use std::{
    fs::File,
    future,
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    end_signals::EndSignals,
    engine::{self, Engine},
    errno,
    host::descriptors,
    model::units::grouped,
    new_file::{NewFile, Replaces},
    recording::Tally,
};

/// The name that stands for standard output, and in a replay for standard input.
pub(crate) const STANDARD: &str = "-";

/// How long the last chunk may take where somebody else reads it, with what comes before: a busy host takes seconds to detach
/// the hooks. A second signal ends the wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to record.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// Where to; `-` is standard output.
    pub file: PathBuf,
    /// For how long; `None` until a signal comes.
    pub length: Option<Duration>,
    /// Whether a regular file that is there may be replaced.
    pub replaces: bool,
}

/// Records until SIGINT, SIGTERM or SIGHUP, or for the time that was asked for; returns a sentence on what it did.
pub fn run(engine: engine::EngineOptions, options: &RecordOptions) -> anyhow::Result<String> {
    descriptors::require_for_event_loop().context("open descriptors for the event loop")?;
    let target = OutputTarget::new(&options.file, options.replaces)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("wait for signals")?;
    let tally = runtime.block_on(record(engine, &target, options.length))?;
    let Tally { records, bytes, last_at } = tally;
    let (records, bytes, seconds) = (grouped(records), grouped(bytes), last_at.as_secs_f64());
    Ok(format!("recorded {seconds:.1} s to {}: {records} records, {bytes} bytes", target.name()))
}

/// Where a recording goes.
#[derive(Clone, Debug)]
enum OutputTarget {
    StandardOutput,
    File(PathBuf, Replaces),
}

/// A file that has not got its name yet. Whoever gives up takes it out, and it goes.
type Unnamed = Arc<Mutex<Option<NewFile>>>;

impl OutputTarget {
    /// Fails where nothing can be recorded to; makes nothing.
    fn new(path: &Path, replaces: bool) -> anyhow::Result<Self> {
        if path == Path::new(STANDARD) {
            ensure!(
                !io::stdout().is_terminal(),
                "a recording is not for a terminal: send standard output to a file or a pipe, or name a file"
            );
            return Ok(Self::StandardOutput);
        }
        let replaces = if replaces { Replaces::RegularFile } else { Replaces::NothingButMay };
        NewFile::check(path, replaces)?;
        Ok(Self::File(path.to_owned(), replaces))
    }

    fn name(&self) -> String {
        match self {
            Self::StandardOutput => "standard output".to_owned(),
            Self::File(path, _) => errno::printable(path),
        }
    }

    fn open(&self, unnamed: &Unnamed) -> anyhow::Result<File> {
        match self {
            Self::StandardOutput => {
                Ok(io::stdout().as_fd().try_clone_to_owned().context("open standard output")?.into())
            }
            Self::File(path, replaces) => {
                let new = NewFile::create(path, *replaces)?;
                let file = new.file().with_context(|| format!("open {}", path.display()))?;
                *unnamed.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
                Ok(file)
            }
        }
    }
}

fn take(unnamed: &Unnamed) -> Option<NewFile> {
    unnamed.lock().unwrap_or_else(PoisonError::into_inner).take()
}

async fn record(
    engine: engine::EngineOptions,
    target: &OutputTarget,
    length: Option<Duration>,
) -> anyhow::Result<Tally> {
    // Before the engine is there: from here on no signal ends the program without its last chunk.
    let mut signals = EndSignals::new().context("wait for signals")?;
    // Either end signals the other by going away.
    let (running, is_wanted) = oneshot::channel::<()>();
    let (started, start) = oneshot::channel();
    let (ended, mut end) = oneshot::channel();
    let unnamed = Unnamed::default();
    let (engine_target, engine_unnamed) = (target.clone(), Arc::clone(&unnamed));
    let work = move || {
        let mut engine = Engine::start_recording(engine, || engine_target.open(&engine_unnamed))?;
        // The start has succeeded: from here on the recording is where it was asked for.
        if let Some(new) = take(&engine_unnamed) {
            new.keep()?;
        }
        // Whoever asked may have ended.
        let _ = started.send(());
        engine.poll_until(|| running.is_closed())?;
        engine.finish().with_context(|| engine_target.name())
    };
    // Not joined: where nobody reads standard output, it waits in write(2) for ever.
    thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || drop(ended.send(work())))
        .context("start the engine's thread")?;
    let is_over = async {
        match (start.await, length) {
            (Ok(()), Some(length)) => sleep(length).await,
            _ => future::pending().await,
        }
    };
    tokio::select! {
        () = signals.next() => {}
        () = is_over => {}
        // An error of the engine: it is reported below. The other end of the channel is dropped here, whatever came first.
        _ = is_wanted => {}
    }
    let has_lost_patience = async {
        match target {
            OutputTarget::StandardOutput => sleep(PATIENCE).await,
            // A slow disk is waited for, until somebody insists.
            OutputTarget::File(..) => future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = &mut end => Some(outcome),
        () = signals.next() => None,
        () = has_lost_patience => None,
    };
    match outcome {
        Some(Ok(tally)) => Ok(tally?.unwrap_or_default()),
        Some(Err(_)) => Err(anyhow!("the engine panicked: please report this")),
        None => {
            drop(take(&unnamed));
            bail!("the end of the recording could not be written: {} does not take it", target.name())
        }
    }
}
