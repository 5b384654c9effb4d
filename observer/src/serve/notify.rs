//! What the service manager learns (sd_notify(3)). Without NOTIFY_SOCKET nobody learns anything.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// Half of the time after which it restarts a silent service.
    watchdog: Option<Duration>,
    petted: Instant,
    is_ready: bool,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero()).map(|time| time / 2);
        Self { watchdog, petted: Instant::now(), is_ready: false }
    }

    /// Ready, the first time; the status every time.
    pub(super) fn serves(&mut self, status: &str) {
        if !std::mem::replace(&mut self.is_ready, true) {
            send(&[NotifyState::Ready]);
        }
        send(&[NotifyState::Status(status)]);
    }

    /// Answers the watchdog where that is due; who calls it has seen both processes work.
    pub(super) fn watchdog(&mut self) {
        let is_due = self.watchdog.is_some_and(|pause| self.petted.elapsed() >= pause);
        if is_due && self.is_ready {
            self.petted = Instant::now();
            send(&[NotifyState::Watchdog]);
        }
    }

    /// How often [`Self::watchdog`] has to be called.
    pub(super) fn pause(&self) -> Duration {
        const MOST: Duration = Duration::from_millis(250);
        self.watchdog.map_or(MOST, |pause| (pause / 4).clamp(Duration::from_millis(10), MOST))
    }

    /// The end.
    pub(super) fn stops() {
        send(&[NotifyState::Stopping]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    // observer goes on where the service manager does not listen.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "notify the service manager");
    }
}
