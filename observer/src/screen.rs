//! The live screen: the source of frames on a thread of its own, the terminal on this one.

use std::{
    iter,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use tokio::sync::{mpsc, watch};

use crate::{
    engine::{Engine, EngineOptions, FirstLook, Rest},
    frame::Frame,
    host::{clock, descriptors, privileges::Reduction},
    model::{Model, query::Query},
    tui::{self, Ended, MIN_HEIGHT, MIN_WIDTH, ScreenRequest, Step},
};

/// Time in which a recording goes on, or a lab.
pub(crate) const ADVANCE: Duration = Duration::from_millis(50);
/// Between two frames, at least: less than between two polls, so that each poll that finds something new is shown,
const PUBLISH: Duration = Duration::from_millis(200);
/// and where nothing is new since the last one: only ages grow. Also the longest time between two frames. Where nothing happens the
/// frame follows the model's tick, which has just read most of what a frame reads: a moment later the caches have lost it.
const PUBLISH_QUIET: Duration = Duration::from_secs(1);
/// Frames of a host with many rows come less often: making them may take this share of one CPU, one part of so many: 0.25 %. To draw
/// them takes about as much again.
const FRAMES: u32 = 400;
/// Destinations listed of each endpoint, and single connections: nobody scrolls further.
const DESTINATIONS: usize = 1_000;
const CONNECTIONS: usize = 1_000;

/// Where frames come from: a running kernel, or a recording.
pub(crate) trait ScreenSource: Send {
    /// Takes in what has come since the last time.
    fn advance(&mut self) -> anyhow::Result<()>;

    /// Everything as it is now, with at most `destinations` of each endpoint.
    fn frame(&mut self, destinations: usize) -> Frame;

    /// What is known.
    fn model(&self) -> &Model;

    /// The time until the next call of [`Self::advance`].
    fn pause(&self) -> Duration {
        ADVANCE
    }

    /// Where its thread rests until then.
    fn rest(&self) -> anyhow::Result<Rest> {
        Rest::new(None)
    }

    /// Stays the same while there is nothing new to show but ages, and what comes with the model's tick.
    fn pulse(&self) -> u64 {
        self.model().events_total()
    }

    /// Resets totals and peaks.
    fn restart_totals(&mut self);

    /// Starts the next step of a lab; other sources have none.
    fn next_step(&mut self) {}

    /// Changes place or speed; only a recording has them.
    fn step(&mut self, _step: Step) -> anyhow::Result<()> {
        Ok(())
    }
}

impl ScreenSource for Engine {
    fn advance(&mut self) -> anyhow::Result<()> {
        self.poll()
    }

    fn frame(&mut self, destinations: usize) -> Frame {
        self.snapshot(destinations).into()
    }

    fn pause(&self) -> Duration {
        Self::pause(self)
    }

    fn rest(&self) -> anyhow::Result<Rest> {
        Self::rest(self)
    }

    fn model(&self) -> &Model {
        Self::model(self)
    }

    fn restart_totals(&mut self) {
        Self::restart_totals(self);
    }
}

/// Shows the live screen until the user leaves it. All that can fail at start fails before the screen is touched.
pub fn run(options: EngineOptions, look: tui::Look) -> anyhow::Result<ExitCode> {
    require_size("observer snapshot")?;
    // Afterwards it may be the terminal of another user.
    tui::open_terminal().context("open the terminal")?;
    let (engine, reduction) = Engine::start_reduced(EngineOptions { first_look: FirstLook::Own, ..options }, None)?;
    show(engine, look, reduction)
}

/// Fails if the terminal is too small, and names what to do `instead`.
pub(crate) fn require_size(instead: &str) -> anyhow::Result<()> {
    let (width, height) = crossterm::terminal::size().context("ask the terminal for its size")?;
    ensure!(
        width >= MIN_WIDTH && height >= MIN_HEIGHT,
        "this terminal has {width} columns and {height} lines, the screen needs {MIN_WIDTH} and {MIN_HEIGHT}: \
         make it larger, or run `{instead}`"
    );
    Ok(())
}

/// Shows what `source` knows until the user leaves the screen. `reduction` is what the source gave up: the screen needs no
/// capability then.
pub(crate) fn show(
    mut source: impl ScreenSource + 'static,
    look: tui::Look,
    reduction: Option<Reduction>,
) -> anyhow::Result<ExitCode> {
    descriptors::require_for_event_loop().context("open descriptors for the event loop")?;
    let rest = source.rest()?;
    let (publish, frames) = watch::channel(Arc::new(frame(&mut source, None)));
    let (request, mut requests) = mpsc::unbounded_channel();
    let source = thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || publish_until_unheard(source, &rest, &publish, &mut requests))
        .context("start the engine's thread")?;
    reduction.map(|reduction| reduction.with_capabilities(0).apply()).transpose()?;
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the screen")?
        .block_on(tui::run(frames, request, look));
    // The screen let go of its receiver: the source ends at its next look. Its own error says more than the screen's.
    source.join().map_err(|_| anyhow!("the engine panicked: please report this"))??;
    Ok(match ended? {
        Ended::Quit | Ended::TerminalGone => ExitCode::SUCCESS,
        // As a shell reports a program that a signal ended.
        Ended::Signal(number) => ExitCode::from(128 + u8::try_from(number).unwrap_or(0)),
    })
}

fn publish_until_unheard(
    mut source: impl ScreenSource,
    rest: &Rest,
    publish: &watch::Sender<Arc<Frame>>,
    requests: &mut mpsc::UnboundedReceiver<ScreenRequest>,
) -> anyhow::Result<()> {
    let (mut published_at, mut cpu, mut pulse_before) = (None::<Instant>, Duration::ZERO, None);
    let (mut query, mut asked_for) = (None, None);
    while !publish.is_closed() {
        source.advance()?;
        // Whoever asks waits for the answer.
        let is_asked = asked_for.is_some();
        for request in asked_for.take().into_iter().chain(iter::from_fn(|| requests.try_recv().ok())) {
            match request {
                ScreenRequest::Connections(asked) => query = asked,
                ScreenRequest::RestartTotals => source.restart_totals(),
                ScreenRequest::Playback(step) => source.step(step)?,
                ScreenRequest::NextStep => source.next_step(),
            }
        }
        let pulse = Some((source.pulse(), source.model().ticked_at()));
        let pause = if pulse == pulse_before { PUBLISH_QUIET } else { pause_after(cpu) };
        if is_asked || published_at.is_none_or(|at| at.elapsed() >= pause) {
            let before = clock::thread_cpu();
            publish.send_replace(Arc::new(frame(&mut source, query.as_ref())));
            cpu = clock::thread_cpu().saturating_sub(before);
            (published_at, pulse_before) = (Some(Instant::now()), pulse);
        }
        asked_for = match rest.wait(source.pause(), requests.recv()) {
            Some(Some(request)) => Some(request),
            Some(None) => break,
            None => None,
        };
    }
    Ok(())
}

/// The time until the next frame with something new, after one that took so much of a CPU.
fn pause_after(cpu: Duration) -> Duration {
    (cpu * FRAMES).clamp(PUBLISH, PUBLISH_QUIET)
}

/// Everything as it is now, with as much of it as a screen can show.
pub(crate) fn frame(source: &mut impl ScreenSource, query: Option<&Query>) -> Frame {
    let frame = source.frame(DESTINATIONS);
    let now = frame.snapshot.uptime;
    let connections = query.map(|query| source.model().connections(query, now, CONNECTIONS));
    Frame { connections, ..frame }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_take_longer_come_less_often_and_at_least_once_a_second() {
        let pause_of = |micros| pause_after(Duration::from_micros(micros));
        assert_eq!(pause_of(0), PUBLISH);
        assert_eq!(pause_of(500), PUBLISH);
        assert_eq!(pause_of(1_250), Duration::from_millis(500));
        assert_eq!(pause_of(60_000), PUBLISH_QUIET);
    }
}
