//! What series of a namespace count, and the counters of `~other`.

use std::collections::BTreeMap;

use crate::model::{address::Direction, failure::FailureKind, snapshot::FlowRow, units::NetnsId};

/// The counters of a namespace, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Opened, closed and failed.
    pub(super) flows: BTreeMap<Direction, [u64; 3]>,
    pub(super) failures: BTreeMap<FailureKind, u64>,
    pub(super) listen_drops: Option<u64>,
}

impl Counted {
    pub(super) fn set_flow(&mut self, row: &FlowRow) {
        let FlowRow { netns: _, direction, opened_total, closed_total, failed_total } = *row;
        self.flows.insert(direction, [opened_total, closed_total, failed_total]);
    }

    /// Adds what another has counted since it was `before`. A counter that fell began again.
    fn add_growth(&mut self, now: &Self, before: &Self) {
        let growth = |now: u64, before: Option<u64>| now.checked_sub(before.unwrap_or(0)).unwrap_or(now);
        for (direction, flow) in &now.flows {
            let before = before.flows.get(direction).copied().unwrap_or_default();
            let sum = self.flows.entry(*direction).or_default();
            for ((sum, now), before) in sum.iter_mut().zip(flow).zip(before) {
                *sum += growth(*now, Some(before));
            }
        }
        for (kind, now) in &now.failures {
            *self.failures.entry(*kind).or_default() += growth(*now, before.failures.get(kind).copied());
        }
        if let Some(now) = now.listen_drops {
            *self.listen_drops.get_or_insert_default() += growth(now, before.listen_drops);
        }
    }
}

/// The counters of `~other`. Namespaces come to it, leave it and end, and a sum over those that are there would fall with
/// each that goes. A counter must not: Prometheus takes the rest of it for new events. Therefore this sums what
/// namespaces count while they have no series of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Others {
    sum: Counted,
    /// Every namespace as it was last.
    before: BTreeMap<NetnsId, Counted>,
}

impl Others {
    /// As they are, with every kind that any of these namespaces has: as many series as there can be.
    pub(super) fn with_all_kinds(&self, all: &BTreeMap<NetnsId, Counted>) -> Counted {
        let mut sum = self.sum.clone();
        for counted in all.values() {
            sum.add_growth(counted, counted);
        }
        sum
    }

    /// Goes on with what namespaces counted; those from `own` on have no series of their own.
    pub(super) fn grow(&mut self, all: BTreeMap<NetnsId, Counted>, own: usize) -> &Counted {
        let new = Counted::default();
        for (netns, counted) in all.iter().skip(own) {
            self.sum.add_growth(counted, self.before.get(netns).unwrap_or(&new));
        }
        self.before = all;
        &self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(drops: &[(u32, u64)]) -> BTreeMap<NetnsId, Counted> {
        let counted = |drops| Counted { listen_drops: Some(drops), ..Counted::default() };
        drops.iter().map(|(netns, drops)| (NetnsId(*netns), counted(*drops))).collect()
    }

    #[test]
    fn the_counters_of_others_count_each_event_once_and_never_fall() {
        let mut others = Others::default();
        for (what, drops, own, sum) in [
            ("the sum at first", &[(1, 10), (2, 5), (3, 7)][..], 1, 12),
            ("both count", &[(1, 20), (2, 6), (3, 8)], 1, 14),
            ("one ends", &[(1, 20), (3, 9)], 1, 15),
            ("one has series of its own now", &[(3, 100)], 1, 15),
            ("and has none again", &[(0, 1), (3, 103)], 1, 18),
            ("a new one, with what it has counted", &[(0, 1), (3, 103), (4, 2)], 1, 20),
            ("one begins again", &[(0, 1), (3, 1), (4, 2)], 1, 21),
        ] {
            assert_eq!(others.grow(all(drops), own).listen_drops, Some(sum), "{what}");
        }
    }
}
