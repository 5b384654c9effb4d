//! Connection tracking of the calling thread's namespace, where this kernel has it.

use std::time::Duration;

use super::text::{Folder, Reads};
use crate::model::namespace::{Conntrack, ConntrackCounters};

/// `None` where the kernel tracks no connections, or nf_conntrack is not loaded. `sysctls` are those of `net`.
#[must_use]
pub fn read(files: &Reads, sysctls: &Folder) -> Option<Conntrack> {
    let sysctl =
        |name: &str| -> Option<u64> { files.optional_in(sysctls, &format!("netfilter/{name}"))?.trim().parse().ok() };
    let statistics = files.optional("/proc/thread-self/net/stat/nf_conntrack");
    Some(Conntrack {
        count: sysctl("nf_conntrack_count")?,
        max: sysctl("nf_conntrack_max")?,
        closed_timeout: sysctl("nf_conntrack_tcp_timeout_time_wait").map(Duration::from_secs),
        counters: statistics.and_then(|text| parse(&text)),
    })
}

/// /proc/net/stat/nf_conntrack: a line with names, then one a CPU, in hexadecimal.
pub(super) fn parse(text: &str) -> Option<ConntrackCounters> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let columns = ["insert_failed", "drop", "early_drop"].map(|name| names.iter().position(|other| *other == name));
    let mut sums = [0; 3];
    for line in lines {
        let values: Vec<&str> = line.split_whitespace().collect();
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = u64::from_str_radix(values.get(column?)?, 16).ok()?.checked_add(*sum)?;
        }
    }
    let [insert_failed, drop, early_drop] = sums;
    Some(ConntrackCounters { insert_failed, drop, early_drop })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_each_counter_over_all_cpus() {
        let text = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop \
            icmp_error  expect_new expect_create expect_delete search_restart\n\
            00000004  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000002 0000000a \
            00000001 00000000  00000000 00000000 00000000 00000000\n\
            00000004  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000010 \
            00000000 00000000  00000000 00000000 00000000 00000000\n";
        let counters = parse(text).unwrap();
        assert_eq!(counters, ConntrackCounters { insert_failed: 2, drop: 26, early_drop: 1 });
        assert_eq!(counters.dropped_when_full(), 24, "a lost clash counts as a drop too");
        assert_eq!(parse("entries found\n00000004 00000000\n"), None);
    }
}
