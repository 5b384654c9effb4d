//! A lab beside the live screen: the screen on the main thread, the lab on one of its own.

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
    Lab, Options, conduct,
    narrator::{self, Narrator, Told},
    needs::Needs,
    report::{Report, Verdict},
    watcher,
};
use crate::{
    model::narration::{self, Narration, Voice},
    screen,
    tui::{self, LEAST_HEIGHT_OF_LABS},
};

/// How long a step stays for whoever reads, where nobody is asked.
const READING: Duration = Duration::from_secs(4);

/// Fails if the terminal has no room for both.
pub(super) fn require_size(lab: &Lab) -> anyhow::Result<()> {
    let instead = format!("observer lab {} --plain", lab.name);
    screen::require_size(&instead)?;
    let (_, height) = crossterm::terminal::size().context("ask the terminal for its size")?;
    ensure!(
        height >= LEAST_HEIGHT_OF_LABS,
        "this terminal has {height} lines, a lab beside the screen needs {LEAST_HEIGHT_OF_LABS}: make it larger, or run \
         `{instead}`"
    );
    Ok(())
}

/// Runs a lab beside the screen, which stays until the person leaves it.
pub(super) fn run(options: Options, scale: u32, needs: Needs, look: tui::Options) -> anyhow::Result<ExitCode> {
    let (watcher, mut watch) = watcher::start(options.engine, options.record.as_ref())?;
    let told = Arc::new(Mutex::new(Narration { title: options.lab.name.to_owned(), ..Narration::default() }));
    let (next, requests) = mpsc::channel();
    watch.tell_beside(Arc::clone(&told), next);
    let (ended, end) = mpsc::channel();
    let mut narrator = Beside { told, requests, waits: options.waits };
    // Not joined: when the screen is left early, this process ends, and all that the lab has made with it.
    thread::Builder::new()
        .name("lab".to_owned())
        .spawn(move || match conduct(&options, scale, needs, Some(watcher), &mut narrator) {
            // The connections stay as long as the screen shows them.
            Ok((verdict, crew)) => {
                let _ = ended.send(Ok(verdict));
                narrator.hold();
                drop(crew);
            }
            Err(error) => {
                narrator.fail(&error);
                let _ = ended.send(Err(error));
                narrator.hold();
            }
        })
        .context("start the lab's thread")?;
    let left = screen::show(watch, look)?;
    match end.try_recv() {
        Ok(verdict) => Ok(if left == ExitCode::SUCCESS { verdict?.into() } else { left }),
        Err(_) if left != ExitCode::SUCCESS => Ok(left),
        Err(_) => bail!("the screen was left before the verdict"),
    }
}

/// Narration for the screen.
struct Beside {
    told: Arc<Mutex<Narration>>,
    requests: Receiver<()>,
    waits: bool,
}

impl Beside {
    fn narration(&self) -> MutexGuard<'_, Narration> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, voice: Voice, text: impl Into<String>) {
        self.narration().lines.push(narration::Told { voice, text: text.into() });
    }

    /// Waits until the screen is left.
    fn hold(&self) {
        while self.requests.recv().is_ok() {}
    }

    fn fail(&self, error: &anyhow::Error) {
        self.say(Voice::Bad, format!("The lab could not go on: {error:#}"));
        self.narration().is_over = true;
    }

    fn verdict(&self, report: &Report) {
        self.say(Voice::Step, "Result: theory, observer, kernel");
        for check in &report.checks {
            let numbers = narrator::columns(check).join(", ");
            let (voice, mark) = if check.holds { (Voice::Good, "ok") } else { (Voice::Bad, "NOT") };
            self.say(voice, format!("{mark} {}: {numbers}", check.what));
        }
        let voice = if report.verdict == Verdict::BorneOut { Voice::Good } else { Voice::Bad };
        self.say(Voice::Step, "Verdict");
        self.say(voice, narrator::sentence(report));
        self.narration().is_over = true;
    }
}

impl Narrator for Beside {
    fn tell(&mut self, told: Told) -> anyhow::Result<()> {
        if !matches!(told, Told::Progress { .. }) {
            self.narration().progress = None;
        }
        match told {
            Told::Opening { lab, uses, note } => {
                self.say(Voice::Opening, format!("Claim: {}.", lab.claim));
                self.say(Voice::Opening, format!("It uses {uses}; nothing outside of that namespace changes."));
                if let Some(note) = note {
                    self.say(Voice::Opening, note);
                }
            }
            Told::Step { number, title } => self.say(Voice::Step, format!("{number}. {title}")),
            Told::Line(voice, words) => self.say(voice, words),
            Told::Progress { done, of, .. } => self.narration().progress = Some((done, of)),
            Told::Curve(points) => {
                // In place of the one before.
                self.narration().lines.retain(|told| told.voice != Voice::Drawing);
                for line in narrator::chart(&points) {
                    self.say(Voice::Drawing, line);
                }
            }
            Told::Verdict(report) => self.verdict(&report),
        }
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        self.narration().is_waiting = true;
        let asked = if self.waits {
            self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.requests.recv_timeout(READING)
        };
        self.narration().is_waiting = false;
        match asked {
            Ok(()) | Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("the screen was left"),
        }
    }
}
