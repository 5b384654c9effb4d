//! Field names, and their offsets for the kernel side.

use observer_ebpf::abi::Offsets;

use super::btf::{Btf, Member};

/// One field that the kernel side reads.
pub struct Wanted {
    /// The kernel structure.
    pub structure: &'static str,
    /// The field, with the path to it.
    pub path: &'static str,
    /// Without it observer cannot identify sockets; the absence of another field switches off one detail.
    pub vital: bool,
    slot: fn(&mut Offsets) -> &mut u16,
}

const fn vital(structure: &'static str, path: &'static str, slot: fn(&mut Offsets) -> &mut u16) -> Wanted {
    Wanted { structure, path, vital: true, slot }
}

const fn detail(structure: &'static str, path: &'static str, slot: fn(&mut Offsets) -> &mut u16) -> Wanted {
    Wanted { structure, path, vital: false, slot }
}

/// Every field that the kernel side reads by offset.
pub const WANTED: &[Wanted] = &[
    vital("sock_common", "skc_family", |o| &mut o.skc_family),
    vital("sock_common", "skc_state", |o| &mut o.skc_state),
    vital("sock_common", "skc_num", |o| &mut o.skc_num),
    vital("sock_common", "skc_dport", |o| &mut o.skc_dport),
    vital("sock_common", "skc_rcv_saddr", |o| &mut o.skc_rcv_saddr),
    vital("sock_common", "skc_daddr", |o| &mut o.skc_daddr),
    detail("sock_common", "skc_v6_rcv_saddr", |o| &mut o.skc_v6_rcv_saddr),
    detail("sock_common", "skc_v6_daddr", |o| &mut o.skc_v6_daddr),
    detail("sock_common", "skc_bound_dev_if", |o| &mut o.skc_bound_dev_if),
    vital("sock_common", "skc_net", |o| &mut o.skc_net),
    vital("net", "ns.inum", |o| &mut o.net_inum),
    vital("sock", "sk_protocol", |o| &mut o.sk_protocol),
    detail("inet_sock", "inet_sport", |o| &mut o.inet_sport),
    detail("sock", "sk_userlocks", |o| &mut o.sk_userlocks),
    detail("sock_common", "skc_flags", |o| &mut o.sk_flags),
    detail("inet_connection_sock", "icsk_bind_hash", |o| &mut o.icsk_bind_hash),
    detail("inet_bind_bucket", "fastreuse", |o| &mut o.fastreuse),
    detail("inet_bind_bucket", "fastreuseport", |o| &mut o.fastreuseport),
    detail("inet_timewait_sock", "tw_substate", |o| &mut o.tw_substate),
    detail("inet_timewait_sock", "tw_tb", |o| &mut o.tw_tb),
    detail("inet_timewait_sock", "tw_connect_bind", |o| &mut o.tw_connect_bind),
    detail("inet_timewait_sock", "tw_entry_stamp", |o| &mut o.tw_entry_stamp),
    detail("tcp_timewait_sock", "tw_ts_recent_stamp", |o| &mut o.tw_ts_recent_stamp),
    detail("tcp_sock", "rx_opt.ts_recent_stamp", |o| &mut o.ts_recent_stamp),
    detail("task_struct", "files", |o| &mut o.task_files),
    detail("task_struct", "tgid", |o| &mut o.task_tgid),
    detail("task_struct", "group_leader", |o| &mut o.task_group_leader),
    detail("task_struct", "comm", |o| &mut o.task_comm),
    detail("task_struct", "thread_pid", |o| &mut o.task_thread_pid),
    detail("pid", "level", |o| &mut o.pid_level),
    detail("pid", "numbers", |o| &mut o.pid_numbers),
    detail("pid_namespace", "ns.inum", |o| &mut o.pidns_inum),
    detail("files_struct", "fdt", |o| &mut o.files_fdt),
    detail("fdtable", "fd", |o| &mut o.fdt_fd),
    detail("file", "private_data", |o| &mut o.file_private_data),
    detail("socket", "file", |o| &mut o.socket_file),
    detail("socket", "sk", |o| &mut o.socket_sk),
    detail("sock", "sk_socket", |o| &mut o.sk_socket),
    detail("socket_alloc", "vfs_inode.i_ino", |o| &mut o.socket_inode),
    detail("mptcp_sock", "first", |o| &mut o.mptcp_first),
    detail("mptcp_sock", "conn_list", |o| &mut o.mptcp_conn_list),
    detail("mptcp_subflow_context", "node", |o| &mut o.subflow_node),
    detail("mptcp_subflow_context", "tcp_sock", |o| &mut o.subflow_tcp_sock),
    detail("tcp_sock", "segs_out", |o| &mut o.segs_out),
    detail("task_struct", "nsproxy", |o| &mut o.task_nsproxy),
    detail("nsproxy", "net_ns", |o| &mut o.nsproxy_net_ns),
    detail("sock", "sk_ack_backlog", |o| &mut o.sk_ack_backlog),
    detail("sock", "sk_max_ack_backlog", |o| &mut o.sk_max_ack_backlog),
    detail("sock", "sk_drops", |o| &mut o.sk_drops),
    detail("inet_connection_sock", "icsk_accept_queue.qlen", |o| &mut o.icsk_syn_queue),
    detail("pt_regs", REGISTERS[0], |o| &mut o.regs_call),
    detail("pt_regs", REGISTERS[1], |o| &mut o.regs_argument_1),
    detail("pt_regs", REGISTERS[2], |o| &mut o.regs_argument_2),
    detail("inet_sock", "local_port_range", |o| &mut o.local_port_range),
    detail("net", "ipv6.devconf_all", |o| &mut o.net_ipv6_all),
    detail("net", "loopback_dev", |o| &mut o.net_loopback),
    detail("net_device", "ip6_ptr", |o| &mut o.dev_ip6),
    detail("inet6_dev", "cnf", |o| &mut o.ip6_conf),
    detail("ipv6_devconf", "disable_ipv6", |o| &mut o.disable_ipv6),
    detail("files_struct", "next_fd", |o| &mut o.files_next_fd),
    detail("fdtable", "max_fds", |o| &mut o.fdt_max_fds),
    detail("fdtable", "open_fds", |o| &mut o.fdt_open_fds),
    detail("task_struct", "signal", |o| &mut o.task_signal),
    detail("signal_struct", "rlim", |o| &mut o.signal_rlim),
    detail("sock", "sk_cgrp_data", |o| &mut o.sk_cgroup_val),
    detail("cgroup", "kn", |o| &mut o.cgroup_kn),
    detail("kernfs_node", "id", |o| &mut o.kn_id),
];

/// The registers of a system call's number and first two arguments.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [&str; 3] = ["orig_ax", "di", "si"];
/// As on x86-64. The first argument's register is also the result's, and the second follows it.
#[cfg(target_arch = "aarch64")]
const REGISTERS: [&str; 3] = ["syscallno", "orig_x0", "regs"];

/// Looks every wanted field up; what this kernel lacks stays [`Offsets::ABSENT`].
#[must_use]
pub fn resolve(btf: &Btf) -> Offsets {
    let mut offsets = Offsets::UNKNOWN;
    for wanted in WANTED {
        *(wanted.slot)(&mut offsets) = byte_offset(btf.member(wanted.structure, wanted.path));
    }
    if let Some(locks) = btf.member("sock", "sk_userlocks") {
        offsets.sk_userlocks_shift = u16::try_from(locks.bit_shift).unwrap_or(Offsets::ABSENT);
    }
    offsets.sk_cgroup = byte_offset(btf.member("sock", "sk_cgrp_data.cgroup"));
    if let Some(bound) = btf.member("inet_timewait_sock", "tw_connect_bind") {
        offsets.tw_connect_bind_shift = u16::try_from(bound.bit_shift).unwrap_or(Offsets::ABSENT);
    }
    if cfg!(target_arch = "aarch64") && offsets.regs_argument_2 != Offsets::ABSENT {
        offsets.regs_argument_2 += 8;
    }
    offsets
}

/// The offset of one wanted field, or `None` where this kernel has no such field.
#[must_use]
pub fn found(wanted: &Wanted, mut offsets: Offsets) -> Option<u16> {
    Some(*(wanted.slot)(&mut offsets)).filter(|offset| *offset != Offsets::ABSENT)
}

/// The vital fields that are absent.
pub fn missing_vital(offsets: Offsets) -> impl Iterator<Item = &'static Wanted> {
    WANTED.iter().filter(move |wanted| wanted.vital && found(wanted, offsets).is_none())
}

fn byte_offset(member: Option<Member>) -> u16 {
    member.and_then(|member| u16::try_from(member.byte_offset).ok()).unwrap_or(Offsets::ABSENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        let btf = Btf::parse(crate::host::text::bytes("/sys/kernel/btf/vmlinux").expect("a kernel with BTF")).unwrap();
        let offsets = resolve(&btf);
        // What came with 6.3, 6.14 and 6.18; without it the older rules hold.
        let newer = ["local_port_range", "tw_entry_stamp", "tw_connect_bind"];
        let absent = WANTED.iter().filter(|w| found(w, offsets).is_none()).map(|w| w.path);
        assert_eq!(absent.filter(|path| !newer.contains(path)).collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(offsets.sk_userlocks_shift < 8);
        assert!([Offsets::ABSENT, offsets.sk_cgroup_val].contains(&offsets.sk_cgroup), "both are at its start");
    }

    #[test]
    fn nothing_known_misses_all_that_is_vital() {
        let missing: Vec<_> = missing_vital(Offsets::UNKNOWN).map(|wanted| wanted.path).collect();
        assert!(missing.contains(&"skc_daddr") && missing.contains(&"ns.inum"), "{missing:?}");
        assert!(!missing.contains(&"tw_tb"));
    }
}
