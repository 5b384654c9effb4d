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
/// no allocation. An entry without sockets stays until another member needs its place, because connections come and go, and
/// members stay.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct RowMembers {
    few: [RowMember; Self::FEW],
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
        if let Some(known) = self.all_mut().find(|known| known.member == member) {
            known.count += 1;
            return;
        }
        let one = RowMember { member, count: 1 };
        if let Some(free) = self.all_mut().find(|known| known.count == 0) {
            *free = one;
            return;
        }
        self.others.push(one);
    }

    /// A socket belongs to a member no longer.
    pub(super) fn remove(&mut self, member: u32) {
        if let Some(known) = self.all_mut().find(|known| known.member == member) {
            known.count -= 1;
        }
    }

    /// Those that have sockets here.
    pub(super) fn iter(&self) -> impl Iterator<Item = RowMember> + '_ {
        self.few.iter().chain(&self.others).copied().filter(|it| it.count > 0)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut RowMember> {
        self.few.iter_mut().chain(&mut self.others)
    }

    /// Takes all sockets from all members.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        *self = Self::default();
    }
}
