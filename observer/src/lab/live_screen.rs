//! Runs a lab beside the live screen: the screen on the main thread, the lab on its own thread.

use std::{
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use super::{
    Lab, LabOptions, conduct,
    needs::Needs,
    presenter::{self, LabEvent, Presenter},
    report::{Report, Verdict},
    watcher,
};
use crate::{
    frame::transcript::{Speaker, Transcript, TranscriptLine},
    screen,
    tui::{self, LEAST_HEIGHT_OF_LABS},
};

/// How long the lab waits before each step for the person to read, unless it waits for a key.
const READING: Duration = Duration::from_secs(4);

/// Fails if the terminal has no room for both the screen and the lab.
pub(super) fn require_size(lab: &Lab) -> anyhow::Result<()> {
    let instead = format!("observer lab {} --plain", lab.name);
    screen::require_size(&instead)?;
    let (_, height) = crossterm::terminal::size().context("read the terminal's size")?;
    ensure!(
        height >= LEAST_HEIGHT_OF_LABS,
        "this terminal has {height} lines, and a lab beside the screen needs {LEAST_HEIGHT_OF_LABS}: enlarge it, or \
         run `{instead}`"
    );
    Ok(())
}

/// Runs a lab beside the screen. The screen stays until the person quits.
pub(super) fn run(options: LabOptions, scale: u32, needs: Needs, look: tui::Look) -> anyhow::Result<ExitCode> {
    let (watcher, mut engine) = watcher::start(options.engine, options.record.as_ref())?;
    let transcript = Arc::new(Mutex::new(Transcript { title: options.lab.name.to_owned(), ..Transcript::default() }));
    let (next, next_steps) = mpsc::channel();
    engine.show_beside(Arc::clone(&transcript), next);
    let (ended, end) = mpsc::channel();
    let mut presenter = LiveScreen { transcript, next_steps, waits: options.waits };
    // Not joined: when the person quits early, this process ends, and everything the lab made ends with it.
    thread::Builder::new()
        .name("lab".to_owned())
        .spawn(move || match conduct(&options, scale, needs, Some(watcher), &mut presenter) {
            // The workers keep the connections open while the screen shows them.
            Ok((verdict, workers)) => {
                let _ = ended.send(Ok(verdict));
                presenter.wait_for_quit();
                drop(workers);
            }
            Err(error) => {
                presenter.fail(&error);
                let _ = ended.send(Err(error));
                presenter.wait_for_quit();
            }
        })
        .context("start the lab's thread")?;
    let screen = screen::show(engine, look, None)?;
    match end.try_recv() {
        Ok(verdict) => Ok(if screen == ExitCode::SUCCESS { verdict?.into() } else { screen }),
        Err(_) if screen != ExitCode::SUCCESS => Ok(screen),
        Err(_) => bail!("you quit before the verdict"),
    }
}

/// Writes lab events into the transcript that the screen shows.
struct LiveScreen {
    transcript: Arc<Mutex<Transcript>>,
    /// The person's requests for the next step.
    next_steps: Receiver<()>,
    /// Whether to wait for such a request before each step.
    waits: bool,
}

impl LiveScreen {
    fn transcript(&self) -> MutexGuard<'_, Transcript> {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, speaker: Speaker, text: impl Into<String>) {
        self.transcript().lines.push(TranscriptLine { speaker, text: text.into() });
    }

    fn wait_for_quit(&self) {
        while self.next_steps.recv().is_ok() {}
    }

    fn fail(&self, error: &anyhow::Error) {
        self.say(Speaker::Bad, format!("The lab failed: {error:#}"));
        self.transcript().is_over = true;
    }

    fn verdict(&self, report: &Report) {
        self.say(Speaker::Step, "Result: theory, observer, kernel");
        for check in &report.checks {
            let numbers = presenter::columns(check).join(", ");
            let (speaker, mark) = if check.holds { (Speaker::Good, "ok") } else { (Speaker::Bad, "NOT") };
            self.say(speaker, format!("{mark} {}: {numbers}", check.what));
        }
        let speaker = if report.verdict == Verdict::Confirmed { Speaker::Good } else { Speaker::Bad };
        self.say(Speaker::Step, "Verdict");
        self.say(speaker, presenter::sentence(report));
        self.transcript().is_over = true;
    }
}

impl Presenter for LiveScreen {
    fn show(&mut self, event: LabEvent) -> anyhow::Result<()> {
        if !matches!(event, LabEvent::Progress { .. }) {
            self.transcript().progress = None;
        }
        match event {
            LabEvent::Opening { lab, uses, note } => {
                self.say(Speaker::Opening, format!("Claim: {}.", lab.claim));
                self.say(Speaker::Opening, format!("It uses {uses}. Nothing outside that namespace changes."));
                if let Some(note) = note {
                    self.say(Speaker::Opening, note);
                }
            }
            LabEvent::Step { number, title } => self.say(Speaker::Step, format!("{number}. {title}")),
            LabEvent::Said(speaker, words) => self.say(speaker, words),
            LabEvent::Progress { done, of, .. } => self.transcript().progress = Some((done, of)),
            LabEvent::Curve(points) => {
                // Replaces the previous drawing.
                self.transcript().lines.retain(|line| line.speaker != Speaker::Drawing);
                for line in presenter::chart(&points) {
                    self.say(Speaker::Drawing, line);
                }
            }
            LabEvent::Verdict(report) => self.verdict(&report),
        }
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        self.transcript().is_waiting = true;
        let request = if self.waits {
            self.next_steps.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.next_steps.recv_timeout(READING)
        };
        self.transcript().is_waiting = false;
        match request {
            Ok(()) | Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("you quit the screen"),
        }
    }
}
