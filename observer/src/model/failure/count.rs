//! How many failures there were, also of groups that are no longer listed.

use std::cmp::Reverse;

use super::{EndedNamespace, FailureKey, FailureKind, FailureRow, FailureTable};
use crate::model::{name::NetnsName, units::NetnsId};

/// All failures of one kind in a namespace, also those of groups that are no longer listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureCount {
    /// The namespace.
    pub netns: NetnsId,
    /// Why.
    pub kind: FailureKind,
    /// How many since start.
    pub count: u64,
}

impl FailureTable {
    pub(super) fn count_in_totals(&mut self, key: &FailureKey, count: u64) {
        self.total += count;
        *self.by_kind.entry(key.kind).or_default() += count;
        *self.by_namespace.entry((key.netns, key.kind)).or_default() += count;
    }

    /// Since start, of each namespace and kind.
    pub(in crate::model) fn counts(&self) -> Vec<FailureCount> {
        let count = |(&(netns, kind), &count)| FailureCount { netns, kind, count };
        let mut counts: Vec<FailureCount> = self.by_namespace.iter().map(count).collect();
        counts.sort_unstable_by_key(|row| (row.netns, row.kind));
        counts
    }

    /// The namespace of this name is gone: its inode number may come again. Its groups are listed as what they are.
    pub(in crate::model) fn forget(&mut self, netns: NetnsId, name: Option<NetnsName>) {
        self.by_namespace.retain(|(of, _), _| *of != netns);
        self.found_at.retain(|key, _| key.netns != netns);
        self.exhausted.retain(|key, _| key.netns != netns);
        let ended = EndedNamespace { name };
        let groups = self.groups.extract_if(|key, _| key.netns == netns);
        let mut rows: Vec<FailureRow> =
            groups.map(|(_, row)| FailureRow { ended: Some(ended.clone()), ..row }).collect();
        rows.sort_unstable_by_key(|row| Reverse(row.last_at));
        rows.reverse();
        self.ended.extend(rows);
    }
}
