//! The kinds of failures.

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// connect() found no free local port towards the destination (EADDRNOTAVAIL, `__inet_hash_connect`).
    PortsExhausted,
    /// connect() of a bound socket found its four-tuple in use (EADDRNOTAVAIL, `__inet_check_established`).
    TupleInUse,
    /// connect() found no local address for the destination (EADDRNOTAVAIL before any port is looked for).
    NoSourceAddress,
    /// bind() or listen() found the port that it names in use (EADDRINUSE, `inet_csk_get_port`).
    AddressInUse,
    /// bind() to port 0, or listen() of a socket that is not bound, found no free port (EADDRINUSE,
    /// `inet_csk_find_open_port`).
    BindPorts,
    /// bind() to an address that this host does not have (EADDRNOTAVAIL).
    AddressNotLocal,
    /// The process has as many descriptors as its `RLIMIT_NOFILE` allows (EMFILE, `alloc_fd`).
    ProcessFds,
    /// EMFILE while the process had descriptors left: another limit, most often one of its user.
    OtherFdLimit,
    /// The host has as many open files as `fs.file-max` allows (ENFILE, `alloc_empty_file`), or ENFILE for want of
    /// something else.
    HostFiles,
    /// A SYN or a final ACK was dropped because the accept queue was full (`ListenOverflows`).
    AcceptQueue,
    /// A SYN was dropped because the SYN queue was full and `tcp_syncookies` is 0 (`TCPReqQFullDrop`), or because the queue
    /// was at what `tcp_max_syn_backlog` allows then (`ListenDrops` alone).
    SynQueue,
    /// A socket closed without TIME_WAIT because there were `tcp_max_tw_buckets` already (`TCPTimeWaitOverflow`).
    TimeWait,
    /// Connection tracking had no room, and dropped the first packet of a connection (`drop` of nf_conntrack).
    Conntrack,
    /// The entry of a new connection clashed with another one, and its packet was dropped (`insert_failed`).
    ConntrackClash,
    /// Connection tracking forgot an old connection to make room for a new one, whose packet passed (`early_drop`).
    ConntrackEvicted,
    /// A connection was given up because of `tcp_mem` or `tcp_max_orphans` (`TCPAbortOnMemory`).
    TcpMemory,
}

impl FailureKind {
    /// The name of the errno that the caller got, where there was one.
    #[must_use]
    pub const fn errno(self) -> Option<&'static str> {
        match self {
            Self::PortsExhausted | Self::TupleInUse | Self::NoSourceAddress | Self::AddressNotLocal => {
                Some("EADDRNOTAVAIL")
            }
            Self::AddressInUse | Self::BindPorts => Some("EADDRINUSE"),
            Self::ProcessFds | Self::OtherFdLimit => Some("EMFILE"),
            Self::HostFiles => Some("ENFILE"),
            Self::AcceptQueue
            | Self::SynQueue
            | Self::TimeWait
            | Self::Conntrack
            | Self::ConntrackClash
            | Self::ConntrackEvicted
            | Self::TcpMemory => None,
        }
    }

    /// Its id in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortsExhausted => "ports_exhausted",
            Self::TupleInUse => "four_tuple_in_use",
            Self::NoSourceAddress => "no_source_address",
            Self::AddressInUse => "address_in_use",
            Self::BindPorts => "bind_ports_exhausted",
            Self::AddressNotLocal => "address_not_local",
            Self::ProcessFds => "process_fds",
            Self::OtherFdLimit => "other_fd_limit",
            Self::HostFiles => "host_files",
            Self::AcceptQueue => "accept_queue",
            Self::SynQueue => "syn_queue",
            Self::TimeWait => "time_wait",
            Self::Conntrack => "conntrack",
            Self::ConntrackClash => "conntrack_clash",
            Self::ConntrackEvicted => "conntrack_evicted",
            Self::TcpMemory => "tcp_memory",
        }
    }
}
