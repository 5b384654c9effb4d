//! Finds the present limits in the model.

use super::{Limit, LimitKind, Scope, Turnover, counters, forecast, level::Level, trend::Sample};
use crate::model::{
    Model,
    endpoint::Destination,
    listener::Listener,
    namespace::Namespace,
    reading::{ConntrackCounters, Memory, Shared},
    units::{Process, Queues},
};

/// How many limits of each kind are listed: the fullest.
const LISTED: usize = 16;

/// A limit that is listed, before more is known of it than its numbers.
#[derive(Clone, Copy)]
struct Listed<'a> {
    kind: LimitKind,
    scope: Scope,
    numbers: Numbers,
    turnover: Option<Turnover>,
    details: Details<'a>,
}

/// Where more about a limit comes from.
#[derive(Clone, Copy)]
enum Details<'a> {
    Destination,
    Process(Process),
    Listener(&'a Listener, Queues),
    Namespace(&'a Namespace),
    Host,
}

impl<'a> Listed<'a> {
    const fn new(kind: LimitKind, scope: Scope, numbers: Numbers, details: Details<'a>) -> Self {
        Self { kind, scope, numbers, turnover: None, details }
    }

    fn sample(&self) -> ((LimitKind, Scope), Sample) {
        ((self.kind, self.scope), Sample::new(self.numbers.0, self.turnover))
    }
}

impl Model {
    /// The limits, the most urgent first.
    pub(in crate::model) fn limits(&self) -> Vec<Limit> {
        self.ranked(self.listed_limits())
    }

    /// Takes a sample of each limit, for the forecast of its time to full, and finds those that are urgent.
    pub(in crate::model) fn sample_limits(&mut self) {
        let mut listed = self.listed_limits();
        let samples: Vec<_> = listed.iter().map(Listed::sample).collect();
        // Most limits are far from urgent, and all but their numbers would be found in vain.
        listed.retain(|it| it.kind.level_of(it.numbers.0, it.numbers.1) >= Level::Critical);
        let urgent = self.ranked(listed);
        self.diagnosis.trends.sample(samples, self.now);
        self.find_alarms(&urgent);
    }

    fn listed_limits(&self) -> Vec<Listed<'_>> {
        let mut listed = self.port_limits();
        listed.extend(self.process_limits());
        listed.extend(self.queue_limits());
        let shared = self.add_namespace_limits(&mut listed);
        listed.extend(self.host_limits(shared));
        listed
    }

    /// With all that is known of them, the most urgent first.
    fn ranked(&self, listed: Vec<Listed<'_>>) -> Vec<Limit> {
        let limit = |listed| {
            let mut limit = self.limit(listed);
            self.diagnosis.trends.annotate(&mut limit);
            limit
        };
        let mut limits: Vec<Limit> = listed.into_iter().map(limit).collect();
        limits.sort_by(Limit::by_urgency);
        limits
    }

    fn limit(&self, listed: Listed<'_>) -> Limit {
        let Listed { kind, scope, numbers: (used, maximum), turnover, details } = listed;
        let namespace = scope.netns().and_then(|netns| self.readings.namespaces.get(&netns));
        let (process, hits, counters) = match details {
            Details::Destination | Details::Host => (None, self.own_hits(kind, scope), Vec::new()),
            Details::Process(process) => (Some(process), self.own_hits(kind, scope), Vec::new()),
            Details::Listener(listener, queues) => {
                let drops = &listener.drops;
                let hits = if kind == LimitKind::AcceptQueue { drops.overflows } else { drops.syn_queue_full };
                (listener.process, Some(hits), counters::of_queue(kind, drops, queues, namespace))
            }
            Details::Namespace(namespace) if kind == LimitKind::TimeWait => {
                (None, namespace.reading.time_wait_overflows, counters::of_time_wait(namespace))
            }
            Details::Namespace(namespace) => {
                // A clash has nothing to do with the limit.
                let hits = namespace.reading.conntrack.and_then(|it| it.counters).map(ConntrackCounters::hits);
                (None, hits, counters::of_conntrack(namespace))
            }
        };
        Limit {
            kind,
            scope,
            netns_name: scope.netns().and_then(|netns| self.netns_name(netns)),
            process,
            service: self.service_of_scope(scope),
            used,
            maximum,
            hits,
            counters,
            slope: None,
            turnover,
            lifetime: forecast::lifetime(kind, namespace.map(|namespace| &namespace.reading)),
        }
    }

    fn port_limits(&self) -> Vec<Listed<'_>> {
        let mut fullest = Fullest::default();
        for row in self.ledger.destinations().iter() {
            let netns = self.ledger.endpoints().get(row.endpoint).key.netns;
            let namespace = self.readings.namespaces.get(&netns);
            if let Some(ports) = self.port_use(row, namespace).filter(|ports| ports.in_use() > 0) {
                fullest.add((ports.in_use().into(), ports.usable().into()), row);
            }
        }
        let listed = |(numbers, row): (Numbers, &Destination)| {
            let key = &self.ledger.endpoints().get(row.endpoint).key;
            let device = self.named(key.netns, key.device);
            let scope = Scope::Destination { netns: key.netns, local_ip: key.local_ip, device, remote: row.remote() };
            let turnover = Some(Turnover::new(row.ports.time_wait.into(), row.entered));
            Listed { turnover, ..Listed::new(LimitKind::Ports, scope, numbers, Details::Destination) }
        };
        fullest.kept.into_iter().map(listed).collect()
    }

    fn process_limits(&self) -> impl Iterator<Item = Listed<'_>> {
        let mut fullest = Fullest::default();
        for files in &self.readings.host.processes {
            if let Some(most) = self.readings.host.most_descriptors(files) {
                fullest.add((files.open, most), files.process);
            }
        }
        fullest.kept.into_iter().map(|(numbers, process)| {
            Listed::new(LimitKind::ProcessFiles, Scope::Process(process.pid), numbers, Details::Process(process))
        })
    }

    /// Both queues of each listener. The kernel asks whether a queue is above its limit, not whether it has reached it
    /// (`sk_acceptq_is_full`, include/net/sock.h): one more than the limit fits.
    fn queue_limits(&self) -> impl Iterator<Item = Listed<'_>> {
        let (mut accept, mut hit, mut syn) = (Fullest::default(), Fullest::default(), Fullest::default());
        for (id, listener) in self.listeners.iter() {
            let Some(queues) = listener.queues else { continue };
            let maximum = u64::from(queues.limit) + 1;
            let it = (id, listener, queues);
            accept.add((queues.accept.into(), maximum), it);
            // A queue that overflowed is listed even if it is empty now.
            if listener.drops.overflows > 0 {
                hit.add((queues.accept.into(), maximum), it);
            }
            let used = u64::from(queues.syn);
            if syn.may_take(used) {
                let namespace = self.readings.namespaces.get(&listener.netns);
                let most = namespace.and_then(|namespace| namespace.reading.most_unproven_requests());
                syn.add((used, most.unwrap_or(u64::MAX).min(maximum)), it);
            }
        }
        hit.kept.retain(|(_, (id, ..))| accept.kept.iter().all(|(_, (other, ..))| other != id));
        let accept = accept.kept.into_iter().chain(hit.kept).map(|it| (LimitKind::AcceptQueue, it));
        let syn = syn.kept.into_iter().map(|it| (LimitKind::SynQueue, it));
        accept.chain(syn).map(|(kind, (numbers, (id, listener, queues)))| {
            let device = self.named(listener.netns, listener.device);
            let scope = Scope::Listener { netns: listener.netns, local: listener.local(), device, id };
            Listed::new(kind, scope, numbers, Details::Listener(listener, queues))
        })
    }

    /// Adds those of namespaces, and returns what all of them show: each number from the first namespace that has it.
    fn add_namespace_limits<'a>(&'a self, listed: &mut Vec<Listed<'a>>) -> Shared {
        let (mut time_wait, mut conntrack) = (Fullest::default(), Fullest::default());
        let mut shared = Shared::default();
        for (netns, namespace) in &self.readings.namespaces {
            let reading = &namespace.reading;
            shared = shared.or(reading.shared);
            if let Some(numbers) = reading.time_wait.map(u64::from).zip(reading.tcp_max_tw_buckets) {
                time_wait.add(numbers, (*netns, namespace));
            }
            if let Some(it) = reading.conntrack {
                // 0 is no limit (`__nf_conntrack_alloc`).
                let max = if it.max == 0 { u64::MAX } else { it.max };
                conntrack.add((it.count, max), (*netns, namespace));
            }
        }
        let new = |kind, numbers, (netns, namespace)| {
            Listed::new(kind, Scope::Namespace(netns), numbers, Details::Namespace(namespace))
        };
        listed.extend(time_wait.kept.into_iter().map(|(numbers, it): (Numbers, (_, &Namespace))| {
            let turnover = Some(Turnover::new(numbers.0, it.1.time_wait_entered));
            Listed { turnover, ..new(LimitKind::TimeWait, numbers, it) }
        }));
        listed.extend(conntrack.kept.into_iter().map(|(numbers, it)| new(LimitKind::Conntrack, numbers, it)));
        shared
    }

    fn host_limits(&self, shared: Shared) -> impl Iterator<Item = Listed<'_>> {
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
        .filter_map(|(kind, numbers)| Some(Listed::new(kind, Scope::Host, numbers?, Details::Host)))
    }
}

/// Used, and the maximum.
type Numbers = (u64, u64);

/// The fullest of all, at most [`LISTED`], the fullest first.
struct Fullest<T> {
    kept: Vec<(Numbers, T)>,
}

impl<T> Default for Fullest<T> {
    fn default() -> Self {
        Self { kept: Vec::with_capacity(LISTED) }
    }
}

impl<T> Fullest<T> {
    /// Whether there is room for one with so much in use, whatever its maximum: nothing is no fuller than nothing.
    fn may_take(&self, used: u64) -> bool {
        used > 0 || self.kept.len() < LISTED
    }

    fn add(&mut self, numbers: Numbers, it: T) {
        if !self.may_take(numbers.0) {
            return;
        }
        // Cross-multiplied, so that the order is total and exact.
        let is_fuller = |a: Numbers, b: Numbers| u128::from(a.0) * u128::from(b.1) > u128::from(b.0) * u128::from(a.1);
        let place = self.kept.partition_point(|(other, _)| !is_fuller(numbers, *other));
        if place < LISTED {
            self.kept.truncate(LISTED - 1);
            self.kept.insert(place, (numbers, it));
        }
    }
}
