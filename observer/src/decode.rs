//! From raw records to events: with `probe` the only place in user space that knows the ABI.

mod rewrite;
mod shortcuts;

use std::{
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use observer_ebpf::abi::{
    BoundRecord, CallFlags, CallRecord, FdCallRecord, FdOwnerRecord, InodeRecord, Kind, ListenerRecord, PID_OUTSIDE,
    RecordHeader, SocketFlags, SocketRecord, TaskRecord,
};
use zerocopy::FromBytes;

pub use self::{
    rewrite::{Pseudonyms, rewrite},
    shortcuts::{Shortcuts, joined, shortcuts},
};
use crate::{
    model::{
        device::Device,
        event::{Binding, Event, Found, Identity, OwnRange, Queues, Refused},
        failure::Local,
        service::CgroupId,
        units::{Comm, FourTuple, NetnsId, Pid, Process, SocketId, TcpState},
    },
    probe::calls,
};

/// Why a record makes no sense.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Too short to have a header.
    #[error("a record of {0} bytes has no header")]
    NoHeader(usize),
    /// A kind that this version does not know.
    #[error("unknown record kind {0}")]
    UnknownKind(u8),
    /// A kind that reports no event: see [`pass_end`].
    #[error("a {0:?} record is no event")]
    NoEvent(Kind),
    /// A length that does not fit the kind.
    #[error("a {kind:?} record of {got} bytes")]
    Length {
        /// The kind.
        kind: Kind,
        /// The record's length.
        got: usize,
    },
    /// A state that the kernel does not have.
    #[error("unknown TCP state {0}")]
    UnknownState(u8),
    /// A system call that is not watched.
    #[error("a failure of the unknown system call {0}")]
    UnknownCall(u32),
    /// An errno that is not watched.
    #[error("a system call failed with the unexpected errno {0}")]
    UnknownErrno(u32),
}

/// The number of the pass whose last record this is. It reports no event: the engine alone reads it.
#[must_use]
pub fn pass_end(bytes: &[u8]) -> Option<u64> {
    if !is_of(bytes, Kind::PassEnd) {
        return None;
    }
    let (header, _) = RecordHeader::read_from_prefix(bytes).ok()?;
    Some(header.sock)
}

/// The socket that this is about; 0 or a number of no socket where it is about none.
#[must_use]
pub fn socket(bytes: &[u8]) -> Option<SocketId> {
    let sock = bytes.get(offset_of!(RecordHeader, sock)..)?.first_chunk()?;
    Some(SocketId(u64::from_ne_bytes(*sock)))
}

/// Of the record of a listener's end: whether request sockets may outlive it. The model has no use for that.
#[must_use]
pub fn leaves_requests(bytes: &[u8]) -> bool {
    let header = RecordHeader::read_from_prefix(bytes);
    header.map_or(true, |(header, _)| !flag(&header, SocketFlags::NO_REQUESTS))
}

/// Every record is asked.
fn is_of(bytes: &[u8], kind: Kind) -> bool {
    bytes.get(offset_of!(RecordHeader, kind)) == Some(&(kind as u8))
}

/// The listener that an fd scan shows with its owner, as a scan of the table shows it.
#[must_use]
pub fn listener(bytes: &[u8]) -> Option<SocketRecord> {
    if !is_of(bytes, Kind::Bound) {
        return None;
    }
    let BoundRecord { fd_owner, local } = BoundRecord::read_from_bytes(bytes).ok()?;
    if fd_owner.header.new_state != TcpState::Listen as u8 {
        return None;
    }
    let header = RecordHeader { kind: Kind::Scanned as u8, pid: 0, ..fd_owner.header };
    Some(SocketRecord { header, local, remote: [0; 16], device: fd_owner.device, padding: 0 })
}

/// Reads one record.
pub fn event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let (header, _) = RecordHeader::read_from_prefix(bytes).map_err(|_| DecodeError::NoHeader(bytes.len()))?;
    let kind = Kind::from_raw(header.kind).ok_or(DecodeError::UnknownKind(header.kind))?;
    match kind {
        Kind::State => state_change(&read(kind, bytes)?, None),
        Kind::StateByTask => {
            let TaskRecord { socket, comm } = read(kind, bytes)?;
            state_change(&socket, Some(process(&socket.header, comm)))
        }
        Kind::Connect => {
            let TaskRecord { socket, comm } = read(kind, bytes)?;
            Ok(Event::Connecting { socket: identity(&socket), by: process(&socket.header, comm) })
        }
        Kind::Accept => {
            let TaskRecord { socket, comm } = read(kind, bytes)?;
            Ok(Event::Accepted {
                socket: identity(&socket),
                state: state(socket.header.new_state)?,
                by: process(&socket.header, comm),
            })
        }
        Kind::Destroy => {
            let header: RecordHeader = read(kind, bytes)?;
            Ok(Event::Destroyed { id: SocketId(header.sock), netns: NetnsId(header.netns) })
        }
        Kind::CallFailed => call_failed(&read(kind, bytes)?),
        Kind::FdCallFailed => fd_call_failed(&read(kind, bytes)?),
        Kind::Scanned => scanned(&read(kind, bytes)?),
        Kind::Listener => {
            let ListenerRecord { header, accept_queue, backlog, syn_queue, drops } = read(kind, bytes)?;
            let queues = Queues { accept: accept_queue, syn: syn_queue, limit: backlog, drops };
            Ok(Event::Queues { id: SocketId(header.sock), netns: NetnsId(header.netns), queues })
        }
        Kind::Inode => {
            let InodeRecord { header, inode } = read(kind, bytes)?;
            Ok(Event::Inode { id: SocketId(header.sock), netns: NetnsId(header.netns), inode })
        }
        Kind::PassEnd => Err(DecodeError::NoEvent(kind)),
        Kind::FdOwner => Ok(held(&read(kind, bytes)?, None)),
        Kind::Bound => {
            let BoundRecord { fd_owner, local } = read(kind, bytes)?;
            let header = &fd_owner.header;
            let is_bound = header.new_state != TcpState::Listen as u8
                && header.local_port != 0
                && binding(header).explicit_bucket == Some(true);
            let local = Local { ip: ip(local), port: fd_owner.header.local_port, device: Device::new(fd_owner.device) };
            Ok(held(&fd_owner, is_bound.then_some(local)))
        }
    }
}

fn held(record: &FdOwnerRecord, bound: Option<Local>) -> Event {
    let FdOwnerRecord { header, comm, fd, device: _ } = record;
    let (id, netns) = (SocketId(header.sock), NetnsId(header.netns));
    let state = TcpState::from_kernel(header.new_state);
    Event::Held { id, netns, by: process(header, *comm), fd: *fd, state, bound, cgroup: cgroup(header) }
}

fn read<T: FromBytes>(kind: Kind, bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::Length { kind, got: bytes.len() })
}

fn state_change(record: &SocketRecord, by: Option<Process>) -> Result<Event, DecodeError> {
    let unsent = flag(&record.header, SocketFlags::UNSENT);
    // Of a socket that gave up the record has its port range in place of the time, of one that begins its cgroup.
    let new = state(record.header.new_state)?;
    let value = record.header.at_ns_or_cgroup;
    let (at_ns, range, cgroup) = match new {
        TcpState::Closed if unsent => (0, value, None),
        TcpState::Closed => (value, 0, None),
        _ => (0, 0, cgroup(&record.header)),
    };
    Ok(Event::State {
        socket: Identity { cgroup, ..identity(record) },
        at: Duration::from_nanos(at_ns),
        old: state(record.header.old_state)?,
        new,
        by,
        orphan: flag(&record.header, SocketFlags::ORPHAN),
        unsent,
        own_range: own_range(u32::try_from(range).unwrap_or(0)),
        binding: binding(&record.header),
        timestamps: flag(&record.header, SocketFlags::TIMESTAMPS),
    })
}

fn call_failed(record: &CallRecord) -> Result<Event, DecodeError> {
    let CallRecord { header, local, remote, comm, call, errno, own_range, flags, device, padding: _ } = record;
    let (socket, by) = (SocketId(header.sock), process(header, *comm));
    let name = calls::name(*call).ok_or(DecodeError::UnknownCall(*call))?;
    let is_in_use = match i32::try_from(*errno).unwrap_or(0) {
        libc::EADDRINUSE => true,
        libc::EADDRNOTAVAIL => false,
        _ => return Err(DecodeError::UnknownErrno(*errno)),
    };
    let local = Local { ip: ip(*local), port: header.local_port, device: Device::new(*device) };
    let no_ipv6 = |ip: IpAddr| {
        let on_loopback = ip.is_loopback() && flags & CallFlags::IPV6_DISABLED_ON_LOOPBACK != 0;
        ip.is_ipv6() && (on_loopback || flags & CallFlags::IPV6_DISABLED != 0)
    };
    let refused = if name == calls::CONNECT.name {
        let remote = SocketAddr::new(ip(*remote), header.remote_port);
        Refused::Connect { socket, local, remote, no_ipv6: no_ipv6(remote.ip()) }
    } else {
        let own_range = self::own_range(*own_range);
        Refused::Bind { socket, local, is_in_use, own_range, no_ipv6: no_ipv6(local.ip) }
    };
    Ok(Event::CallFailed { netns: NetnsId(header.netns), call: name, by, cgroup: cgroup(header), refused })
}

fn fd_call_failed(record: &FdCallRecord) -> Result<Event, DecodeError> {
    let FdCallRecord { header, comm, call, errno, limit, open, first, padding: _ } = record;
    let lowest_free = u64::from(*first) + u64::from(open.trailing_ones());
    let refused = match i32::try_from(*errno).unwrap_or(0) {
        libc::EMFILE => {
            Refused::Descriptor { found: (*limit != FdCallRecord::UNKNOWN_LIMIT).then_some((*limit, lowest_free)) }
        }
        libc::ENFILE => Refused::File,
        _ => return Err(DecodeError::UnknownErrno(*errno)),
    };

    Ok(Event::CallFailed {
        netns: NetnsId(header.netns),
        call: calls::name(*call).ok_or(DecodeError::UnknownCall(*call))?,
        by: process(header, *comm),
        cgroup: cgroup(header),
        refused,
    })
}

const fn own_range(raw: u32) -> OwnRange {
    let [low_0, low_1, high_0, high_1] = raw.to_le_bytes();
    OwnRange { low: u16::from_le_bytes([low_0, low_1]), high: u16::from_le_bytes([high_0, high_1]) }
}

fn ip(octets: [u8; 16]) -> IpAddr {
    /// What an IPv4-mapped address begins with.
    const MAPPED: u128 = 0xffff;
    // As `Ipv6Addr::to_canonical`, which compares byte by byte: every event asks twice.
    if u128::from_be_bytes(octets) >> 32 != MAPPED {
        return IpAddr::from(octets);
    }
    let [.., a, b, c, d] = octets;
    IpAddr::from([a, b, c, d])
}

/// `TCP_TIME_WAIT` and `TCP_NEW_SYN_RECV` of include/net/tcp_states.h.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

fn scanned(record: &SocketRecord) -> Result<Event, DecodeError> {
    let header = &record.header;
    let found = match header.new_state {
        TIME_WAIT => Found::TimeWait {
            substate: state(header.old_state)?,
            since: flag(header, SocketFlags::TIMESTAMPS).then(|| Duration::from_nanos(header.at_ns_or_cgroup)),
            began: (header.at_ns_or_cgroup != 0).then(|| Duration::from_nanos(header.at_ns_or_cgroup)),
        },
        NEW_SYN_RECV => Found::Request,
        full => Found::Full(state(full)?),
    };
    let orphan = flag(header, SocketFlags::ORPHAN);
    let cgroup = if matches!(found, Found::Full(_)) { cgroup(header) } else { None };
    let socket = Identity { cgroup, ..identity(record) };
    Ok(Event::Scanned { socket, state: found, binding: binding(header), orphan })
}

const fn flag(header: &RecordHeader, bit: u8) -> bool {
    header.flags & bit != 0
}

fn binding(header: &RecordHeader) -> Binding {
    Binding {
        port_locked: flag(header, SocketFlags::PORT_LOCKED),
        explicit_bucket: flag(header, SocketFlags::BUCKET_KNOWN).then(|| flag(header, SocketFlags::BUCKET_EXPLICIT)),
        connect_bound: flag(header, SocketFlags::CONNECT_BOUND),
    }
}

fn state(raw: u8) -> Result<TcpState, DecodeError> {
    TcpState::from_kernel(raw).ok_or(DecodeError::UnknownState(raw))
}

/// The record of a process that holds a socket, as the kernel side would write it: for those that /proc shows alone.
#[must_use]
pub fn fd_owner_record(id: SocketId, netns: NetnsId, by: Process, fd: u32) -> FdOwnerRecord {
    FdOwnerRecord {
        header: RecordHeader {
            sock: id.0,
            at_ns_or_cgroup: 0,
            netns: netns.0,
            pid: by.pid.0,
            local_port: 0,
            remote_port: 0,
            kind: Kind::FdOwner as u8,
            flags: 0,
            old_state: 0,
            // /proc/PID/fd does not show it.
            new_state: 0,
        },
        comm: by.comm.bytes(),
        fd,
        device: 0,
    }
}

const _: () = assert!(PID_OUTSIDE == Pid::OUTSIDE);

fn process(header: &RecordHeader, comm: [u8; 16]) -> Process {
    Process { pid: Pid(header.pid), comm: Comm::new(comm) }
}

fn identity(record: &SocketRecord) -> Identity {
    let SocketRecord { header, local, remote, device, padding: _ } = record;
    Identity {
        id: SocketId(header.sock),
        netns: NetnsId(header.netns),
        tuple: FourTuple {
            local_ip: ip(*local),
            local_port: header.local_port,
            remote_ip: ip(*remote),
            remote_port: header.remote_port,
        },
        device: Device::new(*device),
        cgroup: None,
    }
}

/// Of records that have one in the place of a time.
fn cgroup(header: &RecordHeader) -> Option<CgroupId> {
    Some(header.at_ns_or_cgroup).filter(|id| *id != 0).map(CgroupId)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
