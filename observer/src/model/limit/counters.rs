//! What the kernel counts beside the use of a limit.

use super::{Limit, LimitKind};
use crate::model::{
    listen_drops::ListenerDrops,
    namespace::Namespace,
    reading::ConntrackCounters,
    units::{Queues, grouped},
};

/// One counter of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its id, in snake case.
    pub id: &'static str,
    /// Words for people.
    pub name: &'static str,
    /// What it has counted.
    pub total: u64,
    /// Of this, before observer started, where that is known to be a part of it.
    pub before: Option<u64>,
}

impl Counter {
    /// Of something that observer watched from the beginning.
    const fn seen(id: &'static str, name: &'static str, total: u64) -> Self {
        Self { id, name, total, before: None }
    }

    /// Of a namespace, by what it was read to be first and last.
    fn read(id: &'static str, name: &'static str, first: Option<u64>, last: Option<u64>) -> Option<Self> {
        last.map(|total| Self { id, name, total, before: first })
    }
}

impl Limit {
    /// What its counters have counted, as a sentence; empty where that is nothing.
    #[must_use]
    pub fn counted(&self) -> String {
        let sentence = |counter: &Counter| {
            let before = match counter.before {
                Some(before) if before > 0 => format!(" ({} before observer started)", grouped(before)),
                _ => String::new(),
            };
            format!("{} {}{before}", grouped(counter.total), counter.name)
        };
        self.counters.iter().filter(|counter| counter.total > 0).map(sentence).collect::<Vec<_>>().join("; ")
    }
}

/// Of a queue of a listener.
pub(super) fn of_queue(
    kind: LimitKind,
    drops: &ListenerDrops,
    queues: Queues,
    namespace: Option<&Namespace>,
) -> Vec<Counter> {
    let first = namespace.map(|namespace| namespace.at_first.listen).unwrap_or_default();
    let last = namespace.map(|namespace| namespace.reading.listen).unwrap_or_default();
    let counters = match kind {
        LimitKind::AcceptQueue => [
            Some(Counter::seen("overflows", "overflows here since observer started", drops.overflows)),
            Counter::read(
                "namespace_overflows",
                "overflows in the namespace (ListenOverflows)",
                first.overflows,
                last.overflows,
            ),
            Counter::read(
                "namespace_drops",
                "SYNs and ACKs dropped in the namespace (ListenDrops)",
                first.drops,
                last.drops,
            ),
            Some(Counter::seen(
                "segments_discarded",
                "segments discarded here, for whatever reason (sk_drops)",
                queues.drops.into(),
            )),
        ],
        _ => [
            Some(Counter::seen("syn_queue_full", "SYNs found it full since observer started", drops.syn_queue_full)),
            Counter::read(
                "namespace_syn_queue_drops",
                "SYNs dropped in the namespace (TCPReqQFullDrop)",
                first.syn_queue_drops,
                last.syn_queue_drops,
            ),
            Counter::read(
                "namespace_syn_cookies",
                "SYN cookies in the namespace (TCPReqQFullDoCookies)",
                first.syn_cookies,
                last.syn_cookies,
            ),
            None,
        ],
    };
    counters.into_iter().flatten().collect()
}

/// Of a namespace's connection tracking.
pub(super) fn of_conntrack(namespace: &Namespace) -> Vec<Counter> {
    let first = namespace.at_first.conntrack;
    let Some(last) = namespace.reading.conntrack.and_then(|conntrack| conntrack.counters) else { return Vec::new() };
    let read =
        |id, name, count: fn(ConntrackCounters) -> u64| Counter::read(id, name, first.map(count), Some(count(last)));
    [
        read("drop", "packets dropped from a full table (drop)", ConntrackCounters::dropped_when_full),
        read("early_drop", "old entries evicted to make room (early_drop)", |it| it.early_drop),
        read("insert_failed", "packets dropped because their entry clashed (insert_failed)", |it| it.insert_failed),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Of a namespace's TIME_WAIT sockets.
pub(super) fn of_time_wait(namespace: &Namespace) -> Vec<Counter> {
    let (first, last) = (namespace.at_first.time_wait_overflows, namespace.reading.time_wait_overflows);
    let name = "sockets closed without TIME_WAIT (TCPTimeWaitOverflow)";
    Counter::read("time_wait_overflows", name, first, last).into_iter().collect()
}
