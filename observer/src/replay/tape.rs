//! A trail that is being replayed: one recording after the other, each with a model of its own.

use std::time::Duration;

use anyhow::Context as _;

use super::{Replay, Source, Trail};
use crate::{frame::timeline::Timeline, recording::ReadError};

/// Where a replay of a trail stands.
pub(crate) struct Tape {
    trail: Trail,
    /// The segment with which the replay begins.
    first: usize,
    replay: Replay<Source>,
    /// The position of that beginning.
    base: Duration,
}

impl Tape {
    /// At the beginning of the recording that has this position.
    pub(crate) fn whole(trail: Trail, position: Duration) -> anyhow::Result<Self> {
        let first = trail.beginning_of(position);
        Self::open(trail, first)
    }

    /// Before a position, as far as what is shown there needs.
    pub(crate) fn before(trail: Trail, position: Duration) -> anyhow::Result<Self> {
        let first = trail.first_for(position);
        Self::open(trail, first)
    }

    fn open(trail: Trail, first: usize) -> anyhow::Result<Self> {
        let (replay, base) = (trail.replay(first)?, trail.position(first));
        Ok(Self { trail, first, replay, base })
    }

    /// Everything that is there.
    pub(crate) const fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Where in all of that the present position is.
    pub(crate) fn timeline(&self) -> Timeline {
        self.trail.timeline(self.now())
    }

    /// Takes in what comes until then of the recording that has the present position.
    pub(crate) fn advance_within(&mut self, until: Duration) -> Result<(), ReadError> {
        self.replay.advance(until.saturating_sub(self.base))
    }

    /// The position of a time of the present replay's model.
    pub(crate) fn position_of(&self, model_time: Duration) -> Duration {
        self.base + model_time
    }

    /// The replay of the recording that has the present position.
    pub(crate) const fn replay(&self) -> &Replay<Source> {
        &self.replay
    }

    pub(crate) const fn replay_mut(&mut self) -> &mut Replay<Source> {
        &mut self.replay
    }

    /// The present position.
    pub(crate) fn now(&self) -> Duration {
        self.base + self.replay.now()
    }

    /// Whether all is taken in.
    pub(crate) fn is_over(&self) -> bool {
        self.replay.is_over() && self.trail.next_beginning(self.first).is_none()
    }

    /// Takes in all that came until then.
    pub(crate) fn advance(&mut self, until: Duration) -> anyhow::Result<()> {
        loop {
            let next = self.trail.next_beginning(self.first);
            match next.map(|next| (next, self.trail.position(next))) {
                Some((next, position)) if position <= until => self.restart(next)?,
                _ => {
                    let until = until.saturating_sub(self.base);
                    return self.replay.advance(until).with_context(|| self.trail.name().to_owned());
                }
            }
        }
    }

    /// Leaves what cannot be read: goes on with the next segment. False where there is none.
    pub(crate) fn skip_damage(&mut self) -> anyhow::Result<bool> {
        let next = self.trail.segment_at(self.now()).max(self.first) + 1;
        let is_there = next < self.trail.len();
        if is_there {
            self.restart(next)?;
        }
        Ok(is_there)
    }

    /// Where the recording ends that has the present position.
    pub(crate) fn end_of_recording(&self) -> Duration {
        self.trail.next_beginning(self.first).map_or(self.trail.end(), |next| self.trail.position(next))
    }

    /// Goes on with the next recording; false where there is none.
    pub(crate) fn next_recording(&mut self) -> anyhow::Result<bool> {
        let next = self.trail.next_beginning(self.first);
        next.map_or(Ok(false), |next| self.restart(next).map(|()| true))
    }

    /// Begins again where the present replay began, or before that where the position needs it.
    pub(crate) fn go_back(&mut self, position: Duration) -> anyhow::Result<()> {
        let first = if self.base <= position { self.first } else { self.trail.first_for(position) };
        self.restart(first)
    }

    /// Goes to a position, and begins before it as [`Self::before`] does.
    pub(crate) fn jump(&mut self, position: Duration) -> anyhow::Result<()> {
        self.restart(self.trail.first_for(position))
    }

    fn restart(&mut self, first: usize) -> anyhow::Result<()> {
        (self.replay, self.base, self.first) = (self.trail.replay(first)?, self.trail.position(first), first);
        Ok(())
    }
}
