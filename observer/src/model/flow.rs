//! Openings and closings.

use std::time::Duration;

/// Openings and closings, their totals and their rates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) failed: u64,
    pub(super) opened_per_second: f64,
    pub(super) closed_per_second: f64,
    opened_before: u64,
    closed_before: u64,
}

impl Flow {
    /// Computes the rates over the time since the last call.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        self.opened_per_second = rate(self.opened.wrapping_sub(self.opened_before), elapsed);
        self.closed_per_second = rate(self.closed.wrapping_sub(self.closed_before), elapsed);
        self.opened_before = self.opened;
        self.closed_before = self.closed;
    }

    /// Adds the totals of another.
    pub(super) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.failed += other.failed;
    }

    /// Goes on with the totals of another that is over and had its last rate: they are no part of the next one.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.add(other);
        self.opened_before = self.opened_before.wrapping_add(other.opened_before);
        self.closed_before = self.closed_before.wrapping_add(other.closed_before);
    }

    /// Resets totals; the rate of the running second does not notice: only differences are asked of `*_before`.
    pub(super) fn restart(&mut self) {
        self.opened_before = self.opened_before.wrapping_sub(self.opened);
        self.closed_before = self.closed_before.wrapping_sub(self.closed);
        (self.opened, self.closed, self.failed) = (0, 0, 0);
    }
}

/// Events per second; 0 for no time at all.
#[expect(clippy::cast_precision_loss, reason = "a rate for people: 53 bits are plenty")]
pub(super) fn rate(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}
