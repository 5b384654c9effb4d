//! The records of the ring buffer, written by hooks and by scans alike.

/// Bytes of a command name, with its terminating zero (`TASK_COMM_LEN` in include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// Set in the id of a process outside the pid namespace in which processes are numbered. `PID_MAX_LIMIT` of
/// include/linux/threads.h is 2^22: no id has this bit.
pub const PID_OUTSIDE: u32 = 1 << 31;

/// What a record reports. Each kind has one layout, named beside it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A state change seen outside the context of its cause: [`SocketRecord`].
    State = 1,
    /// A state change made by the current task (connect, listen): [`TaskRecord`].
    StateByTask = 2,
    /// `tcp_connect` was entered by the current task: [`TaskRecord`].
    Connect = 3,
    /// The current task's accept returned this socket: [`TaskRecord`].
    Accept = 4,
    /// The socket is gone (`tcp_destroy_sock`): [`RecordHeader`].
    Destroy = 5,
    /// A scan of the kernel's tables (`iter/tcp`) found this socket: [`SocketRecord`].
    Scanned = 6,
    /// An fd scan (`iter/task_file`) found a process that owns this socket: [`FdOwnerRecord`].
    FdOwner = 7,
    /// A scan found this listener, just shown as [`Kind::Scanned`] or [`Kind::Bound`]: [`ListenerRecord`].
    Listener = 8,
    /// A bind(), connect() or listen() of the current task failed because no address or port was available:
    /// [`CallRecord`].
    CallFailed = 9,
    /// A system call of the current task failed because no descriptor or file was available: [`FdCallRecord`].
    FdCallFailed = 10,
    /// As [`Kind::FdOwner`], of a listener, or of a socket that is bound and neither connected nor listening: [`BoundRecord`].
    Bound = 11,
    /// The inode of the socket just shown as [`Kind::Scanned`], where [`Settings::inodes`](super::Settings::inodes) asks for
    /// it: [`InodeRecord`].
    Inode = 12,
    /// An iterator has shown everything: all that it found stands before this in the ring. [`RecordHeader`], with the number
    /// of the pass in place of the socket, which the iterator's own output has, too.
    PassEnd = 13,
}

impl Kind {
    /// The kind with this number, or `None` for a number that this version does not know.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::State,
            2 => Self::StateByTask,
            3 => Self::Connect,
            4 => Self::Accept,
            5 => Self::Destroy,
            6 => Self::Scanned,
            7 => Self::FdOwner,
            8 => Self::Listener,
            9 => Self::CallFailed,
            10 => Self::FdCallFailed,
            11 => Self::Bound,
            12 => Self::Inode,
            13 => Self::PassEnd,
            _ => return None,
        })
    }
}

/// Bits of [`RecordHeader::flags`].
pub struct SocketFlags;

impl SocketFlags {
    /// The port was chosen by an explicit `bind()` to a port other than 0 (`SOCK_BINDPORT_LOCK`).
    pub const PORT_LOCKED: u8 = 1;
    /// The socket has a bind bucket and its `fastreuse`/`fastreuseport` could be read, or need not be: see
    /// [`Self::CONNECT_BOUND`].
    pub const BUCKET_KNOWN: u8 = 1 << 1;
    /// An explicit bind or listen uses the bind bucket: connect() skips its port for every destination. Not said of a socket
    /// that is [`Self::CONNECT_BOUND`].
    pub const BUCKET_EXPLICIT: u8 = 1 << 2;
    /// No process owns the socket any more (`SOCK_DEAD`): its last descriptor was closed.
    pub const ORPHAN: u8 = 1 << 3;
    /// A SYN_SENT socket went back to CLOSE before it had sent anything. connect() does that when it finds no local port
    /// or no free four-tuple, when a route fails, and when a deferred TCP Fast Open is closed: the errno of connect()
    /// shows which.
    pub const UNSENT: u8 = 1 << 5;
    /// The peer sent TCP timestamps: only then may connect() take over the TIME_WAIT socket before its time is up.
    pub const TIMESTAMPS: u8 = 1 << 4;
    /// The port was chosen by connect() (`SOCK_CONNECT_BIND`): the socket does not make its bind bucket explicit, whoever
    /// else does. Since 6.18; before, a bucket stays explicit until its last socket is gone.
    pub const CONNECT_BOUND: u8 = 1 << 6;
    /// Of a listener that ended: no handshake was in progress in its SYN queue. A request socket outlives its listener.
    pub const NO_REQUESTS: u8 = 1 << 7;
}

/// The start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct RecordHeader {
    /// Address of the `struct sock`: unique among living sockets, reused after [`Kind::Destroy`].
    pub sock: u64,
    /// Of an end the time, of everything else the cgroup: no record needs both.
    ///
    /// Of a change to CLOSE: when (`bpf_ktime_get_ns`), in nanoseconds of `CLOCK_MONOTONIC`; with [`SocketFlags::UNSENT`] the
    /// socket's own port range instead, as [`CallRecord::own_range`]. Of a TIME_WAIT socket that a scan shows: when it began,
    /// in milliseconds (since 6.14) or whole seconds (before), as the kernel's own timestamp.
    ///
    /// Of a socket's first state change, a full socket that a scan shows, and a socket that is bound and nothing more: the id
    /// of its cgroup in cgroup2 (`sk_cgrp_data.cgroup->kn->id`). Of a failed call: that of the task. 0 where it is not known,
    /// and in all other records.
    pub at_ns_or_cgroup: u64,
    /// Inode number of the network namespace (`net->ns.inum`).
    pub netns: u32,
    /// Process (thread group) id in the pid namespace of [`Settings::pidns`](super::Settings::pidns), or, of a process that
    /// has none there, its id in the initial one with [`PID_OUTSIDE`]; 0 where the context is not that of the cause.
    pub pid: u32,
    /// Local port in host order: `skc_num`, or `inet_sport` once `skc_num` is already 0.
    pub local_port: u16,
    /// Remote port in host order.
    pub remote_port: u16,
    /// A [`Kind`].
    pub kind: u8,
    /// Bits of [`SocketFlags`].
    pub flags: u8,
    /// State before the change; of a scanned TIME_WAIT its substate (`tw_substate`). Numbers of net/tcp_states.h.
    pub old_state: u8,
    /// State after the change, or at the scan. Numbers of net/tcp_states.h.
    pub new_state: u8,
}

/// A socket with its four-tuple.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct SocketRecord {
    /// Common start.
    pub header: RecordHeader,
    /// Local address in network order; IPv4 as v4-mapped IPv6 (`::ffff:a.b.c.d`).
    pub local: [u8; 16],
    /// Remote address, as `local`.
    pub remote: [u8; 16],
    /// Interface index of the device that the socket is bound to (`skc_bound_dev_if`): by `SO_BINDTODEVICE`, by the scope
    /// of a link-local address, or as the child of a listener that is; 0 for none.
    pub device: u32,
    /// Zero.
    pub padding: u32,
}

/// A socket with its four-tuple and the process that acted on it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct TaskRecord {
    /// The socket; its `header.pid` is the process.
    pub socket: SocketRecord,
    /// Command name of the process's main thread, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// A process that owns a socket: one of its descriptors leads there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct FdOwnerRecord {
    /// Common start; `header.pid` is the process.
    pub header: RecordHeader,
    /// Command name of the process's main thread, zero-terminated.
    pub comm: [u8; COMM_LEN],
    /// Its file descriptor for the socket.
    pub fd: u32,
    /// Of a listener, or a socket that is bound and nothing more: as [`SocketRecord::device`]; else 0.
    pub device: u32,
}

/// A process that owns a listener, or a socket that is bound and nothing more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct BoundRecord {
    /// Its owner; the port is in its `header.local_port`.
    pub fd_owner: FdOwnerRecord,
    /// The address, as [`SocketRecord::local`].
    pub local: [u8; 16],
}

/// A bind(), connect() or listen() that failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct CallRecord {
    /// Common start; `header.pid` is the process, `header.sock` the socket. The ports are those of `local` and `remote`.
    pub header: RecordHeader,
    /// As [`SocketRecord::local`]: the address that bind() was asked for, or that of the socket.
    pub local: [u8; 16],
    /// As [`SocketRecord::remote`]: the address that connect() was asked for; else 0.
    pub remote: [u8; 16],
    /// Command name of the process's main thread, zero-terminated.
    pub comm: [u8; COMM_LEN],
    /// Number of the system call on this architecture.
    pub call: u32,
    /// The positive errno.
    pub errno: u32,
    /// The socket's own port range (`IP_LOCAL_PORT_RANGE`, since 6.3): the lowest port in the lower half, the highest in
    /// the upper one. A half of 0 means that of the namespace.
    pub own_range: u32,
    /// Bits of [`CallFlags`].
    pub flags: u32,
    /// As [`SocketRecord::device`].
    pub device: u32,
    /// Always 0.
    pub padding: u32,
}

/// Bits of [`CallRecord::flags`].
pub struct CallFlags;

impl CallFlags {
    /// `net.ipv6.conf.all.disable_ipv6` is set in the socket's namespace.
    pub const IPV6_DISABLED: u32 = 1;
    /// `net.ipv6.conf.lo.disable_ipv6` is set in the socket's namespace.
    pub const IPV6_DISABLED_ON_LOOPBACK: u32 = 1 << 1;
}

/// A system call that got no descriptor or no file.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct FdCallRecord {
    /// Common start; `header.pid` is the process, `header.sock` 0.
    pub header: RecordHeader,
    /// Command name of the thread, zero-terminated.
    pub comm: [u8; COMM_LEN],
    /// Number of the system call on this architecture.
    pub call: u32,
    /// The positive errno.
    pub errno: u32,
    /// The soft `RLIMIT_NOFILE` at that moment; [`Self::UNKNOWN_LIMIT`] where it could not be read.
    pub limit: u64,
    /// 64 descriptors from `first` on, a bit each: 1 is open. All below `first` are open.
    pub open: u64,
    /// The number of the first of these 64.
    pub first: u32,
    /// Zero.
    pub padding: u32,
}

impl FdCallRecord {
    /// No process can have this limit: `fs.nr_open` is smaller.
    pub const UNKNOWN_LIMIT: u64 = u64::MAX;
}

/// The queues of a listening socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct ListenerRecord {
    /// Common start.
    pub header: RecordHeader,
    /// Connections that wait for accept(): `sk_ack_backlog`.
    pub accept_queue: u32,
    /// The limit of both queues: `sk_max_ack_backlog`, the least of listen()'s backlog and `net.core.somaxconn`.
    pub backlog: u32,
    /// Handshakes in progress: `icsk_accept_queue.qlen`.
    pub syn_queue: u32,
    /// Segments that the listener discarded since listen(), SYNs and final acknowledgements among them: `sk_drops`.
    pub drops: u32,
}

/// The inode of a socket: its name in /proc/PID/fd.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct InodeRecord {
    /// Common start.
    pub header: RecordHeader,
    /// `inode.i_ino`.
    pub inode: u64,
}

const _: () = {
    assert!(size_of::<InodeRecord>() == 40);
    assert!(size_of::<RecordHeader>() == 32 && align_of::<RecordHeader>() == 8);
    assert!(core::mem::offset_of!(RecordHeader, kind) == 28);
    assert!(size_of::<SocketRecord>() == 72);
    assert!(size_of::<TaskRecord>() == 88);
    assert!(size_of::<FdOwnerRecord>() == 56);
    assert!(size_of::<BoundRecord>() == 72);
    assert!(size_of::<CallRecord>() == 104);
    assert!(size_of::<FdCallRecord>() == 80);
    assert!(size_of::<ListenerRecord>() == 48);
};
