//! Where failures come from: hooks that see a call fail, and counters of the kernel that have moved.

use std::net::SocketAddr;

use super::{
    Model,
    event::Identity,
    failure::{Failed, FailureKey, FailureKind, Local},
    namespace::{ConntrackCounters, Counters},
    units::{NetnsId, Process},
};

impl Model {
    /// connect() gave up before it sent anything. A socket that was not bound by then found no free port; one that was
    /// found its four-tuple in use.
    pub(super) fn note_unsent(&mut self, socket: &Identity, by: Process) {
        let Some(index) = self.find(socket) else { return };
        let known = *self.sockets.get(index);
        let kind = if known.local_port == 0 { FailureKind::PortsExhausted } else { FailureKind::TupleInUse };
        let key = FailureKey {
            local: Some(Local { ip: socket.tuple.local_ip, port: known.local_port }),
            remote: Some(SocketAddr::new(known.remote_ip, known.remote_port)),
            ..FailureKey::by_call(kind, socket.netns, "connect", by)
        };
        let ports = self.ports_of(known.destination, socket.netns);
        self.failures.add(key, 1, self.now, ports.map_or(Failed::Unknown, Failed::Ports));
    }

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
            self.failures.add(FailureKey::by_kernel(kind, netns), count, self.now, Failed::Unknown);
        }
    }
}
