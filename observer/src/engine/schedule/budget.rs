//! CPU time: what work takes, and what it may take.

use std::time::{Duration, Instant};

use super::AT_MOST_EVERY;
use crate::host::clock;

/// Measures a round of work.
pub(in crate::engine) struct Stopwatch {
    began: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(in crate::engine) fn start() -> Self {
        Self { began: Instant::now(), cpu: clock::work_cpu() }
    }

    /// Wall-clock time.
    pub(in crate::engine) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// CPU time, which the budget limits. On a busy host a round waits for a CPU many times longer than it runs, and
    /// the wait costs others nothing.
    pub(in crate::engine) fn cpu(&self) -> Duration {
        clock::work_cpu().saturating_sub(self.cpu)
    }
}

/// CPU time that work of one kind may use: a share of the time that passes, saved for a second at most.
pub(super) struct Budget {
    one_in: u32,
    at: Instant,
    /// What is left, and what is owed.
    saved: Duration,
    owed: Duration,
}

impl Budget {
    pub(super) fn new(one_in: u32, now: Instant) -> Self {
        Self { one_in, at: now, saved: AT_MOST_EVERY / one_in, owed: Duration::ZERO }
    }

    /// Whether nothing is owed.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at) / self.one_in;
        self.at = self.at.max(now);
        let rest = earned.saturating_sub(self.owed);
        self.owed = self.owed.saturating_sub(earned);
        self.saved = (self.saved + rest).min(AT_MOST_EVERY / self.one_in);
        self.is_free()
    }

    /// The same, as it was when somebody last asked.
    pub(super) const fn is_free(&self) -> bool {
        self.owed.is_zero()
    }

    /// How long it takes from now on to earn what is owed, after [`Self::allows`].
    pub(super) fn debt_lasts(&self) -> Duration {
        self.owed * self.one_in
    }

    /// What it gives in this time.
    pub(super) fn of(&self, time: Duration) -> Duration {
        time / self.one_in
    }

    pub(super) fn spend(&mut self, cpu: Duration) {
        self.owed += cpu.saturating_sub(self.saved);
        self.saved = self.saved.saturating_sub(cpu);
    }
}
