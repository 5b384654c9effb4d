//! Raw records under pseudonyms: field by field of the ABI, so that the compiler asks for each new one.

use std::net::IpAddr;

use observer_ebpf::abi::{
    BoundRecord, CallRecord, FdCallRecord, FdOwnerRecord, InodeRecord, Kind, ListenerRecord, RecordHeader,
    SocketRecord, TaskRecord,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::ip;
use crate::model::units::{Comm, SocketId};

/// What stands in the place of what identifies somebody. The same always gives the same.
pub trait Pseudonyms {
    /// Of the address of a `struct sock`, which shows where the kernel has its memory.
    fn socket(&mut self, id: SocketId) -> SocketId;
    /// Of an address.
    fn ip(&mut self, ip: IpAddr) -> IpAddr;
    /// Of a command name.
    fn comm(&mut self, comm: Comm) -> Comm;
}

/// Writes a record under pseudonyms to `out`. Where the bytes make no sense, nobody can know what is in them: `out` stays
/// empty, which makes as little sense.
pub fn rewrite(bytes: &[u8], with: &mut impl Pseudonyms, out: &mut Vec<u8>) {
    out.clear();
    let Ok((header, _)) = RecordHeader::read_from_prefix(bytes) else { return };
    let Some(kind) = Kind::from_raw(header.kind) else { return };
    match kind {
        Kind::State | Kind::Scanned => put(bytes, out, |record| socket(record, with)),
        Kind::StateByTask | Kind::Connect | Kind::Accept => put(bytes, out, |record| task(record, with)),
        Kind::Destroy => put(bytes, out, |header| self::header(header, with)),
        // The number of a pass stands in the place of the socket.
        Kind::PassEnd => put(bytes, out, |header: RecordHeader| header),
        Kind::FdOwner => put(bytes, out, |record| fd_owner(record, with)),
        Kind::Bound => put(bytes, out, |record| bound(record, with)),
        Kind::Listener => put(bytes, out, |record| listener(record, with)),
        Kind::CallFailed => put(bytes, out, |record| call(record, with)),
        Kind::FdCallFailed => put(bytes, out, |record| fd_call(record, with)),
        Kind::Inode => put(bytes, out, |record| inode(record, with)),
    }
}

/// Puts out the record that `change` makes of the one in `bytes`, if they have its length.
fn put<T: FromBytes + IntoBytes + Immutable>(bytes: &[u8], out: &mut Vec<u8>, change: impl FnOnce(T) -> T) {
    if let Ok(record) = T::read_from_bytes(bytes) {
        out.extend_from_slice(change(record).as_bytes());
    }
}

/// Times, ids of cgroups, namespaces and processes, ports, states and flags stay.
fn header(header: RecordHeader, with: &mut impl Pseudonyms) -> RecordHeader {
    let RecordHeader { sock, at_ns_or_cgroup, netns, pid, local_port, remote_port, kind, flags, old_state, new_state } =
        header;
    let SocketId(sock) = with.socket(SocketId(sock));
    RecordHeader { sock, at_ns_or_cgroup, netns, pid, local_port, remote_port, kind, flags, old_state, new_state }
}

fn socket(record: SocketRecord, with: &mut impl Pseudonyms) -> SocketRecord {
    let SocketRecord { header, local, remote, device, padding: _ } = record;
    SocketRecord {
        header: self::header(header, with),
        local: address(local, with),
        remote: address(remote, with),
        device,
        padding: 0,
    }
}

fn task(record: TaskRecord, with: &mut impl Pseudonyms) -> TaskRecord {
    let TaskRecord { socket, comm } = record;
    TaskRecord { socket: self::socket(socket, with), comm: self::comm(comm, with) }
}

fn fd_owner(record: FdOwnerRecord, with: &mut impl Pseudonyms) -> FdOwnerRecord {
    let FdOwnerRecord { header, comm, fd, device } = record;
    FdOwnerRecord { header: self::header(header, with), comm: self::comm(comm, with), fd, device }
}

fn bound(record: BoundRecord, with: &mut impl Pseudonyms) -> BoundRecord {
    let BoundRecord { fd_owner, local } = record;
    BoundRecord { fd_owner: self::fd_owner(fd_owner, with), local: address(local, with) }
}

fn listener(record: ListenerRecord, with: &mut impl Pseudonyms) -> ListenerRecord {
    let ListenerRecord { header, accept_queue, backlog, syn_queue, drops } = record;
    ListenerRecord { header: self::header(header, with), accept_queue, backlog, syn_queue, drops }
}

fn call(record: CallRecord, with: &mut impl Pseudonyms) -> CallRecord {
    let CallRecord { header, local, remote, comm, call, errno, own_range, flags, device, padding: _ } = record;
    CallRecord {
        header: self::header(header, with),
        local: address(local, with),
        remote: address(remote, with),
        comm: self::comm(comm, with),
        call,
        errno,
        own_range,
        flags,
        device,
        padding: 0,
    }
}

fn fd_call(record: FdCallRecord, with: &mut impl Pseudonyms) -> FdCallRecord {
    let FdCallRecord { header, comm, call, errno, limit, open, first, padding: _ } = record;
    FdCallRecord {
        header: self::header(header, with),
        comm: self::comm(comm, with),
        call,
        errno,
        limit,
        open,
        first,
        padding: 0,
    }
}

fn inode(record: InodeRecord, with: &mut impl Pseudonyms) -> InodeRecord {
    let InodeRecord { header, inode } = record;
    InodeRecord { header: self::header(header, with), inode }
}

/// In the form that it had: IPv4 is v4-mapped.
fn address(octets: [u8; 16], with: &mut impl Pseudonyms) -> [u8; 16] {
    match with.ip(ip(octets)) {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Without what an older, longer name has left behind its end.
fn comm(bytes: [u8; 16], with: &mut impl Pseudonyms) -> [u8; 16] {
    with.comm(Comm::new(bytes)).bytes()
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
