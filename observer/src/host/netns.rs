//! The network namespace of the calling thread: its identity, its sysctls, its totals.

use std::{fs, io, os::unix::fs::MetadataExt, time::Duration};

use crate::model::{
    namespace::NamespaceReading,
    units::{NetnsId, PortRange},
};

/// Which namespace the calling thread is in.
pub fn current() -> io::Result<NetnsId> {
    let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(inode).map(NetnsId).map_err(io::Error::other)
}

/// The calling thread's namespace; what cannot be read is `None`.
#[must_use]
pub fn read() -> NamespaceReading {
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let net = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    NamespaceReading {
        name: None,
        port_range: sysctl("ip_local_port_range").and_then(|text| parse_range(&text)),
        reserved: sysctl("ip_local_reserved_ports").map_or_else(Vec::new, |text| parse_ranges(&text)),
        tcp_tw_reuse: sysctl("tcp_tw_reuse").and_then(|text| text.trim().parse().ok()),
        tcp_tw_reuse_delay: sysctl("tcp_tw_reuse_delay")
            .and_then(|text| text.trim().parse().ok())
            .map(Duration::from_millis),
        time_wait: parse_time_wait(&net("sockstat")),
        established_or_close_wait: parse_curr_estab(&net("snmp")),
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

/// `tw` of the line "TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1".
fn parse_time_wait(sockstat: &str) -> Option<u32> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "tw")?;
    words.next()?.parse().ok()
}

/// `CurrEstab` of /proc/net/snmp: one "Tcp:" line with names, one with values.
fn parse_curr_estab(snmp: &str) -> Option<u32> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|name| name == "CurrEstab")?;
    values.split_whitespace().nth(column)?.parse().ok()
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
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1\nUDP: inuse 1 mem 0\n";
        assert_eq!(parse_time_wait(sockstat), Some(2));
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn CurrEstab InSegs\nTcp: 1 -1 42 7\n";
        assert_eq!(parse_curr_estab(snmp), Some(42));
    }
}
