//! What is known of each kind of limit, whatever its numbers.

use super::LimitKind;

/// Where a kind of limit comes from, and what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The kind.
    pub kind: LimitKind,
    /// Its id, in snake case.
    pub id: &'static str,
    /// Words for people.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Where its numbers come from: sysctls, files, fields of the kernel.
    pub source: &'static str,
    /// The kernel function that refuses, and what a process gets to see of it.
    pub refusal: &'static str,
    /// How to raise it.
    pub remedy: &'static str,
    /// What raising it risks.
    pub risk: &'static str,
}

impl About {
    /// The knowledge of one kind.
    #[must_use]
    pub const fn of(kind: LimitKind) -> &'static Self {
        &ABOUT[kind as usize]
    }
}

const ABOUT: [About; LimitKind::ALL.len()] = [
    About {
        kind: LimitKind::Ports,
        id: "ports",
        name: "ports",
        unit: "ports",
        source: "net.ipv4.ip_local_port_range less ip_local_reserved_ports",
        refusal: "__inet_hash_connect(): connect() fails with EADDRNOTAVAIL",
        remedy: "widen net.ipv4.ip_local_port_range, add a local ip or a destination address, or keep connections open",
        risk: "a wider range takes in ports that services listen on: reserve these in ip_local_reserved_ports",
    },
    About {
        kind: LimitKind::ProcessFiles,
        id: "process_files",
        name: "file descriptors",
        unit: "descriptors",
        source: "the soft RLIMIT_NOFILE (ulimit -n, /proc/PID/limits), at most fs.nr_open",
        refusal: "alloc_fd(): accept(), socket() and open() fail with EMFILE",
        remedy: "LimitNOFILE= of its unit, or prlimit --pid PID --nofile=SOFT:HARD while it runs",
        risk: "a leak of descriptors is found later; select() breaks above 1,024",
    },
    About {
        kind: LimitKind::HostFiles,
        id: "host_files",
        name: "open files",
        unit: "files",
        source: "fs.file-max, /proc/sys/fs/file-nr",
        refusal: "alloc_empty_file(): ENFILE, but not for CAP_SYS_ADMIN",
        remedy: "sysctl fs.file-max",
        risk: "each open file takes kernel memory that cannot be swapped out",
    },
    About {
        kind: LimitKind::AcceptQueue,
        id: "accept_queue",
        name: "accept queue",
        unit: "connections",
        source: "sk_ack_backlog of sk_max_ack_backlog + 1: listen()'s backlog, at most net.core.somaxconn",
        refusal: "tcp_conn_request(), tcp_v4_syn_recv_sock(): SYNs and final ACKs are dropped (ListenOverflows), clients retry",
        remedy: "call accept() faster; or a larger backlog in listen(), and net.core.somaxconn where it is below that",
        risk: "connections wait longer, some beyond their client's patience",
    },
    About {
        kind: LimitKind::SynQueue,
        id: "syn_queue",
        name: "SYN queue",
        unit: "handshakes",
        source: "icsk_accept_queue.qlen of sk_max_ack_backlog + 1; with tcp_syncookies=0 also tcp_max_syn_backlog",
        refusal: "tcp_conn_request(): SYN cookies (TCPReqQFullDoCookies), with tcp_syncookies=0 dropped SYNs (TCPReqQFullDrop, ListenDrops)",
        remedy: "as the accept queue; keep net.ipv4.tcp_syncookies=1",
        risk: "a SYN flood takes more memory (some 300 bytes a request) before cookies stop it",
    },
    About {
        kind: LimitKind::Conntrack,
        id: "conntrack",
        name: "conntrack",
        unit: "connections",
        source: "net.netfilter.nf_conntrack_count of the namespace; nf_conntrack_max, one number for all of them",
        refusal: "__nf_conntrack_alloc(): old entries are evicted (early_drop), else packets of new connections dropped (drop)",
        remedy: "sysctl net.netfilter.nf_conntrack_max, shorter nf_conntrack_tcp_timeout_*, or NOTRACK for this traffic",
        risk: "some 300 bytes an entry; raise nf_conntrack_buckets along with it, or look-ups become slow",
    },
    About {
        kind: LimitKind::TimeWait,
        id: "time_wait",
        name: "TIME_WAIT",
        unit: "sockets",
        source: "net.ipv4.tcp_max_tw_buckets, tw of /proc/net/sockstat",
        refusal: "inet_twsk_alloc(): sockets close without TIME_WAIT (TCPTimeWaitOverflow)",
        remedy: "sysctl net.ipv4.tcp_max_tw_buckets, or let the other side close first",
        risk: "256 bytes a socket; each keeps its four-tuple, so ports towards one destination go first",
    },
    About {
        kind: LimitKind::Orphans,
        id: "orphans",
        name: "orphans",
        unit: "sockets",
        source: "net.ipv4.tcp_max_orphans, orphan of /proc/net/sockstat",
        refusal: "tcp_check_oom(): orphans are reset (TCPAbortOnMemory), those of slow peers at a quarter of this",
        remedy: "sysctl net.ipv4.tcp_max_orphans, or a smaller net.ipv4.tcp_orphan_retries",
        risk: "an orphan may hold up to 64 kB of unsent data that cannot be swapped out",
    },
    About {
        kind: LimitKind::TcpMemory,
        id: "tcp_memory",
        name: "TCP memory",
        unit: "pages",
        source: "the third number of net.ipv4.tcp_mem, mem of /proc/net/sockstat",
        refusal: "tcp_check_oom(), __sk_mem_raise_allocated(): windows shrink, then data is dropped and sockets are reset",
        remedy: "sysctl net.ipv4.tcp_mem, or smaller tcp_rmem and tcp_wmem",
        risk: "buffers cannot be swapped out: all processes have less memory",
    },
    About {
        kind: LimitKind::SocketMemory,
        id: "socket_memory",
        name: "memory",
        unit: "sockets",
        source: "alloc of /proc/net/sockstat; MemAvailable by the slabs of an idle socket (/proc/slabinfo), without its buffers",
        refusal: "sk_prot_alloc(): socket() fails with ENOMEM, or the OOM killer ends a process first",
        remedy: "more memory, or fewer idle connections",
        risk: "none for the kernel",
    },
];

/// A kind is the index of what is known of it.
const _: () = {
    let mut i = 0;
    while i < ABOUT.len() {
        assert!(ABOUT[i].kind as usize == i && LimitKind::ALL[i] as usize == i);
        i += 1;
    }
};
