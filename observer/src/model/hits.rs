//! How often limits were hit: by the kernel's own counters, which go back to the boot, and where the kernel counts nothing
//! by what observer has seen since it started.

use super::{
    Model,
    failure::{FailureKey, FailureKind, FailureRow},
    limit::{LimitKind, Scope},
    name::NetnsName,
    reading::{ConntrackCounters, NamespaceReading},
    units::NetnsId,
};

/// From when on hits are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    /// The boot of the host.
    Boot,
    /// The moment in which the network namespace was made.
    Namespace,
    /// The start of observer.
    Observer,
}

impl Since {
    /// Its id.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Namespace => "namespace",
            Self::Observer => "observer",
        }
    }
}

/// How often a kind of limit was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits {
    /// The limit.
    pub kind: LimitKind,
    /// The network namespace; `None` for all together.
    pub netns: Option<NetnsId>,
    /// Its name.
    pub netns_name: Option<NetnsName>,
    /// How often. It never falls while the namespace, or observer, lives.
    pub count: u64,
    /// Since when.
    pub since: Since,
    /// What counts.
    pub counter: &'static str,
}

/// Kinds that the kernel counts in each namespace.
const OF_KERNEL: usize = 5;

/// What the kernel counts of a namespace; without kinds whose counter this kernel does not show.
fn of_kernel(reading: &NamespaceReading) -> impl Iterator<Item = (LimitKind, u64, &'static str)> {
    let listen = reading.listen;
    // Each is counted, whether cookies are allowed or not.
    let syn_queue = listen.syn_queue_drops.zip(listen.syn_cookies).map(|(drops, cookies)| drops + cookies);
    let all: [_; OF_KERNEL] = [
        (LimitKind::AcceptQueue, listen.overflows, "ListenOverflows"),
        (LimitKind::SynQueue, syn_queue, "TCPReqQFullDrop, TCPReqQFullDoCookies (every SYN with tcp_syncookies=2)"),
        (
            LimitKind::Conntrack,
            reading.conntrack.and_then(|it| it.counters).map(ConntrackCounters::hits),
            "drop - insert_failed + early_drop of nf_conntrack",
        ),
        (LimitKind::TimeWait, reading.time_wait_overflows, "TCPTimeWaitOverflow"),
        (LimitKind::TcpMemory, reading.aborts_on_memory, "TCPAbortOnMemory, which counts orphans too"),
    ];
    all.into_iter().filter_map(|(kind, count, counter)| Some((kind, count?, counter)))
}

/// Limits whose hits nobody but observer counts, the errno that says so, and the failure that it is known by.
const OF_OBSERVER: [(LimitKind, &str, FailureKind); 3] = [
    (LimitKind::Ports, "EADDRNOTAVAIL of connect()", FailureKind::PortsExhausted),
    (LimitKind::ProcessFiles, "EMFILE", FailureKind::ProcessFds),
    (LimitKind::HostFiles, "ENFILE", FailureKind::HostFiles),
];

impl Model {
    /// Of each namespace what the kernel counts, in the order of their ids, and then what observer has counted itself.
    pub(super) fn hits(&self) -> Vec<Hits> {
        let mut namespaces: Vec<_> = self.readings.namespaces.iter().collect();
        let mut hits: Vec<Hits> = Vec::with_capacity(OF_KERNEL * namespaces.len() + OF_OBSERVER.len());
        namespaces.sort_unstable_by_key(|(netns, _)| **netns);
        for (netns, namespace) in namespaces {
            let reading = &namespace.reading;
            // These sysctls are shown by the first namespace alone.
            let since = if reading.shared.tcp_mem_max_pages.is_some() { Since::Boot } else { Since::Namespace };
            hits.extend(of_kernel(reading).map(|(kind, count, counter)| Hits {
                kind,
                netns: Some(*netns),
                netns_name: self.netns_name(*netns),
                count,
                since,
                counter,
            }));
        }
        hits.extend(OF_OBSERVER.map(|(kind, counter, failure)| Hits {
            kind,
            netns: None,
            netns_name: None,
            count: self.diagnosis.failures.of_kind(failure),
            since: Since::Observer,
            counter,
        }));
        hits
    }

    /// How often observer has seen that a limit was hit, of the groups of failures that it still knows.
    pub(super) fn own_hits(&self, kind: LimitKind, scope: Scope) -> Option<u64> {
        let (_, _, failure) = OF_OBSERVER.into_iter().find(|(of, ..)| *of == kind)?;
        Some(match scope {
            Scope::Host => self.diagnosis.failures.of_kind(failure),
            Scope::Process(pid) => {
                let of_process = |key: &FailureKey| key.process.is_some_and(|it| it.pid == pid);
                self.diagnosis.failures.count(|row| row.key.kind == failure && of_process(&row.key))
            }
            Scope::Destination { netns, local_ip, device, remote } => self.diagnosis.failures.count(|row| {
                let FailureRow { key, ended, .. } = row;
                ended.is_none()
                    && (key.kind, key.netns, key.remote) == (failure, netns, Some(remote))
                    && key.local.is_some_and(|local| (local.ip, local.device) == (local_ip, device))
            }),
            Scope::Namespace(_) | Scope::Listener { .. } => return None,
        })
    }
}
