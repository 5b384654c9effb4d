//! A namespace that is looked at without a walk: what the kernel counts, the model knows and an fd scan shows of it, and what these
//! say together.

use rustc_hash::FxHashMap;

use crate::{
    host::netns::Totals,
    model::{KnownSockets, Unlike, units::SocketId},
};

/// No file may lead to one socket in so many where an fd scan stands in for a walk. It shows none of io_uring's own descriptors, and none
/// of processes outside of observer's pid namespace.
const HIDDEN: u32 = 10;

/// A namespace to be proven.
pub(in crate::engine) struct Candidate {
    pub(super) totals: Totals,
    /// What the model knew, and events so far, when the totals were read.
    pub(super) known: KnownSockets,
    pub(super) events: u64,
    pub(super) role: Role,
    pub(super) listeners: FxHashMap<SocketId, Shown>,
    /// The fd scan has shown another socket that is in the kernel's tables.
    pub(super) has_others: bool,
}

/// Why a namespace is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing has happened there since its last scan, or nothing but listeners may be there.
    Quiet,
    /// Its walk is due, and an fd scan may stand in for it although something happens.
    InPlaceOfWalk,
    /// Something happens there, and its walk comes late.
    BetweenWalks,
}

/// The records of a listener.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) listener: Vec<u8>,
    pub(super) queues: Vec<u8>,
    /// Handshakes in progress; `None` where this kernel does not show them.
    pub(super) syn_queue: Option<u32>,
}

/// What the counts of a namespace and an fd scan say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing but the listeners that were shown is there.
    OnlyListeners,
    /// The sockets that the model knows are there, and nothing else.
    Unchanged,
    /// The full sockets that the model knows are there, and no others. TIME_WAIT and request sockets may be.
    FullUnchanged,
    /// The model is wrong.
    Differs,
    /// Something is there that the fd scan does not show.
    Inconclusive,
}

impl Candidate {
    pub(super) fn new(totals: Totals, known: KnownSockets, events: u64) -> Self {
        Self { totals, known, events, role: Role::Quiet, listeners: FxHashMap::default(), has_others: false }
    }

    /// `is_rid_of_requests`: closed listeners have no request socket left. `unlike`: how the model differs from what the fd scan has
    /// shown of other sockets.
    pub(super) fn judge(&self, is_rid_of_requests: bool, unlike: Unlike) -> Verdict {
        let Totals { hashed, time_wait, allocated, .. } = self.totals;
        let listeners = self.listeners.len() as u64;
        let is_idle = self.listeners.values().all(|shown| !shown.listener.is_empty() && shown.syn_queue == Some(0));
        let is_without_minisocks = time_wait == 0 && is_idle && (allocated == hashed || is_rid_of_requests);
        if is_without_minisocks && hashed == listeners && !self.has_others {
            return Verdict::OnlyListeners;
        }
        if !self.agrees() || unlike.is_other {
            return Verdict::Differs;
        }
        let are_few = unlike.hidden <= self.known.others / HIDDEN;
        if listeners != u64::from(self.known.listeners) || unlike.is_missed || !are_few {
            return Verdict::Inconclusive;
        }
        if is_without_minisocks && unlike.hidden == 0 { Verdict::Unchanged } else { Verdict::FullUnchanged }
    }

    /// The kernel counted as many full sockets as the model knew.
    pub(super) fn agrees(&self) -> bool {
        self.totals.hashed == u64::from(self.known.listeners) + u64::from(self.known.others)
    }
}

#[cfg(test)]
#[path = "candidate_tests.rs"]
mod tests;
