//! Counters of a network namespace: /proc/net/snmp and /proc/net/netstat have one line with names and one with values
//! for each group, /proc/net/sockstat has names and values in turn.

/// The counter `name` of `group` in /proc/net/snmp or /proc/net/netstat.
pub(crate) fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|other| other == name)?;
    values.split_whitespace().nth(column)?.parse().ok()
}

/// The number after `name` on the line of `protocol` in /proc/net/sockstat: "TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1".
pub(super) fn sockstat(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_counter_by_its_name() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn CurrEstab InSegs\nTcp: 1 -1 42 7\n";
        assert_eq!(counter(snmp, "Tcp", "CurrEstab"), Some(42));
        assert_eq!(counter(snmp, "Tcp", "NoSuchName"), None);
        assert_eq!(counter(snmp, "TcpExt", "CurrEstab"), None);
    }

    #[test]
    fn finds_a_number_of_sockstat() {
        let text = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1\nUDP: inuse 1 mem 3\n";
        assert_eq!(["inuse", "tw", "mem"].map(|name| sockstat(text, "TCP", name)), [Some(5), Some(2), Some(1)]);
        assert_eq!(sockstat(text, "UDP", "tw"), None);
    }
}
