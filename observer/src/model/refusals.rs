//! What the kernel refused on its own account: queues that were full, and counters that have moved.

use super::{
    Model,
    event::Queues,
    failure::{Failed, FailureKey, FailureKind, Local},
    namespace::NamespaceReading,
    units::{NetnsId, SocketId},
};

impl Model {
    /// What a scan has found of a listener's queues. What was thrown away since the last look is told.
    pub(super) fn note_queues(&mut self, id: SocketId, netns: NetnsId, queues: Queues) {
        let Some(listener) = self.listeners.get_mut(id).filter(|listener| listener.netns == netns) else { return };
        let told = match listener.queues.replace(queues) {
            Some(before) => before.drops,
            // What was thrown away before we came is nobody's news.
            None if listener.is_older => queues.drops,
            None => 0,
        };
        let key = FailureKey {
            process: listener.process,
            local: Some(Local { ip: listener.ip, port: listener.port }),
            ..FailureKey::by_kernel(FailureKind::AcceptQueue, netns)
        };
        let dropped = queues.drops.wrapping_sub(told);
        self.failures.add(key, dropped.into(), self.now, Failed::Queues(queues));
    }

    /// What the kernel has counted since the reading of a namespace before this one.
    pub(super) fn note_counters(&mut self, netns: NetnsId, before: &NamespaceReading) {
        let Self { namespaces, failures, now, .. } = self;
        let Some(after) = namespaces.get(&netns).map(|namespace| &namespace.reading) else { return };
        let dropped = |reading: &NamespaceReading| reading.conntrack.and_then(|conntrack| conntrack.dropped);
        for (kind, before, after) in [
            (FailureKind::TimeWait, before.time_wait_overflows, after.time_wait_overflows),
            (FailureKind::Conntrack, dropped(before), dropped(after)),
            (FailureKind::TcpMemory, before.aborts_on_memory, after.aborts_on_memory),
        ] {
            let count = before.zip(after).map_or(0, |(before, after)| after.saturating_sub(before));
            failures.add(FailureKey::by_kernel(kind, netns), count, *now, Failed::Unknown);
        }
    }
}
