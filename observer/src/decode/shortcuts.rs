//! Records that need not be applied one by one. A connection begins, and ends, within a millisecond, and one read of the ring has
//! all that happened: then one change of the model does for several records, and what the model shows is the same.

use observer_ebpf::abi::{Kind, RecordHeader, SocketRecord, TaskRecord};
use zerocopy::FromBytes as _;

use super::{DecodeError, process, read, state_change};
use crate::model::{event::Event, units::TcpState};

/// Of up to [`Shortcuts::MOST`] consecutive records, those that need not be applied, and those that are applied with another: see
/// [`shortcuts`].
#[derive(Clone, Copy, Debug)]
pub struct Shortcuts {
    left_out: u64,
    /// Of each record the place of the one that is applied with it; [`NO_PLACE`] where there is none.
    joined: [u8; Self::MOST],
}

impl Shortcuts {
    /// So many are looked at; each record beyond has to be applied.
    pub const MOST: usize = u64::BITS as usize;
    const NONE: Self = Self { left_out: 0, joined: [NO_PLACE; Self::MOST] };

    /// Whether the record at this place, counted from 0, is not to be applied.
    #[must_use]
    pub const fn leave_out(&self, place: usize) -> bool {
        place < Self::MOST && self.left_out & 1 << place != 0
    }

    /// The place of a later record that is to be applied with the one at this place, by [`joined`].
    #[must_use]
    pub fn joined_to(&self, place: usize) -> Option<usize> {
        self.joined.get(place).filter(|next| **next != NO_PLACE).map(|next| usize::from(*next))
    }
}

/// What the next record of a socket may do for its last one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Go on from this state of an established connection: then the last one can be left out.
    Passing(u8),
    /// Show that connect() has succeeded, and from which port: both are one event.
    Connecting,
    /// Show who accepted it: both are one event.
    Accepting,
}

/// A record, and whose it is.
#[derive(Clone, Copy)]
struct Pending {
    /// Of no socket: 0.
    sock: u64,
    place: u8,
    /// Of a connect() the place of the record of the connect hook, which follows where that is attached; else [`NO_PLACE`].
    connect: u8,
    flags: u8,
    last: Last,
}

const NO_PLACE: u8 = u8::MAX;

/// Sockets whose last record is kept in mind: one for each value of some bits of a hash. Of two with the same the earlier is
/// forgotten, and its record is applied.
const SLOTS: usize = 64;

fn slot_of(sock: u64) -> usize {
    // Multiplicative hashing (Knuth): addresses in a slab differ by multiples of its object's size.
    let [highest, ..] = sock.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    usize::from(highest) % SLOTS
}

/// What the records among `records` can be applied without. Always two consecutive records of one socket:
///
/// - A change between two states of an established connection is left out if the next one begins in the state that it led to, and
///   says all that it said. After both, the socket is as after the second alone, and nothing that stands between them looks at it.
/// - The begin of connect() and its success are one event, which needs no record of the connect hook, and so are the begin of an
///   accepted socket and its accept().
///
/// What scans show is compared with all that was known before, so there is no shortcut beside it.
#[must_use]
pub fn shortcuts(records: &[&[u8]]) -> Shortcuts {
    const NOTHING: Pending = Pending { sock: 0, place: 0, connect: NO_PLACE, flags: 0, last: Last::Accepting };
    let mut found = Shortcuts::NONE;
    let mut pending = [NOTHING; SLOTS];
    for (place, record) in (0..).zip(records.iter().take(Shortcuts::MOST)) {
        let Ok((header, _)) = RecordHeader::read_from_prefix(record) else { continue };
        let kind = match Kind::from_raw(header.kind) {
            Some(kind) if is_of_hook(kind) => kind,
            _ => return Shortcuts::NONE,
        };
        let slot = &mut pending[slot_of(header.sock)];
        let before = std::mem::replace(slot, NOTHING);
        if before.sock == header.sock && header.sock != 0 {
            let first = usize::from(before.place);
            match before.last {
                Last::Passing(state)
                    if passes_on(kind, record, &header, state) && before.flags & !header.flags == 0 =>
                {
                    found.left_out |= 1 << first;
                }
                Last::Connecting if is_of_same_connect(kind, records[first], record) => {
                    *slot = Pending { connect: place, ..before };
                    continue;
                }
                last if is_one_event(last, records[first], record) => {
                    found.left_out |= 1 << place;
                    if before.connect != NO_PLACE {
                        found.left_out |= 1 << before.connect;
                    }
                    found.joined[first] = place;
                }
                _ => {}
            }
        }
        if let Some(last) = last(kind, record, &header) {
            *slot = Pending { sock: header.sock, place, connect: NO_PLACE, flags: header.flags, last };
        }
    }
    found
}

/// What the next record of its socket may do for it.
fn last(kind: Kind, record: &[u8], header: &RecordHeader) -> Option<Last> {
    let (old, new) = (TcpState::from_kernel(header.old_state)?, TcpState::from_kernel(header.new_state)?);
    match kind {
        Kind::State if record.len() != size_of::<SocketRecord>() => None,
        Kind::State if old.is_past_handshake() && new.is_past_handshake() => Some(Last::Passing(header.new_state)),
        Kind::State if (old, new) == (TcpState::SynReceived, TcpState::Established) => Some(Last::Accepting),
        // What had a port before was bound.
        Kind::StateByTask if (old, new, header.local_port) == (TcpState::Closed, TcpState::SynSent, 0) => {
            Some(Last::Connecting)
        }
        _ => None,
    }
}

/// Whether it is a change that begins in this state.
fn passes_on(kind: Kind, record: &[u8], header: &RecordHeader, state: u8) -> bool {
    kind == Kind::State
        && record.len() == size_of::<SocketRecord>()
        && header.old_state == state
        && TcpState::from_kernel(header.new_state).is_some()
}

/// Whether the connect hook says of it what its first record has said.
fn is_of_same_connect(kind: Kind, first: &[u8], next: &[u8]) -> bool {
    let (Ok(first), Ok(next)) = (TaskRecord::read_from_bytes(first), TaskRecord::read_from_bytes(next)) else {
        return false;
    };
    let of_caller = |record: &TaskRecord| (record.socket.header.pid, record.comm, connection(&record.socket));
    kind == Kind::Connect && of_caller(&first) == of_caller(&next)
}

/// What stays the same from the begin of a connection to its end.
const fn connection(socket: &SocketRecord) -> (u32, [u8; 16], [u8; 16], u16, u32) {
    let SocketRecord { header, local, remote, device, padding: _ } = socket;
    (header.netns, *local, *remote, header.remote_port, *device)
}

/// Whether both are one event: see [`joined`].
fn is_one_event(last: Last, first: &[u8], next: &[u8]) -> bool {
    let (Ok((first, _)), Ok((next, rest))) =
        (SocketRecord::read_from_prefix(first), SocketRecord::read_from_prefix(next))
    else {
        return false;
    };
    let (kind, length, old, port) = match last {
        Last::Connecting => (Kind::State, 0, TcpState::SynSent as u8, next.header.local_port),
        Last::Accepting => {
            (Kind::Accept, size_of::<TaskRecord>() - size_of::<SocketRecord>(), 0, first.header.local_port)
        }
        Last::Passing(_) => return false,
    };
    let header = &next.header;
    (header.kind, rest.len(), header.old_state, header.flags) == (kind as u8, length, old, 0)
        && header.new_state == TcpState::Established as u8
        && (port, connection(&next)) == (header.local_port, connection(&first))
}

/// What a record and the next one of its socket say together, if [`shortcuts`] has joined them. connect() and its success are a change from
/// CLOSED to ESTABLISHED; the end of a handshake and accept() are a change to ESTABLISHED by the process that accepts.
pub fn joined(first: &[u8], next: &[u8]) -> Result<Event, DecodeError> {
    if let Ok(TaskRecord { socket, comm }) = TaskRecord::read_from_bytes(first) {
        let next: SocketRecord = read(Kind::State, next)?;
        let RecordHeader { local_port, new_state, .. } = next.header;
        let header = RecordHeader { local_port, new_state, ..socket.header };
        return state_change(&SocketRecord { header, ..socket }, Some(process(&header, comm)));
    }
    let TaskRecord { socket, comm } = read(Kind::Accept, next)?;
    state_change(&read(Kind::State, first)?, Some(process(&socket.header, comm)))
}

fn is_of_hook(kind: Kind) -> bool {
    match kind {
        Kind::State
        | Kind::StateByTask
        | Kind::Connect
        | Kind::Accept
        | Kind::Destroy
        | Kind::CallFailed
        | Kind::FdCallFailed => true,
        Kind::Scanned | Kind::FdOwner | Kind::Listener | Kind::Bound | Kind::Inode | Kind::PassEnd => false,
    }
}

#[cfg(test)]
#[path = "shortcuts_tests.rs"]
mod tests;
