//! observer itself, beside the lab: the engine on a thread of its own, which the lab asks what it sees.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};

use crate::{
    engine::{Engine, Options, POLL, Watched},
    model::{Model, narration::Narration, snapshot::Snapshot},
    new_file::{NewFile, Replaces},
    screen::ScreenSource,
};

/// What the lab asks: a snapshot, after a scan of the kernel's tables if `scanned`.
struct Question {
    scanned: bool,
    answer: Sender<Snapshot>,
}

/// The lab's end.
#[derive(Debug)]
pub(super) struct Watcher(Sender<Question>);

/// The engine's end: a source of snapshots for a screen too.
pub(super) struct Watch {
    engine: Option<Engine>,
    questions: Receiver<Question>,
    is_over: bool,
    /// What is told beside a screen, and how it is asked to go on.
    beside: Option<(Arc<Mutex<Narration>>, Sender<()>)>,
}

/// Starts an engine for the namespace that the process is in, which records to `file` if there is one.
pub(super) fn start(options: Options, file: Option<&PathBuf>) -> anyhow::Result<(Watcher, Watch)> {
    let options = Options { watched: Watched::Own, ..options };
    let engine = match file {
        None => Engine::start(options)?,
        Some(file) => {
            let mut unnamed = None;
            let engine = Engine::start_recording(options, || {
                let new = NewFile::create(file, Replaces::Nothing)?;
                let opened = new.file().with_context(|| format!("open {}", file.display()))?;
                unnamed = Some(new);
                Ok(opened)
            })?;
            unnamed.map_or(Ok(()), NewFile::keep)?;
            engine
        }
    };
    let (ask, questions) = mpsc::channel();
    Ok((Watcher(ask), Watch { engine: Some(engine), questions, is_over: false, beside: None }))
}

impl Watcher {
    /// What is there now: by events alone, or `scanned`.
    pub(super) fn snapshot(&self, scanned: bool, patience: Duration) -> anyhow::Result<Snapshot> {
        let (answer, answers) = mpsc::channel();
        self.0.send(Question { scanned, answer }).map_err(|_| anyhow!("the engine has ended"))?;
        match answers.recv_timeout(patience) {
            Ok(snapshot) => Ok(snapshot),
            Err(RecvTimeoutError::Timeout) => Err(anyhow!("the engine did not answer in time")),
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the engine has ended")),
        }
    }
}

impl Watch {
    /// Shows narration beside the snapshots; `next` is told when the person wants the next step.
    pub(super) fn tell_beside(&mut self, narration: Arc<Mutex<Narration>>, next: Sender<()>) {
        self.beside = Some((narration, next));
    }

    /// Runs on a thread of its own until the lab lets go of its end; then completes the recording.
    pub(super) fn run(mut self) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                while !self.is_over {
                    let next = Instant::now() + POLL;
                    self.advance()?;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                match self.engine.take() {
                    Some(engine) => engine.finish().map(drop),
                    None => Ok(()),
                }
            })
            .context("start the engine's thread")
    }

    fn engine(&mut self) -> anyhow::Result<&mut Engine> {
        self.engine.as_mut().context("the engine has ended")
    }
}

/// The recording is completed also where a screen ends.
impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take()
            && let Err(error) = engine.finish()
        {
            tracing::error!(%error, "complete the recording");
        }
    }
}

impl ScreenSource for Watch {
    fn advance(&mut self) -> anyhow::Result<()> {
        self.engine()?.poll()?;
        loop {
            match self.questions.try_recv() {
                Ok(Question { scanned, answer }) => {
                    if scanned {
                        self.engine()?.scan()?;
                    }
                    // Whoever asked may have lost patience.
                    let _ = answer.send(self.snapshot(usize::MAX));
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.is_over = true;
                    return Ok(());
                }
            }
        }
    }

    fn snapshot(&mut self, destinations: usize) -> Snapshot {
        #[expect(clippy::expect_used, reason = "the engine is taken only when this ends")]
        let mut snapshot = self.engine.as_mut().expect("an engine").snapshot(destinations);
        let told = self.beside.as_ref().map(|(narration, _)| narration);
        snapshot.narration = told.map(|told| Arc::new(told.lock().unwrap_or_else(PoisonError::into_inner).clone()));
        snapshot
    }

    /// Narration is news, too.
    fn pulse(&self) -> u64 {
        let told = self.beside.as_ref().map_or(0, |(narration, _)| {
            let narration = narration.lock().unwrap_or_else(PoisonError::into_inner);
            narration.lines.len() as u64 + narration.progress.map_or(0, |(done, _)| done)
        });
        self.model().events_total() + told
    }

    fn next_step(&mut self) {
        if let Some((_, next)) = &self.beside {
            // The lab may be over.
            let _ = next.send(());
        }
    }

    fn restart_totals(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.restart_totals();
        }
    }

    fn model(&self) -> &Model {
        #[expect(clippy::expect_used, reason = "the engine is taken only when this ends")]
        self.engine.as_ref().expect("an engine").model()
    }
}
