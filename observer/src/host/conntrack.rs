//! Connection tracking of the calling thread's namespace, where this kernel has it.

use super::text::Reads;
use crate::model::namespace::Conntrack;

/// `None` where the kernel tracks no connections, or nf_conntrack is not loaded.
#[must_use]
pub fn read(files: &Reads) -> Option<Conntrack> {
    let sysctl =
        |name: &str| -> Option<u64> { files.optional(format!("/proc/sys/net/netfilter/{name}"))?.trim().parse().ok() };
    let statistics = files.optional("/proc/thread-self/net/stat/nf_conntrack");
    Some(Conntrack {
        count: sysctl("nf_conntrack_count")?,
        max: sysctl("nf_conntrack_max")?,
        dropped: statistics.and_then(|text| parse_dropped(&text)),
    })
}

/// `drop` and `early_drop` of /proc/net/stat/nf_conntrack: a line with names, then one a CPU, in hexadecimal.
fn parse_dropped(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let columns = ["drop", "early_drop"].map(|name| names.iter().position(|other| *other == name));
    let mut dropped = 0;
    for line in lines {
        let values: Vec<&str> = line.split_whitespace().collect();
        for column in columns {
            dropped += u64::from_str_radix(values.get(column?)?, 16).ok()?;
        }
    }
    Some(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_all_cpus_dropped() {
        let text = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop \
            icmp_error  expect_new expect_create expect_delete search_restart\n\
            00000004  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000000a \
            00000001 00000000  00000000 00000000 00000000 00000000\n\
            00000004  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000010 \
            00000000 00000000  00000000 00000000 00000000 00000000\n";
        assert_eq!(parse_dropped(text), Some(27));
        assert_eq!(parse_dropped("entries found\n00000004 00000000\n"), None);
    }
}
