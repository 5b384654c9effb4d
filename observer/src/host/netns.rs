//! The network namespace of the calling thread: its identity, its sysctls, its totals.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{
    conntrack, devices, mib,
    text::{self, Folder, Procfs, Reads},
};
use crate::errno::Refusal;
use crate::model::{
    gaps::Gap,
    namespace::{ListenCounters, NamespaceName, NamespaceReading, Shared},
    units::{NetnsId, PortRange},
};

/// Which namespace the calling thread is in.
pub fn current() -> io::Result<NetnsId> {
    let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(inode).map(NetnsId).map_err(io::Error::other)
}

/// Whether the calling thread is in the host's own namespace: only that one has limits of the whole host.
#[must_use]
pub fn is_of_host() -> bool {
    text::bytes("/proc/sys/net/ipv4/tcp_max_orphans").is_ok()
}

/// What distinguishes a namespace from a later one of the same inode number: the kernel gives the lowest free number to the
/// next namespace (`proc_alloc_inum`). What could not be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `SO_NETNS_COOKIE`, which the kernel gives once in a boot; kernels before 5.14 do not show it.
    pub cookie: Option<u64>,
    /// What TCP has counted in it (/proc/net/snmp); it never falls.
    pub traffic: Option<u64>,
}

impl Identity {
    /// Whether this is read of another namespace than `earlier`.
    #[must_use]
    pub fn is_another(self, earlier: Self) -> bool {
        match (self.cookie, earlier.cookie) {
            (Some(cookie), Some(before)) => cookie != before,
            _ => self.traffic.zip(earlier.traffic).is_some_and(|(traffic, before)| traffic < before),
        }
    }

    /// This, or where it could not be read what `earlier` had.
    #[must_use]
    pub fn or(self, earlier: Self) -> Self {
        Self { cookie: self.cookie.or(earlier.cookie), traffic: self.traffic.or(earlier.traffic) }
    }
}

/// The cookie of the calling thread's namespace; `None` before Linux 5.14, and while descriptors are short.
#[must_use]
pub fn cookie() -> Option<u64> {
    // The cheapest socket that belongs to a namespace.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(cookie)
}

/// The kernel's own counts of a namespace's sockets (/proc/net/sockstat and sockstat6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// TCP sockets in the kernel's tables, listeners included and TIME_WAIT and request sockets not: `inuse` of TCP and TCP6.
    pub hashed: u64,
    /// TIME_WAIT sockets, and FIN_WAIT2 ones without a full socket: `tw`.
    pub time_wait: u64,
    /// Sockets of every family that exist, closed ones that something still refers to among them: `used`. Those of the kernel
    /// itself do not count.
    pub allocated: u64,
    /// Which namespace it was.
    pub identity: Identity,
}

/// The counts of the calling thread's namespace.
pub fn totals() -> io::Result<Totals> {
    let sockstat = text::string("/proc/thread-self/net/sockstat")?;
    // It is absent where the kernel has no IPv6.
    let sockstat6 = match text::string("/proc/thread-self/net/sockstat6") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read?),
    };
    let number = |text: &str, protocol: &str, name: &str| {
        mib::sockstat(text, protocol, name).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    Ok(Totals {
        hashed: number(&sockstat, "TCP", "inuse")?
            + sockstat6.map_or(Ok(0), |sockstat6| number(&sockstat6, "TCP6", "inuse"))?,
        time_wait: number(&sockstat, "TCP", "tw")?,
        allocated: number(&sockstat, "sockets", "used")?,
        // Last: it makes a socket.
        identity: Identity { cookie: cookie(), traffic: None },
    })
}

/// What was read of a namespace, and what was not.
#[derive(Debug, Default)]
pub struct Reading {
    /// What was read; without its name.
    pub namespace: NamespaceReading,
    /// Which namespace it was.
    pub identity: Identity,
    /// Files that are there and could not be read.
    pub unread: Gap,
    /// Descriptors or memory were short: what is missing says nothing of the namespace.
    pub scarcity: Option<Refusal>,
}

/// The calling thread's namespace, with those of its devices that have these indexes; what cannot be read is `None`, and
/// counted.
#[must_use]
pub fn read(device_indexes: &BTreeSet<u32>) -> Reading {
    read_in(&Procfs::SHARED, device_indexes)
}

/// The same, with its sysctls from this mount of procfs.
#[must_use]
pub fn read_in(procfs: &Procfs, device_indexes: &BTreeSet<u32>) -> Reading {
    let files = Reads::default();
    let snmp = files.required("/proc/thread-self/net/snmp").unwrap_or_default();
    let namespace = read_with(&files, &snmp, procfs, device_indexes);
    let identity = Identity { cookie: cookie(), traffic: traffic(&snmp) };
    Reading { namespace, identity, unread: files.gap(), scarcity: files.scarcity() }
}

/// What TCP has counted in a namespace.
fn traffic(snmp: &str) -> Option<u64> {
    let counters = ["ActiveOpens", "PassiveOpens", "AttemptFails", "InSegs", "OutSegs"];
    counters.into_iter().map(|name| mib::counter(snmp, "Tcp", name)).sum()
}

fn read_with(files: &Reads, snmp: &str, procfs: &Procfs, device_indexes: &BTreeSet<u32>) -> NamespaceReading {
    let sysctls = Folder::of_sysctls(procfs);
    let sysctl = |name: &str| files.optional_in(&sysctls, &format!("ipv4/{name}"));
    let number = |name: &str| sysctl(name).and_then(|text| text.trim().parse().ok());
    let net = |name: &str| files.required(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let (sockstat, netstat) = (net("sockstat"), net("netstat"));
    let tcp_ext = |name: &str| mib::counter(&netstat, "TcpExt", name);
    let narrow = |number: u64| u32::try_from(number).ok();
    let of_sockets = |name: &str| mib::sockstat(&sockstat, "TCP", name);
    NamespaceReading {
        name: NamespaceName::Unknown,
        port_range: files.required_in(&sysctls, "ipv4/ip_local_port_range").and_then(|text| parse_range(&text)),
        reserved: sysctl("ip_local_reserved_ports").map_or_else(Vec::new, |text| parse_ranges(&text)),
        tcp_tw_reuse: sysctl("tcp_tw_reuse").and_then(|text| text.trim().parse().ok()),
        tcp_tw_reuse_delay: sysctl("tcp_tw_reuse_delay")
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_millis),
        time_wait: of_sockets("tw").and_then(narrow),
        established_or_close_wait: mib::counter(snmp, "Tcp", "CurrEstab").and_then(narrow),
        somaxconn: files.optional_in(&sysctls, "core/somaxconn").and_then(|text| text.trim().parse().ok()),
        tcp_max_tw_buckets: number("tcp_max_tw_buckets"),
        time_wait_overflows: tcp_ext("TCPTimeWaitOverflow"),
        aborts_on_memory: tcp_ext("TCPAbortOnMemory"),
        tcp_timestamps: number("tcp_timestamps").and_then(|number| u8::try_from(number).ok()),
        tcp_syncookies: number("tcp_syncookies").and_then(|number| u8::try_from(number).ok()),
        tcp_max_syn_backlog: number("tcp_max_syn_backlog").and_then(narrow),
        listen: ListenCounters {
            overflows: tcp_ext("ListenOverflows"),
            drops: tcp_ext("ListenDrops"),
            syn_queue_drops: tcp_ext("TCPReqQFullDrop"),
            syn_cookies: tcp_ext("TCPReqQFullDoCookies"),
        },
        conntrack: conntrack::read(files, &sysctls),
        shared: Shared {
            orphans: of_sockets("orphan"),
            allocated: of_sockets("alloc"),
            memory_pages: of_sockets("mem"),
            tcp_max_orphans: number("tcp_max_orphans"),
            tcp_mem_max_pages: sysctl("tcp_mem").and_then(|text| text.split_whitespace().nth(2)?.parse().ok()),
        },
        devices: devices::read(device_indexes.iter().copied()),
        tcp_l3mdev_accept: number("tcp_l3mdev_accept").map(|accept| accept != 0),
        port_step_width: number("ip_local_port_step_width").and_then(narrow),
    }
}

/// `net.ipv4.ip_local_port_range`: "32768\t60999".
pub(super) fn parse_range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (low, high) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (low <= high).then_some(PortRange { low, high })
}

/// `net.ipv4.ip_local_reserved_ports`: "8080,9000-9100", or nothing.
pub(super) fn parse_ranges(text: &str) -> Vec<PortRange> {
    text.trim()
        .split(',')
        .filter_map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some(PortRange { low: low.parse().ok()?, high: high.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_is_known_by_its_cookie_and_without_one_by_counters_that_fell() {
        let identity = |cookie, traffic| Identity { cookie, traffic };
        for (before, now, is_another) in [
            ((Some(7), Some(100)), (Some(7), Some(100)), false),
            ((Some(7), Some(0)), (Some(8), Some(0)), true),
            // Who can read the cookie needs nothing else.
            ((Some(7), Some(100)), (Some(7), Some(99)), false),
            ((None, Some(100)), (None, Some(100)), false),
            ((None, Some(100)), (None, Some(99)), true),
            ((Some(7), None), (None, Some(0)), false),
            ((None, None), (Some(7), Some(9)), false),
        ] {
            let (before, now) = (identity(before.0, before.1), identity(now.0, now.1));
            assert_eq!(now.is_another(before), is_another, "{before:?} {now:?}");
        }
        assert_eq!(identity(None, Some(3)).or(identity(Some(7), Some(1))), identity(Some(7), Some(3)));
    }

    #[test]
    fn parses_what_the_kernel_writes() {
        assert_eq!(parse_range("32768\t60999\n"), Some(PortRange { low: 32768, high: 60999 }));
        assert_eq!(parse_range("nonsense"), None);
        assert_eq!(parse_ranges("\n"), []);
        assert_eq!(
            parse_ranges("8080,9000-9100\n"),
            [PortRange { low: 8080, high: 8080 }, PortRange { low: 9000, high: 9100 }]
        );
    }
}
