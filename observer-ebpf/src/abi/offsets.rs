//! Where the running kernel keeps the fields that the programs read.
//!
//! rustc emits no CO-RE relocations, so user space looks the offsets up in `/sys/kernel/btf/vmlinux` at start and hands
//! them down as the read-only global `OFFSETS`.

/// Byte offsets within the named kernel structures; [`Offsets::ABSENT`] where this kernel has no such field.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Offsets {
    /// `sock_common.skc_family`
    pub skc_family: u16,
    /// `sock_common.skc_state`
    pub skc_state: u16,
    /// `sock_common.skc_num`: local port, host order
    pub skc_num: u16,
    /// `sock_common.skc_dport`: remote port, network order
    pub skc_dport: u16,
    /// `sock_common.skc_rcv_saddr`: local IPv4 address
    pub skc_rcv_saddr: u16,
    /// `sock_common.skc_daddr`: remote IPv4 address
    pub skc_daddr: u16,
    /// `sock_common.skc_v6_rcv_saddr`
    pub skc_v6_rcv_saddr: u16,
    /// `sock_common.skc_v6_daddr`
    pub skc_v6_daddr: u16,
    /// `sock_common.skc_bound_dev_if`: index of the interface that the socket is bound to
    pub skc_bound_dev_if: u16,
    /// `sock_common.skc_net` (a pointer to `struct net`)
    pub skc_net: u16,
    /// `net.ns.inum`
    pub net_inum: u16,
    /// `sock.sk_protocol`
    pub sk_protocol: u16,
    /// `inet_sock.inet_sport`: local port in network order; survives the release of the port
    pub inet_sport: u16,
    /// `sock.sk_userlocks`, a bit field: the byte it is in
    pub sk_userlocks: u16,
    /// `sock.sk_userlocks`: how far to shift that byte right
    pub sk_userlocks_shift: u16,
    /// `sock_common.skc_flags` (sk_flags): a bit for each `enum sock_flags`
    pub sk_flags: u16,
    /// `inet_connection_sock.icsk_bind_hash`
    pub icsk_bind_hash: u16,
    /// `inet_bind_bucket.fastreuse`
    pub fastreuse: u16,
    /// `inet_bind_bucket.fastreuseport`
    pub fastreuseport: u16,
    /// `inet_timewait_sock.tw_substate`
    pub tw_substate: u16,
    /// `inet_timewait_sock.tw_tb` (a pointer to the bind bucket)
    pub tw_tb: u16,
    /// `inet_timewait_sock.tw_connect_bind`, a bit field since 6.18: the byte it is in. Where it exists, full sockets have
    /// `SOCK_CONNECT_BIND` among their `sk_userlocks`
    pub tw_connect_bind: u16,
    /// `inet_timewait_sock.tw_connect_bind`: how far to shift that byte right
    pub tw_connect_bind_shift: u16,
    /// `inet_timewait_sock.tw_entry_stamp`: the beginning in milliseconds of `CLOCK_MONOTONIC`, since 6.14
    pub tw_entry_stamp: u16,
    /// `tcp_timewait_sock.tw_ts_recent_stamp`: the peer's last timestamp, in seconds of `CLOCK_MONOTONIC`; 0 without any
    pub tw_ts_recent_stamp: u16,
    /// `tcp_sock.rx_opt.ts_recent_stamp`: the same of a full socket
    pub ts_recent_stamp: u16,
    /// `task_struct.files`
    pub task_files: u16,
    /// `task_struct.tgid`
    pub task_tgid: u16,
    /// `task_struct.group_leader`
    pub task_group_leader: u16,
    /// `task_struct.comm`
    pub task_comm: u16,
    /// `task_struct.thread_pid`
    pub task_thread_pid: u16,
    /// `pid.level`: the depth of the innermost pid namespace that the task is in, 0 for the initial one
    pub pid_level: u16,
    /// `pid.numbers`: an `upid` for each level
    pub pid_numbers: u16,
    /// `pid_namespace.ns.inum`
    pub pidns_inum: u16,
    /// `files_struct.fdt`
    pub files_fdt: u16,
    /// `fdtable.fd`
    pub fdt_fd: u16,
    /// `file.private_data`
    pub file_private_data: u16,
    /// `socket.file`: the file that leads to it
    pub socket_file: u16,
    /// `socket.sk`
    pub socket_sk: u16,
    /// `sock.sk_socket`
    pub sk_socket: u16,
    /// `socket_alloc.vfs_inode.i_ino`; the `socket` is at the start of `socket_alloc`
    pub socket_inode: u16,
    /// `mptcp_sock.first`
    pub mptcp_first: u16,
    /// `mptcp_sock.conn_list`: the list of subflows
    pub mptcp_conn_list: u16,
    /// `mptcp_subflow_context.node`: its place in that list
    pub subflow_node: u16,
    /// `mptcp_subflow_context.tcp_sock`
    pub subflow_tcp_sock: u16,
    /// `tcp_sock.segs_out`: segments sent, 0 before the SYN
    pub segs_out: u16,
    /// `task_struct.nsproxy`
    pub task_nsproxy: u16,
    /// `nsproxy.net_ns` (a pointer to `struct net`)
    pub nsproxy_net_ns: u16,
    /// `sock.sk_ack_backlog`: connections that wait for accept()
    pub sk_ack_backlog: u16,
    /// `sock.sk_max_ack_backlog`: how many may
    pub sk_max_ack_backlog: u16,
    /// `sock.sk_drops`
    pub sk_drops: u16,
    /// `inet_connection_sock.icsk_accept_queue.qlen`: handshakes in progress
    pub icsk_syn_queue: u16,
    /// `pt_regs`: the number of a system call
    pub regs_call: u16,
    /// `pt_regs`: its first argument
    pub regs_argument_1: u16,
    /// `pt_regs`: its second argument
    pub regs_argument_2: u16,
    /// `inet_sock.local_port_range` (`IP_LOCAL_PORT_RANGE`), since 6.3
    pub local_port_range: u16,
    /// `net.ipv6.devconf_all`
    pub net_ipv6_all: u16,
    /// `net.loopback_dev`
    pub net_loopback: u16,
    /// `net_device.ip6_ptr` (a pointer to `struct inet6_dev`)
    pub dev_ip6: u16,
    /// `inet6_dev.cnf` (a `struct ipv6_devconf` within)
    pub ip6_conf: u16,
    /// `ipv6_devconf.disable_ipv6`
    pub disable_ipv6: u16,
    /// `files_struct.next_fd`: all descriptors below are open
    pub files_next_fd: u16,
    /// `fdtable.max_fds`
    pub fdt_max_fds: u16,
    /// `fdtable.open_fds` (a pointer to a bit for each descriptor)
    pub fdt_open_fds: u16,
    /// `task_struct.signal`
    pub task_signal: u16,
    /// `signal_struct.rlim` (an array of `struct rlimit`)
    pub signal_rlim: u16,
    /// `sock.sk_cgrp_data.cgroup` (a pointer to `struct cgroup`), since 5.15 and in the last 5.10.y
    pub sk_cgroup: u16,
    /// `sock.sk_cgrp_data`. Before 5.15 it starts with `val`: the same pointer, or other data where one of the two lowest bits
    /// is set
    pub sk_cgroup_val: u16,
    /// `cgroup.kn` (a pointer to `struct kernfs_node`)
    pub cgroup_kn: u16,
    /// `kernfs_node.id`: the inode number of the cgroup's directory
    pub kn_id: u16,
}

impl Offsets {
    /// This kernel has no such field.
    pub const ABSENT: u16 = u16::MAX;

    /// Nothing known yet: the value before user space filled it in.
    pub const UNKNOWN: Self = Self {
        skc_family: Self::ABSENT,
        skc_state: Self::ABSENT,
        skc_num: Self::ABSENT,
        skc_dport: Self::ABSENT,
        skc_rcv_saddr: Self::ABSENT,
        skc_daddr: Self::ABSENT,
        skc_v6_rcv_saddr: Self::ABSENT,
        skc_v6_daddr: Self::ABSENT,
        skc_bound_dev_if: Self::ABSENT,
        skc_net: Self::ABSENT,
        net_inum: Self::ABSENT,
        sk_protocol: Self::ABSENT,
        inet_sport: Self::ABSENT,
        sk_userlocks: Self::ABSENT,
        sk_userlocks_shift: Self::ABSENT,
        sk_flags: Self::ABSENT,
        icsk_bind_hash: Self::ABSENT,
        fastreuse: Self::ABSENT,
        fastreuseport: Self::ABSENT,
        tw_substate: Self::ABSENT,
        tw_tb: Self::ABSENT,
        tw_connect_bind: Self::ABSENT,
        tw_connect_bind_shift: Self::ABSENT,
        tw_entry_stamp: Self::ABSENT,
        tw_ts_recent_stamp: Self::ABSENT,
        ts_recent_stamp: Self::ABSENT,
        task_files: Self::ABSENT,
        task_tgid: Self::ABSENT,
        task_group_leader: Self::ABSENT,
        task_comm: Self::ABSENT,
        task_thread_pid: Self::ABSENT,
        pid_level: Self::ABSENT,
        pid_numbers: Self::ABSENT,
        pidns_inum: Self::ABSENT,
        files_fdt: Self::ABSENT,
        fdt_fd: Self::ABSENT,
        file_private_data: Self::ABSENT,
        socket_file: Self::ABSENT,
        socket_sk: Self::ABSENT,
        sk_socket: Self::ABSENT,
        socket_inode: Self::ABSENT,
        mptcp_first: Self::ABSENT,
        mptcp_conn_list: Self::ABSENT,
        subflow_node: Self::ABSENT,
        subflow_tcp_sock: Self::ABSENT,
        segs_out: Self::ABSENT,
        task_nsproxy: Self::ABSENT,
        nsproxy_net_ns: Self::ABSENT,
        sk_ack_backlog: Self::ABSENT,
        sk_max_ack_backlog: Self::ABSENT,
        sk_drops: Self::ABSENT,
        icsk_syn_queue: Self::ABSENT,
        regs_call: Self::ABSENT,
        regs_argument_1: Self::ABSENT,
        regs_argument_2: Self::ABSENT,
        local_port_range: Self::ABSENT,
        net_ipv6_all: Self::ABSENT,
        net_loopback: Self::ABSENT,
        dev_ip6: Self::ABSENT,
        ip6_conf: Self::ABSENT,
        disable_ipv6: Self::ABSENT,
        files_next_fd: Self::ABSENT,
        fdt_max_fds: Self::ABSENT,
        fdt_open_fds: Self::ABSENT,
        task_signal: Self::ABSENT,
        signal_rlim: Self::ABSENT,
        sk_cgroup: Self::ABSENT,
        sk_cgroup_val: Self::ABSENT,
        cgroup_kn: Self::ABSENT,
        kn_id: Self::ABSENT,
    };
}

const _: () = assert!(size_of::<Offsets>() == 70 * 2);
