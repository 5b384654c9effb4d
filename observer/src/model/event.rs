//! What happened, or what a scan found: the input of the model.

use std::{net::SocketAddr, time::Duration};

use super::address::Local;
use super::device::Device;
use super::service::CgroupId;
pub use super::units::Queues;
use super::units::{FourTuple, NetnsId, PortRange, Process, SocketId, TcpState};

/// One record of the stream, in the words of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A full socket changed its state.
    State {
        /// Which socket, with its four-tuple after the change.
        socket: Identity,
        /// Of a change to CLOSE: when, by `CLOCK_MONOTONIC`. Else zero.
        at: Duration,
        /// Before.
        old: TcpState,
        /// After.
        new: TcpState,
        /// The process, where the change was made in its context (connect, listen).
        by: Option<Process>,
        /// The socket has no fd owner any more.
        orphan: bool,
        /// It went from SYN_SENT to CLOSE before it had sent anything: connect() may have failed, or a deferred TCP Fast
        /// Open was closed.
        unsent: bool,
        /// Of such a socket: its own port range.
        own_range: OwnRange,
        /// How it came by its port, where it had one before connect() or listen(), or keeps it beyond its end.
        binding: Binding,
        /// At the end of a connection: the peer sent TCP timestamps.
        timestamps: bool,
    },
    /// A system call failed because no descriptor, file, address or port was available.
    CallFailed {
        /// Where.
        netns: NetnsId,
        /// Which.
        call: &'static str,
        /// Who.
        by: Process,
        /// The cgroup of the task.
        cgroup: Option<CgroupId>,
        /// What it did not get.
        refused: Refused,
    },
    /// connect() is about to send its SYN.
    Connecting {
        /// The socket.
        socket: Identity,
        /// The caller.
        by: Process,
    },
    /// A process took the socket from an accept queue.
    Accepted {
        /// The socket.
        socket: Identity,
        /// Its state at that time; [`TcpState::Closed`] if the peer was quicker.
        state: TcpState,
        /// The process.
        by: Process,
    },
    /// The socket is gone; another socket may have its id from now on.
    Destroyed {
        /// The socket.
        id: SocketId,
        /// Its namespace.
        netns: NetnsId,
    },
    /// A scan found the socket in the kernel's table.
    Scanned {
        /// The socket.
        socket: Identity,
        /// What it is.
        state: Found,
        /// How it came by its port.
        binding: Binding,
        /// The socket has no fd owner any more.
        orphan: bool,
    },
    /// A scan, of the table or of open files, found the queues of a listener that it has just found.
    Queues {
        /// The listener.
        id: SocketId,
        /// Its namespace.
        netns: NetnsId,
        /// The queues.
        queues: Queues,
    },
    /// The inode of a socket that a scan has just found: what /proc/PID/fd calls it.
    Inode {
        /// The socket.
        id: SocketId,
        /// Its namespace.
        netns: NetnsId,
        /// The inode.
        inode: u64,
    },
    /// An fd scan found an owner of the socket.
    Held {
        /// The socket.
        id: SocketId,
        /// Its namespace.
        netns: NetnsId,
        /// The process.
        by: Process,
        /// Its file descriptor.
        fd: u32,
        /// The socket's state, read without its lock; `None` where the scan does not show it.
        state: Option<TcpState>,
        /// The address of a socket that is bound, and neither connected nor listening.
        bound: Option<Local>,
        /// The cgroup of such a socket.
        cgroup: Option<CgroupId>,
    },
}

impl Event {
    /// A change of state of which nothing more is known. Tests and benchmarks make their events of it.
    #[must_use]
    pub fn change(socket: Identity, at: Duration, old: TcpState, new: TcpState, by: Option<Process>) -> Self {
        let (own_range, binding) = (OwnRange::default(), Binding::default());
        Self::State { socket, at, old, new, by, orphan: false, unsent: false, own_range, binding, timestamps: false }
    }
}

/// What a system call did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A descriptor (EMFILE).
    Descriptor {
        /// The soft `RLIMIT_NOFILE` and the lowest descriptor that was free at that moment.
        found: Option<(u64, u64)>,
    },
    /// An open file (ENFILE).
    File,
    /// bind() or listen(): an address.
    Bind {
        /// The socket.
        socket: SocketId,
        /// What was asked for; port 0 is any.
        local: Local,
        /// EADDRINUSE; otherwise EADDRNOTAVAIL.
        is_in_use: bool,
        /// The socket's own port range.
        own_range: OwnRange,
        /// IPv6 is disabled for such an address.
        no_ipv6: bool,
    },
    /// connect(): a local address or port (EADDRNOTAVAIL).
    Connect {
        /// The socket.
        socket: SocketId,
        /// What the socket is bound to.
        local: Local,
        /// The destination.
        remote: SocketAddr,
        /// IPv6 is disabled for such a destination.
        no_ipv6: bool,
    },
}

impl Event {
    /// Where something happened; `None` for what a scan found.
    #[must_use]
    pub const fn netns_of_change(&self) -> Option<NetnsId> {
        match self {
            Self::State { socket, .. } | Self::Connecting { socket, .. } | Self::Accepted { socket, .. } => {
                Some(socket.netns)
            }
            Self::CallFailed { netns, .. } | Self::Destroyed { netns, .. } => Some(*netns),
            Self::Scanned { .. } | Self::Queues { .. } | Self::Held { .. } | Self::Inode { .. } => None,
        }
    }
}

/// A socket's own port range (`IP_LOCAL_PORT_RANGE`, since 6.3); an end that is 0 is that of the namespace's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnRange {
    /// Lowest port.
    pub low: u16,
    /// Highest port.
    pub high: u16,
}

impl OwnRange {
    /// The ports that the socket may get; `None` if these are all of the namespace's `range`. An end outside of that does
    /// not count (`inet_sk_get_local_port_range`).
    #[must_use]
    pub fn within(self, range: PortRange) -> Option<PortRange> {
        let end = |own: u16, end: u16| if range.contains(own) { own } else { end };
        let narrowed = PortRange { low: end(self.low, range.low), high: end(self.high, range.high) };
        (narrowed != range).then_some(narrowed)
    }
}

/// A socket, its namespace and its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The socket.
    pub id: SocketId,
    /// Its network namespace.
    pub netns: NetnsId,
    /// Its addresses.
    pub tuple: FourTuple,
    /// The device that it is bound to.
    pub device: Device,
    /// Its cgroup, where the record shows it: those of a beginning and of a scan do.
    pub cgroup: Option<CgroupId>,
}

/// What a scan can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A full socket or a listener.
    Full(TcpState),
    /// A TIME_WAIT socket.
    TimeWait {
        /// FIN_WAIT2 while the peer has not closed.
        substate: TcpState,
        /// When it began, on `CLOCK_MONOTONIC`; `None` without TCP timestamps: connect() never takes such a one over.
        since: Option<Duration>,
        /// When it began, with or without timestamps; `None` where the kernel does not keep it.
        began: Option<Duration>,
    },
    /// A request socket: a handshake in progress.
    Request,
}

impl Found {
    /// The state that `ss` shows for a socket without a `struct sock` of its own.
    pub(super) const fn minisock_state(self) -> Option<TcpState> {
        match self {
            Self::TimeWait { substate, .. } => Some(substate),
            Self::Request => Some(TcpState::SynReceived),
            Self::Full(_) => None,
        }
    }
}

/// How a socket came by its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// bind() named the port (`SOCK_BINDPORT_LOCK`). An accepted socket never has this.
    pub port_locked: bool,
    /// The port's bind bucket was made by an explicit bind or listen (`fastreuse >= 0 || fastreuseport >= 0`), and not
    /// by connect(); `None` where that is not known.
    pub explicit_bucket: Option<bool>,
    /// connect() chose the port: the bucket is not explicit on this socket's account. Known since Linux 6.18, where a
    /// bucket is explicit only while another kind of socket is on it.
    pub connect_bound: bool,
}

impl Binding {
    /// The socket keeps its port from every connect(); `None` where that is not known.
    pub(super) fn keeps_port(self) -> Option<bool> {
        self.explicit_bucket.map(|is_explicit| is_explicit && !self.connect_bound)
    }
}
