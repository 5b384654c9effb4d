//! What lasts from scrape to scrape.

use std::{collections::BTreeMap, time::Duration};

use super::counted::Others;
use crate::model::limit::{Scope, level::Level};

/// How long a row stays after it was near its limit last: an alert that looks back a few minutes finds it.
const LASTS: Duration = Duration::from_mins(5);

/// Destinations and listeners that have series because they are near their limit, or were within the last five minutes, and
/// the counters of namespaces without series of their own. All other numbers are of the newest snapshot, and what that
/// lacks has no series.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    near: BTreeMap<Scope, Duration>,
    pub(super) others: Others,
}

impl Kept {
    /// Whether a row is or was near its limit.
    pub(super) fn has(&self, scope: &Scope, level: Level, now: Duration) -> bool {
        level >= Level::Notice || self.near.get(scope).is_some_and(|at| now.saturating_sub(*at) < LASTS)
    }

    /// Takes note of a row that gets series now.
    pub(super) fn note(&mut self, scope: Scope, level: Level, now: Duration) {
        if level >= Level::Notice {
            self.near.insert(scope, now);
        }
    }

    /// Forgets what was near its limit too long ago.
    pub(super) fn forget(&mut self, now: Duration) {
        self.near.retain(|_, at| now.saturating_sub(*at) < LASTS);
    }
}
