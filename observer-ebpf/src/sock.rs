//! `struct sock` and its smaller relatives (TIME_WAIT and request sockets share `struct sock_common`).

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_log_ebpf::warn;
use observer_ebpf::abi::{InodeRecord, Kind, ListenerRecord, Loss, Offsets, RecordHeader, SocketFlags, SocketRecord};

use crate::{
    emit::count,
    kernel::{Fields, Head, KernelPtr},
    maps::{offset, setting},
};

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const IPPROTO_TCP: u16 = 6;
pub(crate) const IPPROTO_MPTCP: u16 = 262;
/// `SOCK_BINDPORT_LOCK` of include/net/sock.h.
const SOCK_BINDPORT_LOCK: u8 = 8;
/// `SOCK_CONNECT_BIND` of include/net/sock.h, since 6.18.
const SOCK_CONNECT_BIND: u8 = 16;
/// `1 << SOCK_DEAD` of include/net/sock.h.
const SOCK_DEAD: u8 = 1;
/// `is_data` and `no_refcnt` of `struct sock_cgroup_data`: with either, the field is no pointer to a cgroup.
const SOCK_CGROUP_FLAGS: u64 = 3;
const NS_PER_MS: u64 = 1_000_000;
const NS_PER_SEC: u64 = 1_000_000_000;

/// States of include/net/tcp_states.h that the kernel side distinguishes.
pub(crate) mod state {
    pub(crate) const ESTABLISHED: u8 = 1;
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const FIN_WAIT2: u8 = 5;
    pub(crate) const CLOSING: u8 = 11;
    pub(crate) const SYN_RECV: u8 = 3;
    pub(crate) const TIME_WAIT: u8 = 6;
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const LISTEN: u8 = 10;
    pub(crate) const NEW_SYN_RECV: u8 = 12;
}

/// A TCP socket of a network namespace that is watched.
#[derive(Clone, Copy)]
pub(crate) struct Sock<F> {
    fields: F,
    netns: u32,
}

/// Holds the addresses, ports, state and namespace of `struct sock_common` on every kernel seen (88 bytes).
pub(crate) type SockHead = Head<96>;

impl Sock<&SockHead> {
    /// Works on a full socket, with a copy of its first fields, if it speaks TCP and its namespace is watched.
    #[inline(always)]
    pub(crate) fn copied(address: u64, work: impl FnOnce(Sock<&SockHead>)) {
        let Some(ptr) = KernelPtr::new(address) else { return };
        if !speaks_tcp(ptr) {
            return;
        }
        // A closure, and no value that is returned: 512 bytes of stack have no room for two copies.
        let Some(head) = SockHead::of(ptr) else { return count(Loss::ReadFailed) };
        if let Some(sock) = Sock::of_tcp(&head) {
            work(sock);
        }
    }
}

impl Sock<KernelPtr> {
    /// The TCP socket behind an MPTCP socket that a process owns: its first subflow, which no file leads to.
    #[inline(always)]
    pub(crate) fn first_subflow(mptcp: KernelPtr) -> Option<Self> {
        Self::subflow(mptcp.follow(offset!(mptcp_first))?)
    }

    /// A subflow, unless it is closed: the MPTCP socket outlives it.
    #[inline(always)]
    pub(crate) fn subflow(sock: KernelPtr) -> Option<Self> {
        Self::full(sock).filter(|subflow| subflow.orphan_flag() == 0)
    }
}

/// The subflows of an MPTCP socket, one after the other. The list can change under way: what is read then leads to no
/// socket that user space knows.
#[derive(Clone, Copy)]
pub(crate) struct Subflows {
    head: u64,
    /// 0 at the end of the list.
    next: u64,
}

impl Subflows {
    /// As many are shown. Path managers make eight beside the first (`MPTCP_PM_ADDR_MAX`), a process's own may make more.
    pub(crate) const MOST: u32 = 16;

    #[inline(always)]
    pub(crate) fn of(mptcp: KernelPtr) -> Self {
        let offset = offset!(mptcp_conn_list);
        // `list_head.next` is at its start; of an empty list it leads to the list itself.
        Self { head: mptcp.add(u64::from(offset)).address(), next: mptcp.follow(offset).map_or(0, KernelPtr::address) }
    }

    /// The next one.
    #[inline(always)]
    pub(crate) fn step(&mut self) -> Option<KernelPtr> {
        let node = KernelPtr::new(self.next).filter(|node| node.address() != self.head)?;
        self.next = node.follow(0).map_or(0, KernelPtr::address);
        let context = node.address().wrapping_sub(u64::from(offset!(subflow_node)));
        KernelPtr::new(context)?.follow(offset!(subflow_tcp_sock))
    }
}

impl<F: Fields> Sock<F> {
    /// A full socket, if it speaks TCP and its namespace is watched.
    #[inline(always)]
    pub(crate) fn full(fields: F) -> Option<Self> {
        speaks_tcp(fields).then(|| Self::of_tcp(fields))?
    }

    /// Any member of the `sock_common` family that is known to be TCP, if its namespace is watched.
    #[inline(always)]
    pub(crate) fn of_tcp(fields: F) -> Option<Self> {
        let Some(netns) = fields.follow(offset!(skc_net)).and_then(|net| net.read(offset!(net_inum))) else {
            count(Loss::ReadFailed);
            return None;
        };
        let watched = setting!(netns);
        (watched == 0 || watched == netns).then_some(Self { fields, netns })
    }

    /// The same full socket, with the fields that only the whole `struct tcp_sock` has.
    #[inline(always)]
    pub(crate) fn tcp_sock(self) -> Option<Sock<F::TcpSock>> {
        self.fields.tcp_sock().map(|fields| self.by(fields))
    }

    /// The same socket, by other means to read it.
    #[inline(always)]
    pub(crate) fn by<G: Fields>(self, fields: G) -> Sock<G> {
        Sock { fields, netns: self.netns }
    }

    /// The same socket, all of whose fields can be read.
    #[inline(always)]
    pub(crate) fn untyped(self) -> Sock<KernelPtr> {
        self.by(self.fields.untyped())
    }

    /// The start of a record about this socket, with no time, process or ports yet.
    #[inline(always)]
    pub(crate) fn header(self, kind: Kind) -> RecordHeader {
        RecordHeader {
            sock: self.address(),
            at_ns_or_cgroup: 0,
            netns: self.netns,
            pid: 0,
            local_port: 0,
            remote_port: 0,
            kind: kind as u8,
            flags: 0,
            old_state: 0,
            new_state: 0,
        }
    }

    /// Its address: what it is known by.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.fields.address()
    }

    /// As [`Self::four_tuple`], and a loss that is counted if a field cannot be read.
    #[inline(always)]
    pub(crate) fn record<C: aya_ebpf::EbpfContext>(self, kind: Kind, ctx: &C) -> Option<SocketRecord> {
        let record = self.four_tuple(kind);
        if record.is_none() {
            warn!(ctx, "network namespace {}: the four-tuple of a socket could not be read", self.netns);
            count(Loss::ReadFailed);
        }
        record
    }

    /// The four-tuple as it stands now; `None` if a field cannot be read.
    #[inline(always)]
    pub(crate) fn four_tuple(self, kind: Kind) -> Option<SocketRecord> {
        let fields = self.fields;
        let mut header = self.header(kind);
        header.local_port = fields.read(offset!(skc_num))?;
        header.remote_port = u16::from_be(fields.read(offset!(skc_dport))?);
        let (local, remote) = match fields.read::<u16>(offset!(skc_family))? {
            AF_INET => (v4_mapped(fields.read(offset!(skc_rcv_saddr))?), v4_mapped(fields.read(offset!(skc_daddr))?)),
            AF_INET6 => (v6(fields, offset!(skc_v6_rcv_saddr))?, v6(fields, offset!(skc_v6_daddr))?),
            _ => return None,
        };
        Some(SocketRecord { header, local, remote, device: self.device(), padding: 0 })
    }

    /// The local address alone.
    #[inline(always)]
    pub(crate) fn local_ip(self) -> Option<[u8; 16]> {
        match self.fields.read::<u16>(offset!(skc_family))? {
            AF_INET => Some(v4_mapped(self.fields.read(offset!(skc_rcv_saddr))?)),
            AF_INET6 => v6(self.fields, offset!(skc_v6_rcv_saddr)),
            _ => None,
        }
    }

    /// The queues of a listener; `None` where this kernel lacks a field.
    #[inline(always)]
    pub(crate) fn queues(self) -> Option<ListenerRecord> {
        Some(ListenerRecord {
            header: self.header(Kind::Listener),
            accept_queue: self.fields.read(offset!(sk_ack_backlog))?,
            backlog: self.fields.read(offset!(sk_max_ack_backlog))?,
            syn_queue: self.fields.read(offset!(icsk_syn_queue))?,
            drops: self.fields.read(offset!(sk_drops))?,
        })
    }

    /// [`SocketFlags::NO_REQUESTS`] of a listener.
    #[inline(always)]
    pub(crate) fn no_requests_flag(self) -> u8 {
        if self.fields.read(offset!(icsk_syn_queue)) == Some(0_u32) { SocketFlags::NO_REQUESTS } else { 0 }
    }

    /// The inode of a full socket that a process can own; `None` before accept(), and once it is closed.
    #[inline(always)]
    pub(crate) fn inode(self) -> Option<InodeRecord> {
        let inode = self.fields.follow(offset!(sk_socket))?.read(offset!(socket_inode))?;
        Some(InodeRecord { header: self.header(Kind::Inode), inode })
    }

    /// `inet_sport` in host order: it outlives `skc_num`, which is 0 once the port was given back.
    #[inline(always)]
    pub(crate) fn released_port(self) -> u16 {
        u16::from_be(self.fields.read(offset!(inet_sport)).unwrap_or(0))
    }

    /// Index of the interface that the socket is bound to; 0 for none.
    #[inline(always)]
    pub(crate) fn device(self) -> u32 {
        self.fields.read(offset!(skc_bound_dev_if)).unwrap_or(0)
    }

    /// Local port in host order; 0 for none.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        self.fields.read(offset!(skc_num)).unwrap_or(0)
    }

    /// Id of a full socket's cgroup in cgroup2; 0 where it is not known.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        let id = if offset!(sk_cgroup) == Offsets::ABSENT {
            let val: u64 = self.fields.untyped().read(offset!(sk_cgroup_val)).unwrap_or(0);
            if val & SOCK_CGROUP_FLAGS == 0 { KernelPtr::new(val).and_then(cgroup_id) } else { None }
        } else {
            self.fields.follow(offset!(sk_cgroup)).and_then(cgroup_id)
        };
        id.unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        self.fields.read(offset!(skc_state)).unwrap_or(0)
    }

    /// What became of a TIME_WAIT socket's last full state: TIME_WAIT, or FIN_WAIT2 while the peer has not closed.
    #[inline(always)]
    pub(crate) fn time_wait_substate(self) -> u8 {
        self.fields.read(offset!(tw_substate)).unwrap_or(state::TIME_WAIT)
    }

    /// [`SocketFlags::UNSENT`], if the full socket has sent nothing yet.
    #[inline(always)]
    pub(crate) fn unsent_flag(self) -> u8 {
        if self.fields.read(offset!(segs_out)) == Some(0_u32) { SocketFlags::UNSENT } else { 0 }
    }

    /// The full socket's own port range, as records have it; 0 for none, and before 6.3.
    #[inline(always)]
    pub(crate) fn own_range(self) -> u32 {
        // Two members of 16 bits up to 6.7, which no typed load may span.
        self.fields.untyped().read(offset!(local_port_range)).unwrap_or(0)
    }

    /// Its `struct net`.
    #[inline(always)]
    pub(crate) fn net(self) -> Option<F::Target> {
        self.fields.follow(offset!(skc_net))
    }

    /// [`SocketFlags`] of a full socket.
    #[inline(always)]
    pub(crate) fn flags(self) -> u8 {
        let locks: u8 = self.fields.read(offset!(sk_userlocks)).unwrap_or(0);
        let locks = locks >> (offset!(sk_userlocks_shift) & 7);
        let locked = if locks & SOCK_BINDPORT_LOCK != 0 { SocketFlags::PORT_LOCKED } else { 0 };
        let is_connect_bound = locks & SOCK_CONNECT_BIND != 0 && offset!(tw_connect_bind) != Offsets::ABSENT;
        locked | self.origin_flags(is_connect_bound, offset!(icsk_bind_hash)) | self.orphan_flag()
    }

    /// [`SocketFlags`] of a TIME_WAIT socket.
    #[inline(always)]
    pub(crate) fn time_wait_flags(self) -> u8 {
        let bound: u8 = self.fields.read(offset!(tw_connect_bind)).unwrap_or(0);
        let is_connect_bound = (bound >> (offset!(tw_connect_bind_shift) & 7)) & 1 != 0;
        self.origin_flags(is_connect_bound, offset!(tw_tb)) | self.timestamps_flag(offset!(tw_ts_recent_stamp))
    }

    /// When a TIME_WAIT socket began, on the kernel's clock and in the unit of the kernel's own timestamp.
    #[inline(always)]
    pub(crate) fn time_wait_since_ns(self) -> u64 {
        if let Some(stamp) = self.fields.read::<u32>(offset!(tw_entry_stamp)) {
            // SAFETY: the helper takes no argument and has no failure.
            let now_ms = unsafe { bpf_ktime_get_ns() } / NS_PER_MS;
            // The stamp is cut to 32 bits and goes round every 49 days.
            let age_ms = now_ms.wrapping_sub(u64::from(stamp)) & u64::from(u32::MAX);
            return now_ms.saturating_sub(age_ms) * NS_PER_MS;
        }
        u64::from(self.fields.read::<u32>(offset!(tw_ts_recent_stamp)).unwrap_or(0)) * NS_PER_SEC
    }

    /// [`SocketFlags::TIMESTAMPS`], if a full socket has received any.
    #[inline(always)]
    pub(crate) fn timestamps(self) -> u8 {
        self.timestamps_flag(offset!(ts_recent_stamp))
    }

    #[inline(always)]
    fn timestamps_flag(self, stamp: u16) -> u8 {
        let stamp: u32 = self.fields.read(stamp).unwrap_or(0);
        if stamp == 0 { 0 } else { SocketFlags::TIMESTAMPS }
    }

    /// [`SocketFlags::ORPHAN`], if no process owns the full socket any more.
    #[inline(always)]
    pub(crate) fn orphan_flag(self) -> u8 {
        if is_dead(self.fields) { SocketFlags::ORPHAN } else { 0 }
    }

    /// A socket whose port connect() chose does not make its bucket explicit. Pointer and bucket are each somewhere else in memory: of
    /// a million sockets, to read them takes a seventh of a scan.
    #[inline(always)]
    fn origin_flags(self, is_connect_bound: bool, bucket: u16) -> u8 {
        if is_connect_bound {
            SocketFlags::CONNECT_BOUND | SocketFlags::BUCKET_KNOWN
        } else {
            self.bucket_flags(bucket)
        }
    }

    /// A bucket that connect() made has -1 in both fields (net/ipv4/inet_hashtables.c).
    #[inline(always)]
    fn bucket_flags(self, bucket: u16) -> u8 {
        let reuse = self.fields.follow(bucket).and_then(|bucket| {
            Some((bucket.read::<i8>(offset!(fastreuse))?, bucket.read::<i8>(offset!(fastreuseport))?))
        });
        match reuse {
            None => 0,
            Some((reuse, reuseport)) if reuse >= 0 || reuseport >= 0 => {
                SocketFlags::BUCKET_KNOWN | SocketFlags::BUCKET_EXPLICIT
            }
            Some(_) => SocketFlags::BUCKET_KNOWN,
        }
    }
}

/// As [`Sock::cgroup`]. A function, for programs whose stack is full.
#[inline(never)]
pub(crate) fn cgroup_of(sock: u64) -> u64 {
    KernelPtr::new(sock).map_or(0, |fields| Sock { fields, netns: 0 }.cgroup())
}

/// Id of a `struct cgroup`.
#[inline(always)]
fn cgroup_id<F: Fields>(cgroup: F) -> Option<u64> {
    cgroup.follow(offset!(cgroup_kn))?.read(offset!(kn_id))
}

/// No process owns the full socket any more.
#[inline(always)]
pub(crate) fn is_dead<F: Fields>(sock: F) -> bool {
    // The lowest byte of an unsigned long: both machines are little-endian.
    let flags: u8 = sock.read(offset!(sk_flags)).unwrap_or(0);
    flags & SOCK_DEAD != 0
}

#[inline(always)]
fn speaks_tcp<F: Fields>(sock: F) -> bool {
    // MPTCP and SCTP sockets pass through the same tracepoints with protocols of their own.
    sock.read(offset!(sk_protocol)) == Some(IPPROTO_TCP)
}

/// `::ffff:a.b.c.d`, from an address in network order.
#[inline(always)]
pub(crate) fn v4_mapped(address: u32) -> [u8; 16] {
    bytes_of([0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address])
}

/// The address at `offset`, word by word: the verifier allows no larger load of a typed structure.
#[inline(always)]
fn v6<F: Fields>(fields: F, offset: u16) -> Option<[u8; 16]> {
    if offset == Offsets::ABSENT {
        return None;
    }
    Some(bytes_of([
        fields.read(offset)?,
        fields.read(offset + 4)?,
        fields.read(offset + 8)?,
        fields.read(offset + 12)?,
    ]))
}

#[inline(always)]
fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 bytes, and every bit pattern is a valid one.
    unsafe { core::mem::transmute(words) }
}
