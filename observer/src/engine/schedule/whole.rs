//! Rounds over all namespaces and all open files: with one of these begins who reads along. What they use is no debt of the
//! turns: who comes to read along must not make the numbers of all others older.

use std::time::{Duration, Instant};

use super::{AT_MOST_EVERY, IN_A_HURRY};

/// Rounds that somebody waits for who begins to read along may use this share of one CPU: 10 %.
const READER_BUDGET: u32 = 10;
/// The same for somebody who was too slow, and goes on: as much as regular work.
const SLOW_READER_BUDGET: u32 = 50;
/// The same for the next segment of a recorder, which can wait: 0.5 %.
const SEGMENT_BUDGET: u32 = 200;

/// What somebody waits for who reads along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Waiting {
    /// A first round of scans.
    Begin,
    /// A round after inputs that it was too slow for.
    GoOn,
    /// A round with which the next segment of a recorder begins.
    NextSegment,
}

impl Waiting {
    /// The pause after a round that used this CPU time.
    fn pause(self, cpu: Duration) -> Duration {
        match self {
            Self::Begin => IN_A_HURRY.max(cpu * READER_BUDGET),
            Self::GoOn => AT_MOST_EVERY.max(cpu * SLOW_READER_BUDGET),
            Self::NextSegment => AT_MOST_EVERY.max(cpu * SEGMENT_BUDGET),
        }
    }
}

/// When the last one was, and who waits for the next one.
#[derive(Default)]
pub(super) struct WholeRounds {
    waiting: Option<Waiting>,
    is_running: bool,
    ended_at: Option<Instant>,
    /// CPU time of the last one.
    cpu: Duration,
}

impl WholeRounds {
    pub(super) const fn show(&mut self, waiting: Waiting) {
        self.waiting = Some(waiting);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        let Some(waiting) = self.waiting else { return false };
        self.ended_at.is_none_or(|at| now.saturating_duration_since(at) >= waiting.pause(self.cpu))
    }

    pub(super) const fn is_running(&self) -> bool {
        self.is_running
    }

    pub(super) const fn begin(&mut self) {
        (self.waiting, self.is_running) = (None, true);
    }

    pub(super) const fn end(&mut self, now: Instant, cpu: Duration) {
        (self.is_running, self.ended_at, self.cpu) = (false, Some(now), cpu);
    }
}
