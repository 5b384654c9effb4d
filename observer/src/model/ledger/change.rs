//! How a change of one socket changes the totals. Most changes leave most totals alone, and every event makes some: what need not
//! be compared is not.

use std::{
    ops::{Add as _, Sub as _},
    time::Duration,
};

use super::{At, Contribution, Counts, Ledger};
use crate::model::{contribution::OnPorts, index::NO_ROW, port_table::Place, row_members::RowMembers, units::TcpState};

impl Ledger {
    /// Brings all totals from what a socket added to what it adds now.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "most events change the state alone: where the caller shows that, nothing else is compared"
    )]
    pub(in crate::model) fn apply(&mut self, before: Contribution, after: Contribution, now: Duration) {
        match (before.counts, after.counts) {
            (Counts::Full(from), Counts::Full(to)) if before == (Contribution { counts: before.counts, ..after }) => {
                self.move_state(from, to, &after, now);
            }
            (Counts::Full(_), Counts::Full(_)) if before == (Contribution { owner: before.owner, ..after }) => {
                self.move_owner(&before, &after, now);
            }
            _ if before.at == At::Nowhere => self.add(&after, now),
            _ if after.at == At::Nowhere => self.remove(&before, now),
            _ => self.change(&before, &after, now),
        }
    }

    /// A full socket changes its state and nothing else.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as `apply`: one call for each change of state")]
    fn move_state(&mut self, from: TcpState, to: TcpState, contribution: &Contribution, now: Duration) {
        if let At::Endpoint(row) = contribution.at {
            self.endpoints.touch(row, now).states.shift(from, to);
        }
        if let Some(row) = self.members.touch(contribution.member, now) {
            row.counts.states.shift(from, to);
        }
    }

    /// A full socket changes its owner and nothing else.
    fn move_owner(&mut self, before: &Contribution, after: &Contribution, now: Duration) {
        let At::Endpoint(row) = after.at else { return };
        self.owners.remove(row, before.owner);
        self.owners.add(row, after.owner, after.member);
        if before.is_orphan() != after.is_orphan() {
            self.endpoints.touch(row, now);
            if let Some(row) = self.members.touch(after.member, now) {
                row.counts.orphans = row.counts.orphans + u32::from(after.is_orphan()) - u32::from(before.is_orphan());
            }
        }
    }

    // One call for each kind of the others, which keeps the code of an event small: of what is added or taken away nothing is
    // compared.

    #[inline(never)]
    fn add(&mut self, after: &Contribution, now: Duration) {
        self.apply_all(&Contribution::NONE, after, now);
    }

    #[inline(never)]
    fn remove(&mut self, before: &Contribution, now: Duration) {
        self.apply_all(before, &Contribution::NONE, now);
    }

    #[inline(never)]
    fn change(&mut self, before: &Contribution, after: &Contribution, now: Duration) {
        self.apply_all(before, after, now);
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as `apply`: what its three callers know need not be compared")]
    fn apply_all(&mut self, before: &Contribution, after: &Contribution, now: Duration) {
        let is_same_row = before.at == after.at;
        if !is_same_row
            || before.counts != after.counts
            || before.is_orphan() != after.is_orphan()
            || before.member != after.member
        {
            self.count_state(before, u32::sub, now);
            self.count_state(after, u32::add, now);
        }
        if let At::Endpoint(index) = after.at
            && !is_same_row
            && matches!(after.counts, Counts::Full(_))
        {
            self.endpoints.touch(index, now).note_count(now);
        }
        if before.destination != after.destination
            || before.class() != after.class()
            || !before.counts.is_alike(after.counts)
        {
            if let Some(row) = self.destinations.get_mut(before.destination) {
                before.count_towards(row, u32::wrapping_sub);
            }
            if let Some(row) = self.destinations.get_mut(after.destination) {
                after.count_towards(row, u32::wrapping_add);
            }
        }
        let ports = |it: &Contribution| (it.client_port(), it.binder);
        if ports(before) != ports(after) || !is_same_row && ports(after) != (None, None) {
            self.count_ports(before.on_ports(), after.on_ports());
        }
        if !is_same_row || before.owner != after.owner {
            if let At::Endpoint(row) = before.at {
                self.owners.remove(row, before.owner);
            }
            if let At::Endpoint(row) = after.at {
                self.owners.add(row, after.owner, after.member);
            }
        }
        if (before.at, before.member, before.destination) != (after.at, after.member, after.destination) {
            self.count_members(before, RowMembers::remove);
            self.count_members(after, RowMembers::add);
        }
    }

    /// Adds a socket to, or with `op` takes it from, the counts by state of its endpoint and its member.
    fn count_state(&mut self, contribution: &Contribution, op: fn(u32, u32) -> u32, now: Duration) {
        if let At::Endpoint(row) = contribution.at
            && let Some(count) = contribution.counts.of(self.endpoints.touch(row, now))
        {
            *count = op(*count, 1);
        }
        if let Some(row) = self.members.touch(contribution.member, now) {
            contribution.count_with(&mut row.counts, op);
        }
    }

    /// Adds a socket to, or with `op` takes it from, the members of its endpoint and its destination.
    fn count_members(&mut self, contribution: &Contribution, op: fn(&mut RowMembers, u32)) {
        if contribution.member == NO_ROW {
            return;
        }
        if let At::Endpoint(row) = contribution.at {
            op(self.endpoints.members_mut(row), contribution.member);
        }
        if let Some(row) = self.destinations.get_mut(contribution.destination) {
            op(&mut row.members, contribution.member);
        }
    }

    /// The client goes first and comes last, so that a change of the binder concerns other clients only.
    fn count_ports(&mut self, before: OnPorts, after: OnPorts) {
        let (from, to) = (self.location(before.at), self.location(after.at));
        let keeps_binder = (from, before.binder) == (to, after.binder);
        if let Some((ports, device)) = from
            && let Some(ports) = self.ports.get_mut(ports as usize)
        {
            let space = ports.space(device);
            if let Some(port) = before.client {
                ports.remove_client(Place::new(space, port));
            }
            if let Some(port) = before.binder.filter(|_| !keeps_binder) {
                ports.remove_binder(Place::new(space, port), self.frees_buckets);
            }
            self.has_stale_ports |= ports.is_stale;
        }
        if let Some((ports, device)) = to
            && let Some(ports) = self.ports.get_mut(ports as usize)
        {
            ports.add(device, after.binder.filter(|_| !keeps_binder), after.client);
            self.has_stale_ports |= ports.is_stale;
        }
    }
}
