//! What was read of the host and its network namespaces: /proc, sysctls, counters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    device::DeviceReading,
    name::Name,
    units::{PortRange, Process},
};

/// What a namespace is called by those that are in it. Recordings of format 4 may have an `Option<Name>` here, which has the
/// encoding of the first two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceName {
    /// Nothing is known.
    #[default]
    Unknown,
    /// `host` for that of the host itself; else its `ip netns` name; else the unit of a process in it, or the command name
    /// of one, with sockets where there is such a process, and never `pause`.
    Other(Name),
    /// The pod, the container or the machine that its processes belong to.
    Workload(Name),
}

impl NamespaceName {
    /// The name, whatever it was taken from.
    #[must_use]
    pub const fn name(&self) -> Option<&Name> {
        match self {
            Self::Unknown => None,
            Self::Other(name) | Self::Workload(name) => Some(name),
        }
    }
}

/// What was read of a namespace; `None` where it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceReading {
    /// What it is called.
    pub name: NamespaceName,
    /// `net.ipv4.ip_local_port_range`
    pub port_range: Option<PortRange>,
    /// `net.ipv4.ip_local_reserved_ports`
    pub reserved: Vec<PortRange>,
    /// `net.ipv4.tcp_tw_reuse`
    pub tcp_tw_reuse: Option<u8>,
    /// `net.ipv4.tcp_tw_reuse_delay`; kernels before 6.14 do not have it.
    pub tcp_tw_reuse_delay: Option<Duration>,
    /// `tw` of /proc/net/sockstat
    pub time_wait: Option<u32>,
    /// `CurrEstab` of /proc/net/snmp: sockets in ESTABLISHED or CLOSE_WAIT.
    pub established_or_close_wait: Option<u32>,
    /// `net.core.somaxconn`
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_max_tw_buckets`
    pub tcp_max_tw_buckets: Option<u64>,
    /// `TCPTimeWaitOverflow` of /proc/net/netstat: sockets that closed without TIME_WAIT because there were too many.
    pub time_wait_overflows: Option<u64>,
    /// `TCPAbortOnMemory` of /proc/net/netstat: connections that were given up because orphans (`tcp_max_orphans`) or
    /// buffers (`tcp_mem`) were too many.
    pub aborts_on_memory: Option<u64>,
    /// `net.ipv4.tcp_timestamps`: with 0 connect() never takes a TIME_WAIT over.
    pub tcp_timestamps: Option<u8>,
    /// `net.ipv4.tcp_syncookies`
    pub tcp_syncookies: Option<u8>,
    /// `net.ipv4.tcp_max_syn_backlog`: bounds SYN queues while `tcp_syncookies` is 0.
    pub tcp_max_syn_backlog: Option<u32>,
    /// What all listeners of the namespace dropped.
    pub listen: ListenCounters,
    /// Connection tracking.
    pub conntrack: Option<Conntrack>,
    /// What every namespace shows of the whole host.
    pub shared: Shared,
    /// The devices that sockets are bound to.
    pub devices: Vec<DeviceReading>,
    /// `net.ipv4.tcp_l3mdev_accept`; kernels without VRFs do not have it.
    pub tcp_l3mdev_accept: Option<bool>,
    /// `net.ipv4.ip_local_port_step_width`; kernels before 7.2 do not have it.
    pub port_step_width: Option<u32>,
}

/// What the listeners of a namespace dropped since it was made: the counters of /proc/net/netstat, which name no listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenCounters {
    /// `ListenOverflows`: SYNs and final ACKs that found an accept queue full.
    pub overflows: Option<u64>,
    /// `ListenDrops`: SYNs and final ACKs that a listener dropped, for whatever reason.
    pub drops: Option<u64>,
    /// `TCPReqQFullDrop`: SYNs that found a SYN queue full while `tcp_syncookies` was 0.
    pub syn_queue_drops: Option<u64>,
    /// `TCPReqQFullDoCookies`: SYNs that found a SYN queue full and were answered with a cookie. With `tcp_syncookies` 2
    /// each SYN counts, whatever the queue (`tcp_conn_request`).
    pub syn_cookies: Option<u64>,
}

/// Connection tracking of a namespace (net/netfilter/nf_conntrack_core.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// Connections that are tracked in this namespace: `net.netfilter.nf_conntrack_count`.
    pub count: u64,
    /// `net.netfilter.nf_conntrack_max`: one number for all namespaces, and the count of each is compared with it. 0 is no
    /// limit.
    pub max: u64,
    /// `net.netfilter.nf_conntrack_tcp_timeout_time_wait`: how long the entry of a closed connection stays.
    pub closed_timeout: Option<Duration>,
    /// What went wrong.
    pub counters: Option<ConntrackCounters>,
}

/// What connection tracking counts when an entry cannot be made, since boot (/proc/net/stat/nf_conntrack).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackCounters {
    /// `insert_failed`: entries that clashed with another one. Each lost clash drops its packet and counts in `drop` too
    /// (`nf_ct_resolve_clash`).
    pub insert_failed: u64,
    /// `drop`: packets dropped, for want of room or for a clash.
    pub drop: u64,
    /// `early_drop`: old entries evicted from a full table to make room for new ones.
    pub early_drop: u64,
}

impl ConntrackCounters {
    /// Packets that were dropped because the table was full.
    #[must_use]
    pub const fn dropped_when_full(self) -> u64 {
        self.drop.saturating_sub(self.insert_failed)
    }

    /// How often the table was found full: a new packet was dropped, or an old entry had to go. A clash is no such case.
    #[must_use]
    pub const fn hits(self) -> u64 {
        self.dropped_when_full() + self.early_drop
    }
}

/// Numbers of all namespaces together, as one of them shows them; limits are shown by the first namespace alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// `orphan` of /proc/net/sockstat: sockets without any fd owner.
    pub orphans: Option<u64>,
    /// `alloc` of /proc/net/sockstat: TCP sockets of any state that have a full `struct sock`.
    pub allocated: Option<u64>,
    /// `mem` of /proc/net/sockstat: pages that TCP's buffers take.
    pub memory_pages: Option<u64>,
    /// `net.ipv4.tcp_max_orphans`
    pub tcp_max_orphans: Option<u64>,
    /// The third number of `net.ipv4.tcp_mem`.
    pub tcp_mem_max_pages: Option<u64>,
}

impl Shared {
    /// Each number of these, or of `other` where it was not shown.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            orphans: self.orphans.or(other.orphans),
            allocated: self.allocated.or(other.allocated),
            memory_pages: self.memory_pages.or(other.memory_pages),
            tcp_max_orphans: self.tcp_max_orphans.or(other.tcp_max_orphans),
            tcp_mem_max_pages: self.tcp_mem_max_pages.or(other.tcp_mem_max_pages),
        }
    }
}

impl NamespaceReading {
    /// Whether it is the one that the host itself is in: limits of the whole host are shown there alone
    /// (`ipv4_table` of net/ipv4/sysctl_net_ipv4.c).
    #[must_use]
    pub const fn is_initial(&self) -> bool {
        self.shared.tcp_max_orphans.is_some()
    }

    /// How many requests a SYN queue gets without cookies before it drops those of peers that it has no proof of
    /// (`tcp_conn_request`: the last quarter of `tcp_max_syn_backlog` is kept for the others); `None` with cookies.
    #[must_use]
    pub fn most_unproven_requests(&self) -> Option<u64> {
        let most = self.tcp_max_syn_backlog.filter(|_| self.tcp_syncookies == Some(0))?;
        Some(u64::from(most - (most >> 2)) + 1)
    }
}

/// Readings that belong to the whole host; `None` where they could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Open files: the first and third number of /proc/sys/fs/file-nr.
    pub files: Option<FileUse>,
    /// `fs.nr_open`: what no process may raise its limit of file descriptors above.
    pub nr_open: Option<u64>,
    /// The processes nearest to their own limit of file descriptors, the nearest first.
    pub processes: Vec<ProcessFiles>,
    /// Memory.
    pub memory: Option<Memory>,
    /// What `observer` itself takes.
    pub own: Option<OwnUse>,
}

/// What `observer` itself has used so far. Its programs in the kernel run in the time of the processes that they watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnUse {
    /// Time on CPUs since its start, of all threads (`CLOCK_PROCESS_CPUTIME_ID`).
    pub cpu: Duration,
    /// Resident memory in bytes (/proc/self/statm).
    pub resident: u64,
}

/// Memory that is free, and what a socket takes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `MemAvailable` of /proc/meminfo, in bytes.
    pub available: u64,
    /// Bytes of slab memory that an idle established socket takes, by /proc/slabinfo; what it buffers comes on top.
    pub per_socket: u64,
}

/// Open files of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUse {
    /// Allocated file handles.
    pub allocated: u64,
    /// `fs.file-max`
    pub max: u64,
}

/// Open file descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFiles {
    /// The process.
    pub process: Process,
    /// Open file descriptors.
    pub open: u64,
    /// Its soft limit (`ulimit -n`, `RLIMIT_NOFILE`); `None` for unlimited.
    pub soft_limit: Option<u64>,
    /// What it may raise that to without CAP_SYS_RESOURCE; `None` for unlimited.
    pub hard_limit: Option<u64>,
}
