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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hits<'a> {
    /// The limit.
    pub kind: LimitKind,
    /// The network namespace; `None` for all together.
    pub netns: Option<NetnsId>,
    /// Its name.
    pub netns_name: Option<&'a NetnsName>,
    /// How often. It never falls while the namespace, or observer, lives.
    pub count: u64,
    /// Since when.
    pub since: Since,
    /// What counts.
    pub counter: &'static str,
}

/// Limits whose hits the kernel counts in each namespace, and its counters.
const OF_KERNEL: [(LimitKind, &str); 5] = [
    (LimitKind::AcceptQueue, "ListenOverflows"),
    (LimitKind::SynQueue, "TCPReqQFullDrop, TCPReqQFullDoCookies (every SYN with tcp_syncookies=2)"),
    (LimitKind::Conntrack, "drop - insert_failed + early_drop of nf_conntrack"),
    (LimitKind::TimeWait, "TCPTimeWaitOverflow"),
    (LimitKind::TcpMemory, "TCPAbortOnMemory, which counts orphans too"),
];

/// What the kernel has counted in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelHits {
    /// In the order of [`OF_KERNEL`]; `None` where this kernel does not show the counter.
    counts: [Option<u64>; OF_KERNEL.len()],
    /// It is the namespace of the host.
    is_initial: bool,
}

impl KernelHits {
    pub(super) fn of(reading: &NamespaceReading) -> Self {
        let listen = reading.listen;
        let counts = [
            listen.overflows,
            // Each is counted, whether cookies are allowed or not.
            listen.syn_queue_drops.zip(listen.syn_cookies).map(|(drops, cookies)| drops + cookies),
            reading.conntrack.and_then(|it| it.counters).map(ConntrackCounters::hits),
            reading.time_wait_overflows,
            reading.aborts_on_memory,
        ];
        // These sysctls are shown by the first namespace alone.
        Self { counts, is_initial: reading.shared.tcp_mem_max_pages.is_some() }
    }
}

/// Limits whose hits nobody but observer counts, the errno that says so, and the failure that it is known by.
const OF_OBSERVER: [(LimitKind, &str, FailureKind); 3] = [
    (LimitKind::Ports, "EADDRNOTAVAIL of connect()", FailureKind::PortsExhausted),
    (LimitKind::ProcessFiles, "EMFILE", FailureKind::ProcessFds),
    (LimitKind::HostFiles, "ENFILE", FailureKind::HostFiles),
];

/// What observer has counted itself, in the order of [`OF_OBSERVER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnHits([u64; OF_OBSERVER.len()]);

impl KernelHits {
    pub(super) fn iter(self, netns: NetnsId, netns_name: Option<&NetnsName>) -> impl Iterator<Item = Hits<'_>> {
        let since = if self.is_initial { Since::Boot } else { Since::Namespace };
        OF_KERNEL.into_iter().zip(self.counts).filter_map(move |((kind, counter), count)| {
            Some(Hits { kind, netns: Some(netns), netns_name, count: count?, since, counter })
        })
    }
}

impl OwnHits {
    pub(super) fn iter<'a>(self) -> impl Iterator<Item = Hits<'a>> {
        OF_OBSERVER.into_iter().zip(self.0).map(|((kind, counter, _), count)| Hits {
            kind,
            netns: None,
            netns_name: None,
            count,
            since: Since::Observer,
            counter,
        })
    }
}

impl Model {
    pub(super) fn all_own_hits(&self) -> OwnHits {
        OwnHits(OF_OBSERVER.map(|(_, _, failure)| self.diagnosis.failures.of_kind(failure)))
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
