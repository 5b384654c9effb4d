//! How many sockets of one endpoint or destination belong to each member.

use super::index::NO_ROW;

/// A member, and how many sockets it has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowMember {
    /// Index of its row.
    pub(super) member: u32,
    pub(super) count: u32,
}

/// The members that the sockets of an endpoint or destination belong to. Most rows have one, and nobody beside it: these need
/// no allocation. An entry without sockets stays until its place is needed, because connections come and go, and members
/// stay.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct RowMembers {
    few: [RowMember; Self::FEW],
    /// In the order of their members: a host without cgroup2 can have a member for each of thousands of processes.
    others: Vec<RowMember>,
}

impl Default for RowMembers {
    fn default() -> Self {
        Self { few: [RowMember { member: NO_ROW, count: 0 }; Self::FEW], others: Vec::new() }
    }
}

impl RowMembers {
    /// Members that are beside the counts of the row.
    pub(super) const FEW: usize = 2;

    /// One more socket belongs to a member.
    pub(super) fn add(&mut self, member: u32) {
        if let Some(known) = self.find(member) {
            known.count += 1;
            return;
        }
        let one = RowMember { member, count: 1 };
        if let Some(free) = self.few.iter_mut().find(|known| known.count == 0) {
            *free = one;
            return;
        }
        if self.others.len() == self.others.capacity() {
            self.others.retain(|known| known.count > 0);
        }
        let at = self.others.partition_point(|known| known.member < member);
        self.others.insert(at, one);
    }

    /// A socket belongs to a member no longer.
    pub(super) fn remove(&mut self, member: u32) {
        if let Some(known) = self.find(member) {
            known.count -= 1;
        }
    }

    fn find(&mut self, member: u32) -> Option<&mut RowMember> {
        if let Some(at) = self.few.iter().position(|known| known.member == member) {
            return Some(&mut self.few[at]);
        }
        let at = self.others.binary_search_by_key(&member, |known| known.member).ok()?;
        Some(&mut self.others[at])
    }

    /// Those that have sockets here.
    pub(super) fn iter(&self) -> impl Iterator<Item = RowMember> + '_ {
        self.few.iter().chain(&self.others).copied().filter(|it| it.count > 0)
    }

    /// Takes all sockets from all members.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_member_has_as_many_sockets_as_were_added_and_not_removed(steps in prop::collection::vec((0_u32..12, any::<bool>()), 0..200)) {
            let (mut row, mut truth) = (RowMembers::default(), BTreeMap::<u32, u32>::new());
            for (member, adds) in steps {
                let count = truth.entry(member).or_default();
                if adds {
                    *count += 1;
                    row.add(member);
                } else if *count > 0 {
                    *count -= 1;
                    row.remove(member);
                }
                truth.retain(|_, count| *count > 0);
                let mut counts: Vec<_> = row.iter().map(|it| (it.member, it.count)).collect();
                counts.sort_unstable();
                prop_assert_eq!(counts, truth.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}
