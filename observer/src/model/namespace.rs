//! Network namespaces: what is read of each, and how they come and go.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Model,
    device::{Device, DeviceReading, DeviceRules},
    listen_drops::Unsettled,
    minisocks::Minisock,
    name::Name,
    snapshot::EndpointKey,
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

    /// From when on connect() may take over a TIME_WAIT socket, on `CLOCK_MONOTONIC`; `None` for never
    /// (`tcp_twsk_unique` in net/ipv4/tcp_ipv4.c).
    pub(super) fn reusable_from(&self, minisock: &Minisock, key: &EndpointKey, remote: IpAddr) -> Option<Duration> {
        let is_allowed = match self.tcp_tw_reuse {
            Some(1) => true,
            Some(2) => key.local_ip.is_loopback() || remote.is_loopback() || key.device.index() == Device::LOOPBACK,
            _ => false,
        };
        let since = minisock.since.filter(|_| is_allowed && minisock.state == TcpState::TimeWait)?;
        // The kernel counts its age in whole milliseconds, or seconds before 6.14; it must exceed the delay.
        Some(match self.tcp_tw_reuse_delay {
            Some(delay) => {
                let began = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                Duration::from_millis(began.saturating_add(1)) + delay
            }
            None => Duration::from_secs(since.as_secs() + 1),
        })
    }
}

/// What the kernel has counted in a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) listen: ListenCounters,
    pub(super) conntrack: Option<ConntrackCounters>,
    pub(super) time_wait_overflows: Option<u64>,
    pub(super) aborts_on_memory: Option<u64>,
}

impl Counters {
    pub(super) fn of(reading: &NamespaceReading) -> Self {
        let NamespaceReading { listen, time_wait_overflows, aborts_on_memory, .. } = *reading;
        let conntrack = reading.conntrack.and_then(|conntrack| conntrack.counters);
        Self { listen, conntrack, time_wait_overflows, aborts_on_memory }
    }

    /// Each counter of these, or of `other` where it could not be read.
    fn or(self, other: Self) -> Self {
        let (a, b) = (self.listen, other.listen);
        Self {
            listen: ListenCounters {
                overflows: a.overflows.or(b.overflows),
                drops: a.drops.or(b.drops),
                syn_queue_drops: a.syn_queue_drops.or(b.syn_queue_drops),
                syn_cookies: a.syn_cookies.or(b.syn_cookies),
            },
            conntrack: self.conntrack.or(other.conntrack),
            time_wait_overflows: self.time_wait_overflows.or(other.time_wait_overflows),
            aborts_on_memory: self.aborts_on_memory.or(other.aborts_on_memory),
        }
    }
}

/// A set of ports, one bit each.
#[derive(Clone)]
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
    pub(super) devices: DeviceRules,
    /// Its table was scanned: what is found later and not known is drift.
    pub(super) scanned: bool,
    /// Its counters as they were read first: what happened before observer watched it.
    pub(super) at_first: Counters,
    /// Its counters as they were read last, each.
    at_last: Counters,
    /// What was dropped at listeners, and no listener answers for yet.
    pub(super) unsettled: Unsettled,
    /// TIME_WAIT sockets that it got since observer started, less those that connect() took over.
    pub(super) time_wait_entered: i64,
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
        self.readings.unread.remove(&netns);
        self.readings.unread_devices.retain(|(named, _)| *named != netns);
        let known = self.readings.namespaces.entry(netns);
        let is_new = matches!(known, Entry::Vacant(_));
        let known = known.or_default();
        let devices = DeviceRules::new(&reading.devices, reading.tcp_l3mdev_accept == Some(true));
        let has_same_ports = !is_new && known.has_ports_of(&reading) && known.devices.is_same(&devices);
        known.devices = devices;
        let counters = Counters::of(&reading);
        known.at_first = known.at_first.or(counters);
        let before = known.at_last;
        known.at_last = counters.or(before);
        let cookies_before = known.reading.tcp_syncookies;
        known.reading = reading;
        if !is_new {
            self.note_counters(netns, before, counters);
            self.note_listen_counters(netns, before.listen, cookies_before);
        }
        if !has_same_ports {
            self.rebuild_ports(netns);
        }
    }

    /// Namespaces that events or open files have named and nobody has read yet.
    pub fn unread_namespaces(&self) -> impl Iterator<Item = NetnsId> + '_ {
        self.readings.unread.iter().copied()
    }

    /// Whether sockets are bound to devices that nobody has read yet.
    #[must_use]
    pub fn has_unread_devices(&self) -> bool {
        !self.readings.unread_devices.is_empty()
    }

    /// Indexes of the devices that sockets are bound to, by namespace.
    #[must_use]
    pub fn devices_in_use(&self) -> BTreeMap<NetnsId, BTreeSet<u32>> {
        let mut devices: BTreeMap<NetnsId, BTreeSet<u32>> = BTreeMap::new();
        let of_rows = self.ledger.endpoints().iter().map(|(_, row)| (row.key.netns, row.key.device));
        let of_bound = self.bound.iter().map(|(_, bound)| (bound.netns, bound.local.device));
        let of_refused = self.diagnosis.failures.devices();
        for (netns, device) in of_rows.chain(of_bound).chain(of_refused).filter(|(_, device)| !device.is_none()) {
            devices.entry(netns).or_default().insert(device.index());
        }
        devices
    }

    /// Takes note of a device that a socket is bound to.
    pub(super) fn note_device(&mut self, netns: NetnsId, device: Device) {
        let knows = |namespace: &Namespace| namespace.devices.knows(device.index());
        if !device.is_none() && !self.readings.namespaces.get(&netns).is_some_and(knows) {
            self.readings.unread_devices.insert((netns, device.index()));
        }
    }

    /// The device with its name, as far as that is known.
    pub(super) fn named(&self, netns: NetnsId, device: Device) -> Device {
        self.readings.namespaces.get(&netns).map_or(device, |namespace| namespace.devices.named(device))
    }

    /// The namespace is gone, and the kernel has ended what was in it.
    pub fn forget_namespace(&mut self, netns: NetnsId) {
        self.readings.unread.remove(&netns);
        self.readings.unread_devices.retain(|(named, _)| *named != netns);
        let sockets: Vec<SocketId> = self.sockets_of(netns).map(|socket| socket.id).collect();
        for id in sockets {
            self.remove_socket(id);
        }
        for id in self.listeners.of_namespace(netns) {
            self.remove_listener(id);
        }
        self.remove_minisocks(netns, |_| true);
        self.unbind_all(|bound| bound.netns == netns);
        self.ledger.forget(netns);
        self.readings.namespaces.remove(&netns);
        self.diagnosis.bind_before_connect.forget(netns);
    }

    pub(super) fn sockets_of(&self, netns: NetnsId) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(move |socket| self.ledger.endpoints().get(socket.endpoint).key.netns == netns)
    }

    /// Takes note of a namespace that was named.
    pub(super) fn note_namespace(&mut self, netns: NetnsId) {
        if !self.readings.namespaces.contains_key(&netns) {
            self.readings.unread.insert(netns);
        }
    }
}
