//! Finds the present limits in the model.

use super::{Limit, LimitKind, Scope, Turnover, counters, forecast};
use crate::model::{
    Model,
    endpoint::Destination,
    listener::Listener,
    namespace::Namespace,
    reading::{ConntrackCounters, Memory, ProcessFiles, Shared},
    units::Process,
};

/// How many limits of each kind are listed: the fullest.
const LISTED: usize = 16;

impl Model {
    /// The limits, the most urgent first.
    pub(in crate::model) fn limits(&self) -> Vec<Limit> {
        let mut limits = self.port_limits();
        limits.extend(self.process_limits());
        limits.extend(self.queue_limits());
        limits.extend(self.namespace_limits());
        limits.extend(self.host_limits());
        for limit in &mut limits {
            self.diagnosis.trends.annotate(limit);
        }
        limits.sort_by(Limit::by_urgency);
        limits
    }

    /// Takes a sample of each limit, for the forecast of its time to full, and finds those that are urgent.
    pub(in crate::model) fn sample_limits(&mut self) {
        let limits = self.limits();
        self.diagnosis.trends.sample(&limits, self.now);
        self.find_alarms(&limits);
    }

    /// A limit of a namespace, or of something in it.
    fn limit(&self, kind: LimitKind, scope: Scope, (used, maximum): (u64, u64)) -> Limit {
        let namespace = scope.netns().and_then(|netns| self.readings.namespaces.get(&netns));
        let netns_name = scope.netns().and_then(|netns| self.netns_name(netns));
        let lifetime = forecast::lifetime(kind, namespace.map(|namespace| &namespace.reading));
        let hits = self.own_hits(kind, scope);
        Limit {
            kind,
            scope,
            netns_name,
            process: None,
            service: self.service_of_scope(scope),
            used,
            maximum,
            hits,
            counters: Vec::new(),
            slope: None,
            turnover: None,
            lifetime,
        }
    }

    fn port_limits(&self) -> Vec<Limit> {
        let candidates = self.ledger.destinations().iter().filter_map(|row| {
            let namespace = self.readings.namespaces.get(&self.ledger.endpoints().get(row.endpoint).key.netns)?;
            let ports = self.port_use(row, Some(namespace))?;
            (ports.in_use() > 0).then(|| ((ports.in_use().into(), ports.usable().into()), row))
        });
        let limit = |(numbers, row): (Numbers, &Destination)| {
            let key = &self.ledger.endpoints().get(row.endpoint).key;
            let device = self.named(key.netns, key.device);
            let scope = Scope::Destination { netns: key.netns, local_ip: key.local_ip, device, remote: row.remote() };
            let turnover = Some(Turnover::new(row.ports.time_wait.into(), row.entered));
            Limit { turnover, ..self.limit(LimitKind::Ports, scope, numbers) }
        };
        fullest(candidates).into_iter().map(limit).collect()
    }

    fn process_limits(&self) -> Vec<Limit> {
        let numbers = |files: &ProcessFiles| Some((files.open, self.readings.host.most_descriptors(files)?));
        let candidates = self.readings.host.processes.iter().filter_map(|files| Some((numbers(files)?, files.process)));
        let limit = |(numbers, process): (Numbers, Process)| Limit {
            process: Some(process),
            ..self.limit(LimitKind::ProcessFiles, Scope::Process(process.pid), numbers)
        };
        fullest(candidates).into_iter().map(limit).collect()
    }

    /// Both queues of each listener. The kernel asks whether a queue is above its limit, not whether it has reached it
    /// (`sk_acceptq_is_full`, include/net/sock.h): one more than the limit fits.
    fn queue_limits(&self) -> Vec<Limit> {
        let queues = || self.listeners.iter().filter_map(|(id, listener)| Some((id, listener, listener.queues?)));
        let accept = || {
            queues().map(|(id, listener, queues)| {
                let maximum = u64::from(queues.limit) + 1;
                ((queues.accept.into(), maximum), (LimitKind::AcceptQueue, id, listener, queues))
            })
        };
        let syn = queues().map(|(id, listener, queues)| {
            let namespace = self.readings.namespaces.get(&listener.netns);
            let most = namespace.and_then(|namespace| namespace.reading.most_unproven_requests());
            let maximum = most.unwrap_or(u64::MAX).min(u64::from(queues.limit) + 1);
            ((queues.syn.into(), maximum), (LimitKind::SynQueue, id, listener, queues))
        });
        // A queue that overflowed is listed even if it is empty now.
        let hit = accept().filter(|(_, (_, _, listener, _))| listener.drops.overflows > 0);
        let mut chosen = fullest(accept());
        let hit =
            fullest(hit).into_iter().filter(|(_, (_, id, ..))| chosen.iter().all(|(_, (_, other, ..))| other != id));
        let hit: Vec<_> = hit.collect();
        chosen.extend(hit);
        let chosen = chosen.into_iter().chain(fullest(syn));
        let limit = |(numbers, (kind, id, listener, queues)): (_, (_, _, &Listener, _))| {
            let device = self.named(listener.netns, listener.device);
            let scope = Scope::Listener { netns: listener.netns, local: listener.local(), device, id };
            let (process, drops) = (listener.process, &listener.drops);
            let hits = Some(if kind == LimitKind::AcceptQueue { drops.overflows } else { drops.syn_queue_full });
            let counters = counters::of_queue(kind, drops, queues, self.readings.namespaces.get(&listener.netns));
            Limit { process, hits, counters, ..self.limit(kind, scope, numbers) }
        };
        chosen.map(limit).collect()
    }

    fn namespace_limits(&self) -> Vec<Limit> {
        let time_wait = self.readings.namespaces.iter().filter_map(|(netns, namespace)| {
            let reading = &namespace.reading;
            Some(((u64::from(reading.time_wait?), reading.tcp_max_tw_buckets?), (*netns, namespace)))
        });
        let conntrack = self.readings.namespaces.iter().filter_map(|(netns, namespace)| {
            let conntrack = namespace.reading.conntrack?;
            // 0 is no limit (`__nf_conntrack_alloc`).
            let max = if conntrack.max == 0 { u64::MAX } else { conntrack.max };
            Some(((conntrack.count, max), (*netns, namespace)))
        });
        let time_wait =
            fullest(time_wait).into_iter().map(|(numbers, (netns, namespace)): (Numbers, (_, &Namespace))| Limit {
                hits: namespace.reading.time_wait_overflows,
                counters: counters::of_time_wait(namespace),
                turnover: Some(Turnover::new(numbers.0, namespace.time_wait_entered)),
                ..self.limit(LimitKind::TimeWait, Scope::Namespace(netns), numbers)
            });
        let conntrack =
            fullest(conntrack).into_iter().map(|(numbers, (netns, namespace)): (Numbers, (_, &Namespace))| {
                let hits = namespace.reading.conntrack.and_then(|it| it.counters);
                Limit {
                    // A clash has nothing to do with the limit.
                    hits: hits.map(ConntrackCounters::hits),
                    counters: counters::of_conntrack(namespace),
                    ..self.limit(LimitKind::Conntrack, Scope::Namespace(netns), numbers)
                }
            });
        time_wait.chain(conntrack).collect()
    }

    fn host_limits(&self) -> Vec<Limit> {
        let shared = self.shared();
        let files = self.readings.host.files.map(|files| (files.allocated, files.max));
        let memory = self.readings.host.memory.zip(shared.allocated).and_then(
            |(Memory { available, per_socket }, allocated)| {
                Some((allocated, allocated + available.checked_div(per_socket)?))
            },
        );
        [
            (LimitKind::HostFiles, files),
            (LimitKind::Orphans, shared.orphans.zip(shared.tcp_max_orphans)),
            (LimitKind::TcpMemory, shared.memory_pages.zip(shared.tcp_mem_max_pages)),
            (LimitKind::SocketMemory, memory),
        ]
        .into_iter()
        .filter_map(|(kind, numbers)| Some(self.limit(kind, Scope::Host, numbers?)))
        .collect()
    }

    /// Each number, from the first namespace that has it.
    fn shared(&self) -> Shared {
        self.readings.namespaces.values().map(|namespace| namespace.reading.shared).fold(Shared::default(), |a, b| {
            Shared {
                orphans: a.orphans.or(b.orphans),
                allocated: a.allocated.or(b.allocated),
                memory_pages: a.memory_pages.or(b.memory_pages),
                tcp_max_orphans: a.tcp_max_orphans.or(b.tcp_max_orphans),
                tcp_mem_max_pages: a.tcp_mem_max_pages.or(b.tcp_mem_max_pages),
            }
        })
    }
}

/// Used, and the maximum.
type Numbers = (u64, u64);

/// The fullest of all, at most [`LISTED`], in no order. Keeps no more than these.
fn fullest<T>(candidates: impl Iterator<Item = (Numbers, T)>) -> Vec<(Numbers, T)> {
    // Cross-multiplied, so that the order is total and exact.
    let is_fuller = |a: Numbers, b: Numbers| u128::from(a.0) * u128::from(b.1) > u128::from(b.0) * u128::from(a.1);
    let mut kept: Vec<(Numbers, T)> = Vec::with_capacity(LISTED);
    for candidate in candidates {
        let place = kept.partition_point(|other| !is_fuller(candidate.0, other.0));
        if place < LISTED {
            kept.truncate(LISTED - 1);
            kept.insert(place, candidate);
        }
    }
    kept
}
