//! What the kernel refused on its own account: queues that were full, and counters that have moved.

use super::{
    Model,
    failure::{Failed, FailureKey, FailureKind},
    namespace::Counters,
    reading::ConntrackCounters,
    units::NetnsId,
};

impl Model {
    /// What the kernel has counted since the reading of a namespace before this one.
    pub(super) fn note_counters(&mut self, netns: NetnsId, before: Counters, after: Counters) {
        let conntrack = |count: fn(ConntrackCounters) -> u64| (before.conntrack.map(count), after.conntrack.map(count));
        let full = conntrack(ConntrackCounters::dropped_when_full);
        let clash = conntrack(|counters| counters.insert_failed);
        let evicted = conntrack(|counters| counters.early_drop);
        for (kind, before, after) in [
            (FailureKind::TimeWait, before.time_wait_overflows, after.time_wait_overflows),
            (FailureKind::Conntrack, full.0, full.1),
            (FailureKind::ConntrackClash, clash.0, clash.1),
            (FailureKind::ConntrackEvicted, evicted.0, evicted.1),
            (FailureKind::TcpMemory, before.aborts_on_memory, after.aborts_on_memory),
        ] {
            let count = before.zip(after).map_or(0, |(before, after)| after.saturating_sub(before));
            self.diagnosis.failures.add(FailureKey::by_kernel(kind, netns), count, self.now, Failed::Unknown);
        }
    }
}
