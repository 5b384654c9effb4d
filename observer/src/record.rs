//! `observer record`: the engine without a screen, and all that it takes in to a file, to standard output, or to the directory
//! of a recorder.

use std::{
    fs::File,
    future,
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    anonymize::{AnonymizedSink, Written},
    end_signals::EndSignals,
    engine::{self, AfterAttach, Engine},
    errno,
    host::descriptors,
    model::units::grouped,
    new_file::{NewFile, Replaces},
    recording::{Recorder, RecorderBounds, RecorderStatus, Sink, Tally, recorder::Handle},
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
    /// Whether it has pseudonyms in the place of addresses and names.
    pub anonymizes: bool,
    /// Bytes that wait for a slow reader or disk, at most.
    pub max_waiting: usize,
    /// `file` is the directory of a recorder with these bounds.
    pub recorder: Option<RecorderBounds>,
}

/// Records until SIGINT, SIGTERM or SIGHUP, or for the time that was asked for; returns a sentence on what it did.
pub fn run(engine: engine::EngineOptions, options: &RecordOptions) -> anyhow::Result<String> {
    descriptors::require_for_event_loop().context("open descriptors for the event loop")?;
    let target = match options.recorder {
        Some(bounds) => OutputTarget::recorder(&options.file, bounds, engine.after_attach)?,
        None => OutputTarget::new(&options.file, options.replaces)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("wait for signals")?;
    let engine = engine::EngineOptions { max_waiting: options.max_waiting, ..engine };
    let anonymized = options.anonymizes.then(Written::default);
    let tally = runtime.block_on(record(engine, &target, options.length, anonymized.clone()))?;
    let Tally { records, bytes, last_at, lost } = tally;
    // The engine counts what it passes on.
    let bytes = anonymized.map_or(bytes, |written| written.load(Ordering::Relaxed));
    let (records, bytes, seconds) = (grouped(records), grouped(bytes), last_at.as_secs_f64());
    let lost = match lost {
        0 => String::new(),
        lost => format!("; {} inputs lost, because they came faster than they were taken", grouped(lost)),
    };
    let kept = target.kept();
    Ok(format!("recorded {seconds:.1} s to {}: {records} records, {bytes} bytes{kept}{lost}", target.name()))
}

/// Where a recording goes.
#[derive(Clone, Debug)]
enum OutputTarget {
    StandardOutput,
    File(PathBuf, Replaces),
    /// The recorder, until the engine has it.
    Directory(PathBuf, Handle, Arc<Mutex<Option<Recorder>>>),
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

    /// Opens the directory while there are rights to do so.
    fn recorder(path: &Path, bounds: RecorderBounds, after: AfterAttach) -> anyhow::Result<Self> {
        engine::require_rights()?;
        let recorder = Recorder::open(path, bounds, after.user())?;
        Ok(Self::Directory(path.to_owned(), recorder.handle(), Arc::new(Mutex::new(Some(recorder)))))
    }

    fn name(&self) -> String {
        match self {
            Self::StandardOutput => "standard output".to_owned(),
            Self::File(path, _) | Self::Directory(path, ..) => errno::printable(path),
        }
    }

    /// What a recorder has kept of all that, and what went wrong.
    fn kept(&self) -> String {
        let Self::Directory(_, handle, _) = self else { return String::new() };
        let RecorderStatus { bytes, segments, incidents, errors, last_error, .. } = handle.status();
        let kept = format!("; {} bytes, {segments} segments and {incidents} incidents are there", grouped(bytes));
        match last_error {
            Some(error) => format!("{kept}; {errors} times it could not be written, last {error}"),
            None => kept,
        }
    }

    fn open(&self, unnamed: &Unnamed, anonymized: Option<Written>) -> anyhow::Result<Sink> {
        match self {
            Self::StandardOutput => {
                let stdout = io::stdout().as_fd().try_clone_to_owned().context("open standard output")?;
                sink(stdout.into(), anonymized)
            }
            Self::Directory(path, _, recorder) => {
                let recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner).take();
                recorder.map(Sink::from).with_context(|| format!("open {}", path.display()))
            }
            Self::File(path, replaces) => {
                let new = NewFile::create(path, *replaces)?;
                let file = new.file().with_context(|| format!("open {}", path.display()))?;
                *unnamed.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
                sink(file, anonymized)
            }
        }
    }
}

/// The file, behind what gives pseudonyms and counts there what it writes.
fn sink(file: File, anonymized: Option<Written>) -> anyhow::Result<Sink> {
    Ok(match anonymized {
        Some(written) => Sink::Recording(Box::new(AnonymizedSink::new(file, written)?)),
        None => file.into(),
    })
}

fn take(unnamed: &Unnamed) -> Option<NewFile> {
    unnamed.lock().unwrap_or_else(PoisonError::into_inner).take()
}

async fn record(
    engine: engine::EngineOptions,
    target: &OutputTarget,
    length: Option<Duration>,
    anonymized: Option<Written>,
) -> anyhow::Result<Tally> {
    // Before the engine is there: from here on no signal ends the program without its last chunk.
    let mut signals = EndSignals::new().context("wait for signals")?;
    // Either end signals the other by going away.
    let (mut running, is_wanted) = oneshot::channel::<()>();
    let (started, start) = oneshot::channel();
    let (ended, mut end) = oneshot::channel();
    let unnamed = Unnamed::default();
    let (engine_target, engine_unnamed) = (target.clone(), Arc::clone(&unnamed));
    let work = move || {
        let mut engine = Engine::start_recording(engine, || engine_target.open(&engine_unnamed, anonymized))?;
        // The start has succeeded: from here on the recording is where it was asked for.
        if let Some(new) = take(&engine_unnamed) {
            new.keep()?;
        }
        let reduction = engine.reduce_rights()?;
        let rest = engine.rest()?;
        // Whoever asked may have ended.
        let _ = started.send(reduction);
        engine.poll_until(&rest, running.closed())?;
        engine.finish().with_context(|| engine_target.name())
    };
    // Not joined: where nobody reads standard output, it waits in write(2) for ever.
    thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || drop(ended.send(work())))
        .context("start the engine's thread")?;
    let is_over = async {
        if let Ok(reduction) = start.await {
            // This thread waits, and needs none.
            reduction.map(|reduction| reduction.with_capabilities(0).apply()).transpose()?;
            if let Some(length) = length {
                sleep(length).await;
                return Ok(());
            }
        }
        future::pending::<anyhow::Result<()>>().await
    };
    let mut ended_badly = Ok(());
    tokio::select! {
        () = signals.next() => {}
        over = is_over => ended_badly = over,
        // An error of the engine: it is reported below. The other end of the channel is dropped here, whatever came first.
        _ = is_wanted => {}
    }
    let has_lost_patience = async {
        match target {
            OutputTarget::StandardOutput => sleep(PATIENCE).await,
            // A slow disk is waited for, until somebody insists.
            OutputTarget::File(..) | OutputTarget::Directory(..) => future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = &mut end => Some(outcome),
        () = signals.next() => None,
        () = has_lost_patience => None,
    };
    match outcome {
        Some(Ok(tally)) => ended_badly.and(tally.map(Option::unwrap_or_default)),
        Some(Err(_)) => Err(anyhow!("the engine panicked: please report this")),
        None => {
            drop(take(&unnamed));
            bail!("the end of the recording could not be written: {} does not take it", target.name())
        }
    }
}
