//! Network namespaces: what is read of each, and how they come and go.

use std::{collections::hash_map::Entry, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Model,
    minis::Mini,
    name::Name,
    ports::Ports,
    socket::Socket,
    units::{NetnsId, PortRange, SocketId, TcpState},
};

/// What was read of a namespace; `None` where it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceReading {
    /// `host` for that of the host itself; else its `ip netns` name; else the command name of a process in it, of one
    /// with sockets where there is such a process, and never `pause`.
    pub name: Option<Name>,
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
    /// Connection tracking.
    pub conntrack: Option<Conntrack>,
    /// What every namespace shows of the whole host.
    pub shared: Shared,
}

/// Connection tracking of a namespace (net/netfilter/nf_conntrack_core.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// Connections that are tracked: `net.netfilter.nf_conntrack_count`.
    pub count: u64,
    /// `net.netfilter.nf_conntrack_max`
    pub max: u64,
    /// Packets that found no room, and connections that were dropped to make some, since boot.
    pub dropped: Option<u64>,
}

/// Numbers of all namespaces together, as one of them shows them; limits are shown by the first namespace alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// `orphan` of /proc/net/sockstat: sockets that no process holds any more.
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

impl NamespaceReading {
    /// Whether it is the one that the host itself is in: limits of the whole host are shown there alone
    /// (`ipv4_table` of net/ipv4/sysctl_net_ipv4.c).
    #[must_use]
    pub const fn is_initial(&self) -> bool {
        self.shared.tcp_max_orphans.is_some()
    }

    /// From when on connect() may take over a TIME_WAIT socket, on `CLOCK_MONOTONIC`; `None` for never
    /// (`tcp_twsk_unique` in net/ipv4/tcp_ipv4.c).
    pub(super) fn reusable_from(&self, mini: &Mini, local: IpAddr, remote: IpAddr) -> Option<Duration> {
        let is_allowed = match self.tcp_tw_reuse {
            Some(1) => true,
            Some(2) => local.is_loopback() || remote.is_loopback(),
            _ => false,
        };
        let since = mini.since.filter(|_| is_allowed && mini.state == TcpState::TimeWait)?;
        // Its age is told in whole milliseconds, or seconds before 6.14, and must be more than the delay.
        Some(match self.tcp_tw_reuse_delay {
            Some(delay) => {
                let began = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                Duration::from_millis(began.saturating_add(1)) + delay
            }
            None => Duration::from_secs(since.as_secs() + 1),
        })
    }
}

/// A set of ports, one bit each.
pub(super) struct PortSet(Box<[u64; 1024]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl PortSet {
    pub(super) fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] >> (port & 63) & 1 != 0
    }

    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|bits| bits.count_ones()).sum()
    }

    pub(super) fn insert(&mut self, range: PortRange) {
        for port in range.low..=range.high {
            self.0[usize::from(port >> 6)] |= 1 << (port & 63);
        }
    }

    pub(super) fn remove(&mut self, range: PortRange) {
        for port in range.low..=range.high {
            self.0[usize::from(port >> 6)] &= !(1 << (port & 63));
        }
    }
}

/// A network namespace.
#[derive(Default)]
pub(super) struct Namespace {
    pub(super) reading: NamespaceReading,
    pub(super) ports: Ports,
    /// Its table was scanned: what is found later and not known is drift.
    pub(super) scanned: bool,
}

impl Namespace {
    /// The same ports may be chosen by connect() as under `other`.
    pub(super) fn has_ports_of(&self, other: &NamespaceReading) -> bool {
        let rules = |it: &NamespaceReading| (it.port_range, it.tcp_tw_reuse, it.tcp_tw_reuse_delay);
        rules(&self.reading) == rules(other) && self.reading.reserved == other.reserved
    }
}

impl Model {
    /// Takes note of what a namespace was read to be.
    pub fn set_namespace(&mut self, netns: NetnsId, reading: NamespaceReading) {
        self.unread.remove(&netns);
        let known = self.namespaces.entry(netns);
        let is_new = matches!(known, Entry::Vacant(_));
        let known = known.or_default();
        let has_same_ports = !is_new && known.has_ports_of(&reading);
        let before = std::mem::replace(&mut known.reading, reading);
        if !is_new {
            self.note_counters(netns, &before);
        }
        if !has_same_ports {
            self.rebuild_ports(netns);
        }
    }

    /// Namespaces that events or open files have named and nobody has read yet.
    pub fn unread_namespaces(&self) -> impl Iterator<Item = NetnsId> + '_ {
        self.unread.iter().copied()
    }

    /// The namespace is gone, and the kernel has ended what was in it.
    pub fn forget_namespace(&mut self, netns: NetnsId) {
        self.unread.remove(&netns);
        let sockets: Vec<SocketId> = self.sockets_of(netns).map(|socket| socket.id).collect();
        for id in sockets {
            self.remove_socket(id);
        }
        for id in self.listeners.of_namespace(netns) {
            self.remove_listener(id);
        }
        self.remove_minis(netns, |_| true);
        self.unbind_all(|bound| bound.netns == netns);
        self.destinations.retain(|row| self.endpoints.get(row.endpoint).key.netns != netns);
        self.endpoints.retain(|row| row.key.netns != netns);
        self.namespaces.remove(&netns);
        self.early_binds.forget(netns);
    }

    pub(super) fn sockets_of(&self, netns: NetnsId) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(move |socket| self.endpoints.get(socket.endpoint).key.netns == netns)
    }

    /// Takes note of a namespace that was named.
    pub(super) fn note_namespace(&mut self, netns: NetnsId) {
        if !self.namespaces.contains_key(&netns) {
            self.unread.insert(netns);
        }
    }
}
