//! Why a system call failed, and what to do, in words: as far as the numbers bear it out.

use super::{Failed, FailureKey, FailureKind, FailureRow};
use crate::model::{
    headroom::PortUse,
    reading::FileUse,
    units::{PortRange, grouped},
};

/// Why, of a system call; `None` for what the kernel refused on its own account.
pub(super) fn of_call(row: &FailureRow) -> Option<String> {
    let FailureKey { kind, call, local, remote, own_range, .. } = row.key;
    let call = call.unwrap_or_default();
    let local = local.map_or_else(String::new, |local| local.to_string());
    let remote = remote.map_or_else(String::new, |remote| remote.to_string());
    Some(match (kind, row.failed) {
        (FailureKind::PortsExhausted, Failed::Ports(ports)) => in_use(ports, own_range, &format!("{local} → {remote}")),
        (FailureKind::PortsExhausted, _) => match own_range {
            None => format!("no free port {local} → {remote}"),
            Some(own) => format!("no free port {local} → {remote} in the socket's own range {}-{}", own.low, own.high),
        },
        (FailureKind::TupleInUse, _) => format!("the four-tuple {local} → {remote} is in use"),
        (FailureKind::NoSourceAddress, Failed::NoIpv6) => {
            format!("no source address towards {remote}: IPv6 is disabled (net.ipv6.conf.*.disable_ipv6)")
        }
        (FailureKind::NoSourceAddress, _) => {
            format!(
                "no source address towards {remote}: this host has none of that family and scope; ports are not the cause"
            )
        }
        (FailureKind::AddressInUse, Failed::PortOwner(port_owner)) => format!("{local} is in use: {port_owner}"),
        (FailureKind::AddressInUse, _) => format!("{local} is in use"),
        (FailureKind::BindPorts, failed) => no_port_to_bind(call, &local, failed, own_range),
        (FailureKind::AddressNotLocal, Failed::NoIpv6) => {
            format!("{local} cannot be bound: IPv6 is disabled (net.ipv6.conf.*.disable_ipv6)")
        }
        (FailureKind::AddressNotLocal, _) if local.starts_with('[') || local.contains("::") => {
            format!("{local} is no address of this host, or still tentative (duplicate address detection)")
        }
        (FailureKind::AddressNotLocal, _) => format!("{local} is no address of this host"),
        (FailureKind::ProcessFds, Failed::Descriptors(_, limit)) => {
            format!("no descriptor below the limit {} is free (ulimit -n)", grouped(limit))
        }
        (FailureKind::ProcessFds, _) => "no descriptor below the limit of the process is free (ulimit -n)".to_owned(),
        (FailureKind::OtherFdLimit, Failed::FreeDescriptor(free, limit)) => format!(
            "not RLIMIT_NOFILE: descriptor {} of {} was free (ulimit -n); {}",
            grouped(free),
            grouped(limit),
            other_limit(call)
        ),
        (FailureKind::OtherFdLimit, _) => format!("RLIMIT_NOFILE, or {}", other_limit(call)),
        (FailureKind::HostFiles, Failed::Files(files)) => host_files(call, files),
        (FailureKind::HostFiles, _) => {
            "fs.file-max, or another limit: the host's open files could not be read".to_owned()
        }
        _ => return None,
    })
}

/// What to do, where that is known.
pub(super) fn remedy(row: &FailureRow) -> Option<&'static str> {
    Some(match row.key.kind {
        FailureKind::BindPorts => {
            "set IP_BIND_ADDRESS_NO_PORT (Linux 4.2) before bind() on sockets that will connect(): connect() then chooses \
             a port that need only be free towards its destination"
        }
        FailureKind::NoSourceAddress | FailureKind::AddressNotLocal if row.failed == Failed::NoIpv6 => {
            "use IPv4, or set net.ipv6.conf.all.disable_ipv6=0"
        }
        _ => return None,
    })
}

fn in_use(ports: PortUse, own_range: Option<PortRange>, tuple: &str) -> String {
    let causes = [(ports.time_wait, "in TIME_WAIT"), (ports.blocked.unwrap_or(0), "blocked by bind()")];
    let causes = causes.into_iter().filter(|(count, _)| *count > 0);
    let causes = causes.map(|(count, what)| format!(", {} {what}", grouped(count.into())));
    let causes = causes.collect::<Vec<_>>().concat();
    // `__inet_hash_connect` rounds an odd number of ports down.
    let passed_over = if ports.left_at_most() == 1 && ports.range % 2 == 1 {
        ", and the one left was passed over, as one is in a range of odd size"
    } else {
        ""
    };
    if ports.range > 0 && ports.range == ports.reserved {
        return all_reserved(ports.range, own_range);
    }
    let (used, usable) = (grouped(ports.in_use().into()), grouped(ports.usable().into()));
    let causes = format!("{causes}{passed_over}");
    match own_range {
        None => format!("{used} of {usable} ports {tuple} in use{causes}"),
        Some(own) => {
            format!(
                "{used} of {usable} ports of the socket's own range {}-{} {tuple} in use{causes}",
                own.low, own.high
            )
        }
    }
}

fn all_reserved(size: u32, own_range: Option<PortRange>) -> String {
    let count = if size == 1 { "the only port".to_owned() } else { format!("all {} ports", grouped(size.into())) };
    let range = own_range.map_or_else(
        || "of net.ipv4.ip_local_port_range".to_owned(),
        |own| format!("of the socket's own range {}-{}", own.low, own.high),
    );
    let verb = if size == 1 { "is" } else { "are" };
    format!("{count} {range} {verb} reserved (net.ipv4.ip_local_reserved_ports)")
}

fn no_port_to_bind(call: &str, local: &str, failed: Failed, own_range: Option<PortRange>) -> String {
    let range = own_range.map_or_else(
        || "ip_local_port_range".to_owned(),
        |own| format!("the socket's own range {}-{}", own.low, own.high),
    );
    let size = own_range.map_or(0, PortRange::size);
    let used = match failed {
        Failed::UsedPorts(_, 0) if size > 0 => {
            format!("{}, and {call}() chooses none of these", all_reserved(size, own_range))
        }
        // `inet_csk_find_open_port` rounds an odd number of ports down, too.
        Failed::UsedPorts(used, usable) if used + 1 == usable && size % 2 == 1 => format!(
            "{} of {} ports of {range} have a socket, and the one left was passed over, as one is in a range of odd size",
            grouped(used.into()),
            grouped(usable.into())
        ),
        Failed::UsedPorts(used, usable) => {
            format!("{} of {} ports of {range} have a socket", grouped(used.into()), grouped(usable.into()))
        }
        _ => format!("of {range}"),
    };
    format!("no port left for {call}() of {local}: {used}, and {call}() needs one that is free for every destination")
}

/// What else gives EMFILE.
fn other_limit(call: &str) -> &'static str {
    match call {
        "inotify_init" | "inotify_init1" => "fs.inotify.max_user_instances allows its user no more inotify instances",
        "fanotify_init" => "fs.fanotify.max_user_groups allows its user no more fanotify groups",
        "fcntl" => "F_DUPFD asked for a descriptor from a number on, and those from there on were open",
        _ => "a limit of its user, or of what was opened",
    }
}

fn host_files(call: &str, files: FileUse) -> String {
    let FileUse { allocated, max } = files;
    let count = format!("{} of {}", grouped(allocated), grouped(max));
    // Counted within a second of the call, and by CPU: near enough is at the limit.
    if u128::from(allocated) * 10 >= u128::from(max) * 9 {
        return format!("{count} open files of the host (fs.file-max)");
    }
    let other = match call {
        "pipe" | "pipe2" => "its user's pipes have all pages that fs.pipe-user-pages-hard allows",
        "socket" | "accept" | "accept4" | "socketpair" => "the kernel had no memory for another socket",
        _ => "another limit of what was opened",
    };
    let count = if files.practical_max().is_some() { count } else { grouped(allocated) };
    format!("not fs.file-max, with {count} open files of the host; {other}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enfile_is_of_file_max_only_where_the_host_is_at_it() {
        let text = |call, allocated, max| host_files(call, FileUse { allocated, max });
        assert_eq!(text("socket", 9_100, 10_000), "9,100 of 10,000 open files of the host (fs.file-max)");
        assert_eq!(
            text("pipe2", 1_200, 10_000),
            "not fs.file-max, with 1,200 of 10,000 open files of the host; its user's pipes have all pages that \
             fs.pipe-user-pages-hard allows"
        );
        assert_eq!(
            text("socket", 1_200, 9_223_372_036_854_775_807),
            "not fs.file-max, with 1,200 open files of the host; the kernel had no memory for another socket"
        );
    }

    #[test]
    fn a_port_that_is_left_in_an_odd_range_is_accounted_for() {
        let ports = |range, used| PortUse { range, blocked: Some(0), used, ..PortUse::default() };
        assert_eq!(in_use(ports(4, 4), None, "a → b"), "4 of 4 ports a → b in use");
        assert_eq!(
            in_use(ports(3, 2), Some(PortRange { low: 40_010, high: 40_012 }), "a → b"),
            "2 of 3 ports of the socket's own range 40010-40012 a → b in use, and the one left was passed over, as one is \
             in a range of odd size"
        );
        assert!(!in_use(ports(4, 3), None, "a → b").contains("passed over"), "an even range has another reason");
    }

    #[test]
    fn a_range_that_is_all_reserved_says_so() {
        let own = Some(PortRange { low: 40_010, high: 40_012 });
        let reserved =
            "all 3 ports of the socket's own range 40010-40012 are reserved (net.ipv4.ip_local_reserved_ports)";
        let ports = PortUse { range: 3, reserved: 3, blocked: Some(0), ..PortUse::default() };
        assert_eq!(in_use(ports, own, "a → b"), reserved);
        assert!(no_port_to_bind("bind", "a", Failed::UsedPorts(0, 0), own).contains(reserved));
    }

    #[test]
    fn bind_skips_one_port_of_an_odd_range() {
        let text = |used, usable, high| {
            let own = Some(PortRange { low: 40_010, high });
            no_port_to_bind("bind", "a", Failed::UsedPorts(used, usable), own)
        };
        assert!(text(2, 3, 40_012).contains("2 of 3 ports"));
        assert!(text(2, 3, 40_012).contains("the one left was passed over"));
        assert!(!text(3, 3, 40_012).contains("passed over"), "none is left");
        assert!(!text(3, 4, 40_013).contains("passed over"), "an even range has another reason");
    }

    #[test]
    fn emfile_names_the_limit_that_the_call_may_have_met() {
        assert!(other_limit("inotify_init1").starts_with("fs.inotify.max_user_instances"));
        assert!(other_limit("fanotify_init").starts_with("fs.fanotify.max_user_groups"));
        assert!(other_limit("fcntl").starts_with("F_DUPFD"));
        assert!(!other_limit("openat").contains("fs."), "nobody knows");
    }
}
