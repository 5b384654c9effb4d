//! The engine that watches a lab, on its own thread, and the handle with which the lab requests snapshots.

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
    engine::{AfterAttach, Engine, EngineOptions, Watched},
    frame::{Frame, transcript::Transcript},
    model::{Model, snapshot::Snapshot},
    new_file::{NewFile, Replaces},
    screen::{ADVANCE, ScreenSource},
};

/// A request for a snapshot, after a scan of the kernel's tables if `scanned`.
struct SnapshotRequest {
    scanned: bool,
    reply: Sender<Snapshot>,
}

/// The lab's handle.
#[derive(Debug)]
pub(super) struct Watcher(Sender<SnapshotRequest>);

/// The engine's side, which can also be the source of the live screen.
pub(super) struct LabEngine {
    engine: Option<Engine>,
    requests: Receiver<SnapshotRequest>,
    is_over: bool,
    /// The transcript that the screen shows, and the channel that requests the next step.
    beside: Option<(Arc<Mutex<Transcript>>, Sender<()>)>,
}

/// Starts an engine for the namespace of this process. It records to `file` if there is one.
pub(super) fn start(options: EngineOptions, file: Option<&PathBuf>) -> anyhow::Result<(Watcher, LabEngine)> {
    // A lab limits and counts as root until its end. It is all load, and compares what each event shows.
    let (watched, after_attach) = (Watched::Own, AfterAttach::KeepRights);
    let options = EngineOptions { watched, after_attach, max_cost: None, ..options };
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
    let (ask, requests) = mpsc::channel();
    Ok((Watcher(ask), LabEngine { engine: Some(engine), requests, is_over: false, beside: None }))
}

impl Watcher {
    /// The current snapshot: from events alone, or right after a scan if `scanned`.
    pub(super) fn snapshot(&self, scanned: bool, patience: Duration) -> anyhow::Result<Snapshot> {
        let (reply, replies) = mpsc::channel();
        self.0.send(SnapshotRequest { scanned, reply }).map_err(|_| anyhow!("the engine has ended"))?;
        match replies.recv_timeout(patience) {
            Ok(snapshot) => Ok(snapshot),
            Err(RecvTimeoutError::Timeout) => Err(anyhow!("the engine did not respond in time")),
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the engine has ended")),
        }
    }
}

impl LabEngine {
    /// Puts the transcript into the frames. `next` receives a message when the person wants the next step.
    pub(super) fn show_beside(&mut self, transcript: Arc<Mutex<Transcript>>, next: Sender<()>) {
        self.beside = Some((transcript, next));
    }

    /// Runs on its own thread until the lab drops its handle; then completes the recording.
    pub(super) fn run(mut self) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                while !self.is_over {
                    let next = Instant::now() + ADVANCE;
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

/// Completes the recording also where the screen ends first.
impl Drop for LabEngine {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take()
            && let Err(error) = engine.finish()
        {
            tracing::error!(%error, "complete the recording");
        }
    }
}

impl ScreenSource for LabEngine {
    fn advance(&mut self) -> anyhow::Result<()> {
        self.engine()?.poll()?;
        loop {
            match self.requests.try_recv() {
                Ok(SnapshotRequest { scanned, reply }) => {
                    let engine = self.engine()?;
                    if scanned {
                        engine.scan()?;
                    }
                    // The lab may have stopped waiting.
                    let _ = reply.send(engine.snapshot(usize::MAX));
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.is_over = true;
                    return Ok(());
                }
            }
        }
    }

    fn frame(&mut self, destinations: usize) -> Frame {
        #[expect(clippy::expect_used, reason = "the engine is taken only when this ends")]
        let snapshot = self.engine.as_mut().expect("an engine").snapshot(destinations);
        let transcript = self.beside.as_ref().map(|(transcript, _)| transcript);
        let transcript = transcript.map(|it| Arc::new(it.lock().unwrap_or_else(PoisonError::into_inner).clone()));
        Frame { transcript, ..Frame::from(snapshot) }
    }

    /// New lines of the transcript are a reason to redraw, too.
    fn pulse(&self) -> u64 {
        let news = self.beside.as_ref().map_or(0, |(transcript, _)| {
            let transcript = transcript.lock().unwrap_or_else(PoisonError::into_inner);
            transcript.lines.len() as u64 + transcript.progress.map_or(0, |(done, _)| done)
        });
        self.model().events_total() + news
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
