//! The walls of this moment, found among all that the model knows.

use std::net::SocketAddr;

use super::{Subject, Wall, WallKind};
use crate::model::{
    Model,
    endpoint::Destination,
    listener::Listener,
    namespace::Shared,
    snapshot::{Memory, ProcessFiles},
    units::{NetnsId, Process},
};

/// Walls listed of each kind: the fullest.
const LISTED: usize = 16;

impl Model {
    /// The walls, the most urgent first.
    pub(in crate::model) fn walls(&self) -> Vec<Wall> {
        let mut walls = self.port_walls();
        walls.extend(self.process_walls());
        walls.extend(self.queue_walls());
        walls.extend(self.namespace_walls());
        walls.extend(self.host_walls());
        for wall in &mut walls {
            wall.slope = self.trends.slope(wall);
        }
        walls.sort_by(Wall::by_urgency);
        walls
    }

    /// Takes a sample of each wall, by which the time until it is reached is foretold.
    pub(in crate::model) fn sample_walls(&mut self) {
        let walls = self.walls();
        self.trends.sample(&walls, self.now);
    }

    /// A wall of a namespace, or of something in it.
    fn wall(&self, kind: WallKind, subject: Subject, (used, maximum): (u64, u64)) -> Wall {
        let namespace = subject.netns().and_then(|netns| self.namespaces.get(&netns));
        let netns_name = namespace.and_then(|namespace| namespace.reading.name.clone());
        Wall { kind, subject, netns_name, process: None, used, maximum, hits: None, slope: None }
    }

    fn port_walls(&self) -> Vec<Wall> {
        let candidates = self.destinations.iter().filter_map(|row| {
            let namespace = self.namespaces.get(&self.endpoints.get(row.endpoint).key.netns)?;
            let ports = self.port_use(row, Some(namespace))?;
            (ports.taken() > 0).then(|| ((ports.taken().into(), ports.usable().into()), row))
        });
        let wall = |(numbers, row): (Numbers, &Destination)| {
            let key = &self.endpoints.get(row.endpoint).key;
            let device = self.named(key.netns, key.device);
            let subject = Subject::Destination { netns: key.netns, local_ip: key.local_ip, device, remote: row.remote };
            self.wall(WallKind::Ports, subject, numbers)
        };
        fullest(candidates).into_iter().map(wall).collect()
    }

    fn process_walls(&self) -> Vec<Wall> {
        let numbers = |files: &ProcessFiles| {
            let limits = [files.soft_limit, self.host.nr_open];
            Some((files.open, limits.into_iter().flatten().min()?))
        };
        let candidates = self.host.processes.iter().filter_map(|files| Some((numbers(files)?, files.process)));
        let wall = |(numbers, process): (Numbers, Process)| Wall {
            process: Some(process),
            ..self.wall(WallKind::ProcessFiles, Subject::Process(process.pid), numbers)
        };
        fullest(candidates).into_iter().map(wall).collect()
    }

    /// Both queues of each listener. The kernel asks whether a queue is above its limit, not whether it has reached it
    /// (`sk_acceptq_is_full`, include/net/sock.h): one more than the limit fits.
    fn queue_walls(&self) -> Vec<Wall> {
        let queues = || self.listeners.iter().filter_map(|(id, listener)| Some((id, listener, listener.queues?)));
        let accept = queues().map(|(id, listener, queues)| {
            let maximum = u64::from(queues.limit) + 1;
            ((queues.accept.into(), maximum), (WallKind::AcceptQueue, id, listener, Some(queues.drops.into())))
        });
        let syn = queues().map(|(id, listener, queues)| {
            let maximum = u64::from(queues.limit) + 1;
            ((queues.syn.into(), maximum), (WallKind::SynQueue, id, listener, None))
        });
        let chosen = fullest(accept).into_iter().chain(fullest(syn));
        let wall = |(numbers, (kind, id, listener, hits)): (_, (_, _, &Listener, _))| {
            let local = SocketAddr::new(listener.ip, listener.port);
            let device = self.named(listener.netns, listener.device);
            let subject = Subject::Listener { netns: listener.netns, local, device, id };
            Wall { process: listener.process, hits, ..self.wall(kind, subject, numbers) }
        };
        chosen.map(wall).collect()
    }

    fn namespace_walls(&self) -> Vec<Wall> {
        let readings = || self.namespaces.iter().map(|(netns, namespace)| (*netns, &namespace.reading));
        let time_wait = readings().filter_map(|(netns, reading)| {
            let numbers = (u64::from(reading.time_wait?), reading.tcp_max_tw_buckets?);
            Some((numbers, (WallKind::TimeWait, netns, reading.time_wait_overflows)))
        });
        let conntrack = readings().filter_map(|(netns, reading)| {
            let conntrack = reading.conntrack?;
            Some(((conntrack.count, conntrack.max), (WallKind::Conntrack, netns, conntrack.dropped)))
        });
        let chosen = fullest(time_wait).into_iter().chain(fullest(conntrack));
        let wall = |(numbers, (kind, netns, hits)): (Numbers, (WallKind, NetnsId, Option<u64>))| Wall {
            hits,
            ..self.wall(kind, Subject::Namespace(netns), numbers)
        };
        chosen.map(wall).collect()
    }

    fn host_walls(&self) -> Vec<Wall> {
        let shared = self.shared();
        let files = self.host.files.map(|files| (files.allocated, files.max));
        let memory =
            self.host.memory.zip(shared.allocated).and_then(|(Memory { available, per_socket }, allocated)| {
                Some((allocated, allocated + available.checked_div(per_socket)?))
            });
        [
            (WallKind::HostFiles, files),
            (WallKind::Orphans, shared.orphans.zip(shared.tcp_max_orphans)),
            (WallKind::TcpMemory, shared.memory_pages.zip(shared.tcp_mem_max_pages)),
            (WallKind::SocketMemory, memory),
        ]
        .into_iter()
        .filter_map(|(kind, numbers)| Some(self.wall(kind, Subject::Host, numbers?)))
        .collect()
    }

    /// Each number by the first namespace that shows it.
    fn shared(&self) -> Shared {
        self.namespaces.values().map(|namespace| namespace.reading.shared).fold(Shared::default(), |a, b| Shared {
            orphans: a.orphans.or(b.orphans),
            allocated: a.allocated.or(b.allocated),
            memory_pages: a.memory_pages.or(b.memory_pages),
            tcp_max_orphans: a.tcp_max_orphans.or(b.tcp_max_orphans),
            tcp_mem_max_pages: a.tcp_mem_max_pages.or(b.tcp_mem_max_pages),
        })
    }
}

/// Used, and the maximum.
type Numbers = (u64, u64);

/// The fullest of all, at most [`LISTED`], in no order. One pass that keeps no more than these.
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
