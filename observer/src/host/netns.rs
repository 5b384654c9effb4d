//! The network namespace of the calling thread: its identity, its sysctls, its totals.

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, time::Duration};

use super::{conntrack, devices, mib, text::Reads};
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

/// What was read of a namespace, and what was not.
#[derive(Debug, Default)]
pub struct Reading {
    /// What was read; without its name.
    pub namespace: NamespaceReading,
    /// Files that are there and could not be read.
    pub unread: Gap,
    /// Descriptors or memory were short: what is missing says nothing of the namespace.
    pub scarcity: Option<Refusal>,
}

/// The calling thread's namespace, with those of its devices that have these indexes; what cannot be read is `None`, and
/// counted.
#[must_use]
pub fn read(device_indexes: &BTreeSet<u32>) -> Reading {
    let files = Reads::default();
    let namespace = read_with(&files, device_indexes);
    Reading { namespace, unread: files.gap(), scarcity: files.scarcity() }
}

fn read_with(files: &Reads, device_indexes: &BTreeSet<u32>) -> NamespaceReading {
    let sysctl = |name: &str| files.optional(format!("/proc/sys/net/ipv4/{name}"));
    let number = |name: &str| sysctl(name).and_then(|text| text.trim().parse().ok());
    let net = |name: &str| files.required(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let (sockstat, netstat) = (net("sockstat"), net("netstat"));
    let tcp_ext = |name: &str| mib::counter(&netstat, "TcpExt", name);
    let narrow = |number: u64| u32::try_from(number).ok();
    let of_sockets = |name: &str| mib::sockstat(&sockstat, "TCP", name);
    NamespaceReading {
        name: NamespaceName::Unknown,
        port_range: files.required("/proc/sys/net/ipv4/ip_local_port_range").and_then(|text| parse_range(&text)),
        reserved: sysctl("ip_local_reserved_ports").map_or_else(Vec::new, |text| parse_ranges(&text)),
        tcp_tw_reuse: sysctl("tcp_tw_reuse").and_then(|text| text.trim().parse().ok()),
        tcp_tw_reuse_delay: sysctl("tcp_tw_reuse_delay")
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_millis),
        time_wait: of_sockets("tw").and_then(narrow),
        established_or_close_wait: mib::counter(&net("snmp"), "Tcp", "CurrEstab").and_then(narrow),
        somaxconn: files.optional("/proc/sys/net/core/somaxconn").and_then(|text| text.trim().parse().ok()),
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
        conntrack: conntrack::read(files),
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
fn parse_range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (low, high) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (low <= high).then_some(PortRange { low, high })
}

/// `net.ipv4.ip_local_reserved_ports`: "8080,9000-9100", or nothing.
fn parse_ranges(text: &str) -> Vec<PortRange> {
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
