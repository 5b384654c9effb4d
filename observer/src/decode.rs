//! From raw records to events: with `probe` the only place in user space that knows the ABI.

use std::{net::Ipv6Addr, time::Duration};

use observer_ebpf::abi::{
    CallRecord, HolderRecord, InodeRecord, Kind, ListenerRecord, PID_OUTSIDE, RecordHeader, SocketFlags, SocketRecord,
    TaskRecord,
};
use zerocopy::FromBytes;

use crate::{
    model::{
        event::{Binding, Event, Found, Identity, Queues},
        failure::{FailureKind, Local},
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
        Kind::Holder => {
            let HolderRecord { header, comm, fd, padding: _ } = read(kind, bytes)?;
            let is_bound = header.local_port != 0 && binding(&header).explicit_bucket == Some(true);
            Ok(Event::Held {
                id: SocketId(header.sock),
                netns: NetnsId(header.netns),
                by: process(&header, comm),
                fd,
                bound_port: is_bound.then_some(header.local_port),
            })
        }
    }
}

fn read<T: FromBytes>(kind: Kind, bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::Length { kind, got: bytes.len() })
}

fn state_change(record: &SocketRecord, by: Option<Process>) -> Result<Event, DecodeError> {
    Ok(Event::State {
        socket: identity(record),
        at: Duration::from_nanos(record.header.at_ns),
        old: state(record.header.old_state)?,
        new: state(record.header.new_state)?,
        by,
        orphan: flag(&record.header, SocketFlags::ORPHAN),
        unsent: flag(&record.header, SocketFlags::UNSENT),
        binding: binding(&record.header),
        timestamps: flag(&record.header, SocketFlags::TIMESTAMPS),
    })
}

fn call_failed(record: &CallRecord) -> Result<Event, DecodeError> {
    let CallRecord { header, local, comm, call, errno } = record;
    let kind = match i32::try_from(*errno).unwrap_or(0) {
        libc::EMFILE => FailureKind::ProcessFds,
        libc::ENFILE => FailureKind::HostFiles,
        libc::EADDRINUSE => FailureKind::AddressInUse,
        _ => return Err(DecodeError::UnknownErrno(*errno)),
    };
    let asked = Local { ip: Ipv6Addr::from(*local).to_canonical(), port: header.local_port };
    Ok(Event::CallFailed {
        netns: NetnsId(header.netns),
        call: calls::name(*call).ok_or(DecodeError::UnknownCall(*call))?,
        kind,
        by: process(header, *comm),
        local: (kind == FailureKind::AddressInUse).then_some(asked),
    })
}

/// `TCP_TIME_WAIT` and `TCP_NEW_SYN_RECV` of include/net/tcp_states.h.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

fn scanned(record: &SocketRecord) -> Result<Event, DecodeError> {
    let header = &record.header;
    let found = match header.new_state {
        TIME_WAIT => Found::TimeWait {
            substate: state(header.old_state)?,
            since: flag(header, SocketFlags::TIMESTAMPS).then(|| Duration::from_nanos(header.at_ns)),
        },
        NEW_SYN_RECV => Found::Request,
        full => Found::Full(state(full)?),
    };
    let orphan = flag(header, SocketFlags::ORPHAN);
    Ok(Event::Scanned { socket: identity(record), state: found, binding: binding(header), orphan })
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
pub fn holder_record(id: SocketId, netns: NetnsId, by: Process, fd: u32) -> HolderRecord {
    HolderRecord {
        header: RecordHeader {
            sock: id.0,
            at_ns: 0,
            netns: netns.0,
            pid: by.pid.0,
            local_port: 0,
            remote_port: 0,
            kind: Kind::Holder as u8,
            flags: 0,
            old_state: 0,
            new_state: TcpState::Established as u8,
        },
        comm: by.comm.bytes(),
        fd,
        padding: 0,
    }
}

const _: () = assert!(PID_OUTSIDE == Pid::OUTSIDE);

fn process(header: &RecordHeader, comm: [u8; 16]) -> Process {
    Process { pid: Pid(header.pid), comm: Comm::new(comm) }
}

fn identity(record: &SocketRecord) -> Identity {
    let SocketRecord { header, local, remote } = record;
    Identity {
        id: SocketId(header.sock),
        netns: NetnsId(header.netns),
        tuple: FourTuple {
            local_ip: Ipv6Addr::from(*local).to_canonical(),
            local_port: header.local_port,
            remote_ip: Ipv6Addr::from(*remote).to_canonical(),
            remote_port: header.remote_port,
        },
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
