//! How many sockets of one endpoint or destination belong to each member.

use super::index::NO_ROW;

/// A member, and how many sockets it has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowMember {
    /// Index of its row.
    pub(super) member: u32,
    pub(super) count: u32,
}

/// The members that the sockets of an endpoint or destination belong to. Most rows have one, which needs no allocation. A place
/// that is empty again stays for the next member: connections come and go, and members stay.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct RowMembers {
    first: RowMember,
    others: Vec<RowMember>,
}

impl Default for RowMembers {
    fn default() -> Self {
        Self { first: RowMember { member: NO_ROW, count: 0 }, others: Vec::new() }
    }
}

impl RowMembers {
    /// One more socket belongs to a member.
    pub(super) fn add(&mut self, member: u32) {
        if self.first.member == member {
            self.first.count += 1;
        } else {
            self.add_other(member);
        }
    }

    fn add_other(&mut self, member: u32) {
        let mut free = (self.first.count == 0).then_some(&mut self.first);
        for other in &mut self.others {
            if other.member == member {
                other.count += 1;
                return;
            }
            if other.count == 0 {
                free = free.or(Some(other));
            }
        }
        let one = RowMember { member, count: 1 };
        match free {
            Some(free) => *free = one,
            None => self.others.push(one),
        }
    }

    /// A socket belongs to a member no longer.
    pub(super) fn remove(&mut self, member: u32) {
        let mut all = std::iter::once(&mut self.first).chain(&mut self.others);
        if let Some(known) = all.find(|known| known.member == member) {
            known.count -= 1;
        }
    }

    /// Those that have sockets here.
    pub(super) fn iter(&self) -> impl Iterator<Item = RowMember> + '_ {
        std::iter::once(&self.first).chain(&self.others).copied().filter(|it| it.count > 0)
    }

    /// Takes all sockets from all members.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        *self = Self::default();
    }
}
