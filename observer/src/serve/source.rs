//! The engine on a thread of its own. It waits for nobody: frames are taken between two polls when one was requested.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc as tokio_mpsc;

use super::bounds;
use crate::{
    engine::{Engine, EngineOptions},
    frame::{Detail, Frame},
    host::privileges::Reduction,
    recording::{Recorder, Sink},
};

/// When the engine last polled; `None` before its start.
type Polled = Arc<Mutex<Option<Instant>>>;

/// A running engine.
#[derive(Debug)]
pub(super) struct EngineThread {
    /// Frames that were requested. It ends with the engine.
    frames: tokio_mpsc::Receiver<Frame>,
    requests: tokio_mpsc::Sender<()>,
    viewers: mpsc::SyncSender<Sink>,
    polled: Polled,
    reduction: Arc<OnceLock<Reduction>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl EngineThread {
    /// Starts it, with a recorder if there is one. The first frame comes by itself.
    pub(super) fn start(options: EngineOptions, recorder: Option<Recorder>) -> anyhow::Result<Self> {
        let (publish, frames) = tokio_mpsc::channel(1);
        let (requests, mut requested) = tokio_mpsc::channel(1);
        let (viewers, viewed) = mpsc::sync_channel(bounds::VIEWERS);
        let polled = Polled::default();
        let heartbeat = Arc::clone(&polled);
        let reduction = Arc::new(OnceLock::new());
        let reduced = Arc::clone(&reduction);
        let work = move || {
            let (engine, reduction) = Engine::start_reduced(options, recorder)?;
            // Before the first frame.
            reduction.map(|reduction| reduced.set(reduction));
            run(engine, &publish, (&mut requested, &viewed), &heartbeat)
        };
        let thread =
            thread::Builder::new().name("engine".to_owned()).spawn(work).context("start the engine's thread")?;
        Ok(Self { frames, requests, viewers, polled, reduction, thread })
    }

    /// What the engine gave up, once there is a frame.
    pub(super) fn reduction(&self) -> Option<Reduction> {
        self.reduction.get().copied()
    }

    /// Requests a frame. Requests before it share it.
    pub(super) fn request(&self) {
        // A full channel is a request.
        let _ = self.requests.try_send(());
    }

    /// Sends everything from the next scan on there too.
    pub(super) fn stream_to(&self, sink: Sink) {
        if self.viewers.try_send(sink).is_err() {
            tracing::warn!("a viewer was turned away: the engine does not keep up");
        }
    }

    /// Waits for a frame. `None` when the engine has ended.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }

    /// Whether it polls, or is about to start.
    pub(super) fn is_alive(&self) -> bool {
        let polled = *self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        polled.is_none_or(|at| at.elapsed() < bounds::ALIVE)
    }

    /// Ends it, and returns what it ended with.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let Self { frames, requests, viewers, thread, .. } = self;
        drop((frames, requests, viewers));
        thread.join().map_err(|_| anyhow!("the engine panicked: please report this"))?
    }
}

fn run(
    mut engine: Engine,
    publish: &tokio_mpsc::Sender<Frame>,
    (requested, viewed): (&mut tokio_mpsc::Receiver<()>, &mpsc::Receiver<Sink>),
    heartbeat: &Polled,
) -> anyhow::Result<()> {
    let (rest, mut is_requested) = (engine.rest()?, true);
    while !publish.is_closed() {
        for sink in viewed.try_iter() {
            if let Err(error) = engine.stream_to(sink) {
                tracing::warn!(%error, "start the stream of a viewer");
            }
        }
        engine.poll()?;
        *heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if is_requested {
            // Where one waits already, that one is the answer.
            let _ = publish.try_send(engine.snapshot(Detail::ALL.destinations).into());
        }
        is_requested = match rest.wait(engine.pause(), requested.recv()) {
            Some(Some(())) => true,
            Some(None) => break,
            None => false,
        };
    }
    engine.finish().map(drop)
}
