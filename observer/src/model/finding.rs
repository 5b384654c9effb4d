//! Findings: what is likely to be wrong. Each is one sentence with its evidence and one remedy.

use std::net::{IpAddr, SocketAddr};

use super::{
    Model,
    event::Queues,
    failure::{Failed, FailureKey},
    headroom::PortUse,
    snapshot::{EndpointRow, NamespaceRow},
    units::{NetnsId, PortRange, Process},
};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A process tries to connect again and again although no port is left.
    RetryLoop,
    /// Clients call bind() before connect() without `IP_BIND_ADDRESS_NO_PORT`.
    BindBeforeConnect,
    /// Most of a namespace's TIME_WAIT sockets take ports from one destination.
    TimeWaitAtOneDestination,
    /// The accept queue of a busy listener is as long as `net.core.somaxconn` lets it be.
    QueueAtSomaxconn,
    /// A service listens on a port that connect() may give to a client.
    ListenerInRange,
    /// Much of the ephemeral range is reserved.
    ReservedInRange,
}

impl FindingKind {
    /// A word for scripts, in snake case.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::RetryLoop => "retry_loop",
            Self::BindBeforeConnect => "bind_before_connect",
            Self::TimeWaitAtOneDestination => "time_wait_at_one_destination",
            Self::QueueAtSomaxconn => "queue_at_somaxconn",
            Self::ListenerInRange => "listener_in_range",
            Self::ReservedInRange => "reserved_in_range",
        }
    }
}

/// Something that is likely to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Its namespace.
    pub netns: NetnsId,
    /// One sentence.
    pub sentence: String,
    /// The numbers that it rests on.
    pub evidence: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Findings of one kind that are told; more of the same kind say nothing new.
const TOLD: usize = 8;
/// connect() calls that find no port are a loop from here on: nobody types that fast.
const LOOP_PER_SECOND: f64 = 10.0;
/// Ports of the range in percent, from which on they are worth a word.
const BOUND_PERCENT: u32 = 1;
const TIME_WAIT_PERCENT: u32 = 10;
const RESERVED_PERCENT: u32 = 10;

/// Whether `part` is at least `percent` of a whole that is not empty.
fn is_part(part: u32, percent: u32, whole: u32) -> bool {
    part > 0 && u64::from(part) * 100 >= u64::from(whole) * u64::from(percent)
}

/// connect() calls of a process that found no port left.
struct ExhaustedConnects {
    netns: NetnsId,
    remote: SocketAddr,
    process: Process,
    per_second: f64,
    ports: Option<PortUse>,
}

fn retry_loop(tried: &ExhaustedConnects) -> Option<Finding> {
    let ExhaustedConnects { netns, remote, process, per_second, ports } = *tried;
    (per_second >= LOOP_PER_SECOND).then(|| Finding {
        kind: FindingKind::RetryLoop,
        netns,
        sentence: format!("{} retries connect() to {remote} without a port left.", name(Some(process))),
        evidence: format!(
            "{per_second:.0} calls a second fail with EADDRNOTAVAIL{}; each has searched the whole range",
            ports.map_or_else(String::new, |ports| format!(
                ", {} of {} ports are taken",
                ports.taken(),
                ports.usable()
            ))
        ),
        remedy: "wait longer before each retry, and reuse connections",
    })
}

/// Clients of a local ip whose ports were chosen by bind().
struct BoundClients {
    netns: NetnsId,
    local_ip: IpAddr,
    process: Option<Process>,
    ports: u32,
    usable: u32,
}

fn bind_before_connect(clients: &BoundClients) -> Option<Finding> {
    let BoundClients { netns, local_ip, process, ports, usable } = *clients;
    is_part(ports, BOUND_PERCENT, usable).then(|| Finding {
        kind: FindingKind::BindBeforeConnect,
        netns,
        sentence: format!("{} calls bind() before connect() from {local_ip}.", name(process)),
        evidence: format!("{ports} of {usable} ports were taken by bind(): connect() skips these for every destination"),
        remedy: "set IP_BIND_ADDRESS_NO_PORT (Linux 4.2) on the socket before bind(), so that connect() chooses the port",
    })
}

/// A destination, and all TIME_WAIT sockets of its namespace.
struct Closed {
    netns: NetnsId,
    local_ip: IpAddr,
    remote: SocketAddr,
    ports: PortUse,
    time_wait_in_namespace: u32,
}

fn time_wait_at_one_destination(closed: &Closed) -> Option<Finding> {
    let Closed { netns, local_ip, remote, ports, time_wait_in_namespace } = *closed;
    let many = is_part(ports.time_wait, TIME_WAIT_PERCENT, ports.usable());
    let most = is_part(ports.time_wait, 50, time_wait_in_namespace);
    (many && most).then(|| Finding {
        kind: FindingKind::TimeWaitAtOneDestination,
        netns,
        sentence: format!("Connections from {local_ip} to {remote} are closed faster than their ports are free again."),
        evidence: format!(
            "{} of {} ports are in TIME_WAIT, of {time_wait_in_namespace} such sockets in the namespace",
            ports.time_wait,
            ports.usable()
        ),
        remedy: "keep connections open, or let the other side close first; net.ipv4.tcp_tw_reuse=1 lets connect() take \
                 ports whose TIME_WAIT is older than a second",
    })
}

/// A listener and the limit of its namespace.
struct Queue {
    netns: NetnsId,
    local: SocketAddr,
    process: Option<Process>,
    queues: Queues,
    somaxconn: u32,
}

/// A queue that is as long as `somaxconn` may have been asked for as such: only one that is used is worth a word.
fn queue_at_somaxconn(queue: &Queue) -> Option<Finding> {
    let Queue { netns, local, process, queues, somaxconn } = *queue;
    let is_used = queues.drops > 0 || is_part(queues.accept, 50, queues.limit);
    (queues.limit == somaxconn && is_used).then(|| Finding {
        kind: FindingKind::QueueAtSomaxconn,
        netns,
        sentence: format!("The accept queue of {} on {local} cannot be longer than net.core.somaxconn.", name(process)),
        evidence: format!(
            "{} connections wait, the limit is net.core.somaxconn = {somaxconn}, {} were dropped",
            queues.accept, queues.drops
        ),
        remedy: "raise net.core.somaxconn and the backlog of listen(), then start the service anew; or accept() faster",
    })
}

fn listeners_in_range(netns: NetnsId, range: PortRange, mut found: Vec<(u16, Option<Process>)>) -> Option<Finding> {
    found.sort_unstable_by_key(|(port, _)| *port);
    found.dedup_by_key(|(port, _)| *port);
    let first: Vec<String> = found.iter().take(3).map(|(port, process)| format!("{port} {}", name(*process))).collect();
    let more = found.len().saturating_sub(first.len());
    (!found.is_empty()).then(|| Finding {
        kind: FindingKind::ListenerInRange,
        netns,
        sentence: "A service listens on a port of the ephemeral range: once it stops, a client can take that port."
            .to_owned(),
        evidence: format!(
            "{}{} in {}-{}, not reserved",
            first.join(", "),
            if more > 0 { format!(" and {more} more") } else { String::new() },
            range.low,
            range.high
        ),
        remedy: "add the ports to net.ipv4.ip_local_reserved_ports, or listen outside of the range",
    })
}

fn reserved_in_range(netns: NetnsId, range: PortRange, reserved: u32) -> Option<Finding> {
    is_part(reserved, RESERVED_PERCENT, range.size()).then(|| Finding {
        kind: FindingKind::ReservedInRange,
        netns,
        sentence: "Much of the ephemeral range is reserved: fewer connections fit to each destination.".to_owned(),
        evidence: format!(
            "net.ipv4.ip_local_reserved_ports takes {reserved} of the {} ports {}-{}",
            range.size(),
            range.low,
            range.high
        ),
        remedy: "widen net.ipv4.ip_local_port_range, or reserve less",
    })
}

fn name(process: Option<Process>) -> String {
    process.map_or_else(|| "a process".to_owned(), |process| process.to_string())
}

impl Model {
    /// What is likely to be wrong now; the rows are those of the same moment.
    pub(super) fn findings(&self, endpoints: &[EndpointRow], namespaces: &[NamespaceRow]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        findings.extend(self.exhausted().filter_map(|it| retry_loop(&it)).take(TOLD));
        findings.extend(self.bound_clients(endpoints).filter_map(|it| bind_before_connect(&it)).take(TOLD));
        findings.extend(closed(endpoints, namespaces).filter_map(|it| time_wait_at_one_destination(&it)).take(TOLD));
        findings.extend(self.queues().filter_map(|it| queue_at_somaxconn(&it)).take(TOLD));
        for (netns, namespace) in &self.namespaces {
            let Some(range) = namespace.reading.port_range else { continue };
            let listening = self.listeners.iter().map(|(_, listener)| listener).filter(|listener| {
                listener.netns == *netns && listener.chose_port && namespace.ports.is_usable(listener.port)
            });
            let listening = listening.map(|listener| (listener.port, listener.process)).collect();
            findings.extend(listeners_in_range(*netns, range, listening));
            findings.extend(reserved_in_range(*netns, range, namespace.ports.reserved));
        }
        findings.sort_by(|a, b| (a.kind, a.netns, &a.sentence).cmp(&(b.kind, b.netns, &b.sentence)));
        findings
    }

    fn exhausted(&self) -> impl Iterator<Item = ExhaustedConnects> {
        self.failures.exhausted().filter_map(|(row, per_second)| {
            let FailureKey { netns, process, remote, .. } = row.key;
            let ports = match row.failed {
                Failed::Ports(ports) => Some(ports),
                _ => None,
            };
            Some(ExhaustedConnects { netns, remote: remote?, process: process?, per_second, ports })
        })
    }

    fn bound_clients(&self, endpoints: &[EndpointRow]) -> impl Iterator<Item = BoundClients> {
        endpoints.iter().filter_map(|row| {
            let namespace = self.namespaces.get(&row.key.netns)?;
            Some(BoundClients {
                netns: row.key.netns,
                local_ip: row.key.local_ip,
                process: row.process,
                ports: self.early_binds.of(&row.key),
                usable: namespace.ports.usable_count,
            })
        })
    }

    fn queues(&self) -> impl Iterator<Item = Queue> {
        self.listeners.iter().filter_map(|(_, listener)| {
            Some(Queue {
                netns: listener.netns,
                local: SocketAddr::new(listener.ip, listener.port),
                process: listener.process,
                queues: listener.queues?,
                somaxconn: self.namespaces.get(&listener.netns)?.reading.somaxconn?,
            })
        })
    }
}

/// The destinations listed, each with its namespace.
fn closed(endpoints: &[EndpointRow], namespaces: &[NamespaceRow]) -> impl Iterator<Item = Closed> {
    endpoints.iter().flat_map(|row| {
        let namespace = namespaces.iter().find(|namespace| namespace.netns == row.key.netns);
        row.destinations.iter().filter_map(move |destination| {
            Some(Closed {
                netns: row.key.netns,
                local_ip: row.key.local_ip,
                remote: destination.remote,
                ports: destination.ports?,
                time_wait_in_namespace: namespace?.time_wait,
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Pid;

    const NETNS: NetnsId = NetnsId(7);
    const RANGE: PortRange = PortRange { low: 40_000, high: 40_999 };

    fn process() -> Process {
        Process { pid: Pid(12), comm: "worker".into() }
    }

    fn remote() -> SocketAddr {
        "10.0.0.9:5432".parse().unwrap()
    }

    fn ports(used: u32, time_wait: u32) -> PortUse {
        PortUse { range: 1_000, reserved: 0, blocked: Some(0), used, time_wait, time_wait_reusable: 0 }
    }

    #[test]
    fn retries_are_a_loop_when_nobody_could_type_them() {
        let tried = |per_second| ExhaustedConnects {
            netns: NETNS,
            remote: remote(),
            process: process(),
            per_second,
            ports: Some(ports(990, 10)),
        };
        assert_eq!(retry_loop(&tried(9.0)), None);
        let found = retry_loop(&tried(250.4)).unwrap();
        assert_eq!(found.sentence, "worker (12) retries connect() to 10.0.0.9:5432 without a port left.");
        assert!(found.evidence.contains("250 calls") && found.evidence.contains("1000 of 1000"), "{found:?}");
    }

    #[test]
    fn a_bound_port_here_and_there_is_nothing() {
        let clients =
            |ports| BoundClients { netns: NETNS, local_ip: [10, 0, 0, 5].into(), process: None, ports, usable: 1_000 };
        assert_eq!(bind_before_connect(&clients(0)), None);
        assert_eq!(bind_before_connect(&clients(9)), None);
        let found = bind_before_connect(&clients(10)).unwrap();
        assert_eq!(found.sentence, "a process calls bind() before connect() from 10.0.0.5.");
        assert!(found.remedy.contains("IP_BIND_ADDRESS_NO_PORT"));
        assert_eq!(bind_before_connect(&BoundClients { usable: 0, ..clients(0) }), None, "no ports, none taken");
    }

    #[test]
    fn time_wait_counts_where_it_is_much_and_most_of_all() {
        let found = |time_wait, all| {
            time_wait_at_one_destination(&Closed {
                netns: NETNS,
                local_ip: [10, 0, 0, 5].into(),
                remote: remote(),
                ports: ports(5, time_wait),
                time_wait_in_namespace: all,
            })
        };
        assert_eq!(found(99, 99), None, "few");
        assert_eq!(found(100, 201), None, "others have more");
        assert!(found(100, 200).unwrap().evidence.starts_with("100 of 1000 ports are in TIME_WAIT, of 200"));
    }

    #[test]
    fn a_queue_at_somaxconn_counts_where_it_is_used() {
        let found = |accept, drops, somaxconn| {
            let queues = Queues { accept, syn: 0, limit: 128, drops };
            let local = "0.0.0.0:80".parse().unwrap();
            queue_at_somaxconn(&Queue { netns: NETNS, local, process: Some(process()), queues, somaxconn })
        };
        assert_eq!(found(0, 0, 128), None, "nobody waits");
        assert_eq!(found(129, 50, 4_096), None, "its own choice");
        assert!(found(64, 0, 128).is_some() && found(0, 1, 128).is_some());
    }

    #[test]
    fn ports_that_are_set_apart_are_told_once_for_a_namespace() {
        assert_eq!(listeners_in_range(NETNS, RANGE, vec![]), None);
        let four = [40_003, 40_001, 40_001, 40_002, 40_009].map(|port| (port, None)).to_vec();
        let found = listeners_in_range(NETNS, RANGE, four).unwrap();
        assert_eq!(
            found.evidence,
            "40001 a process, 40002 a process, 40003 a process and 1 more in 40000-40999, not reserved"
        );
        assert_eq!(reserved_in_range(NETNS, RANGE, 99), None);
        assert!(reserved_in_range(NETNS, RANGE, 100).is_some());
    }
}
