//! What was near its limit lately.

use std::{collections::BTreeMap, time::Duration};

use crate::model::limit::{Scope, level::Level};

/// How long a row stays after it was near its limit last: an alert that looks back a few minutes finds it.
const LASTS: Duration = Duration::from_mins(5);

/// Destinations and listeners that have series because they are near their limit, or were within the last five minutes.
/// It holds no numbers: these are always of the newest snapshot, and what that lacks has no series.
#[derive(Clone, Debug, Default)]
pub struct Kept(BTreeMap<Scope, Duration>);

impl Kept {
    /// Whether a row is or was near its limit.
    pub(super) fn has(&self, scope: &Scope, level: Level, now: Duration) -> bool {
        level >= Level::Notice || self.0.get(scope).is_some_and(|at| now.saturating_sub(*at) < LASTS)
    }

    /// Takes note of a row that gets series now.
    pub(super) fn note(&mut self, scope: Scope, level: Level, now: Duration) {
        if level >= Level::Notice {
            self.0.insert(scope, now);
        }
    }

    /// Forgets what was near its limit too long ago.
    pub(super) fn forget(&mut self, now: Duration) {
        self.0.retain(|_, at| now.saturating_sub(*at) < LASTS);
    }
}
