//! State changes that the next record of their socket makes needless. A connection passes through several states within a millisecond as it
//! ends, and one read of the ring has all of them.

use observer_ebpf::abi::{Kind, RecordHeader, SocketRecord};
use zerocopy::FromBytes as _;

use crate::model::units::TcpState;

/// Of up to [`Superseded::MOST`] consecutive records, those that need not be applied: see [`superseded`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Superseded(u64);

impl Superseded {
    /// Of so many records it can tell; each beyond has to be applied.
    pub const MOST: usize = u64::BITS as usize;

    /// Whether the record at this place, counted from 0, is one.
    #[must_use]
    pub const fn has(self, place: usize) -> bool {
        place < Self::MOST && self.0 & 1 << place != 0
    }
}

/// A change that the next record of its socket may make needless.
#[derive(Clone, Copy)]
struct Step {
    sock: u64,
    to: u8,
    flags: u8,
    place: usize,
}

/// Sockets whose last record is kept in mind: one for each value of some bits of a hash. Of two with the same the earlier is
/// forgotten, and its change is applied.
const SLOTS: usize = 64;

fn slot_of(sock: u64) -> usize {
    // Multiplicative hashing (Knuth): addresses in a slab differ by multiples of its object's size.
    let [highest, ..] = sock.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    usize::from(highest) % SLOTS
}

/// The records among `records` that can be left out: changes between two states of an established connection, where the next record of the
/// socket begins in the state that this one led to and says all that this one said. After both, a socket is as after the second
/// alone, and nothing that stands between them looks at it. What scans show is compared with all that was known before, so
/// nothing is left out beside it.
pub fn superseded<'a>(records: impl Iterator<Item = &'a [u8]>) -> Superseded {
    let mut found = Superseded::default();
    let mut last: [Option<Step>; SLOTS] = [None; SLOTS];
    for (place, record) in records.enumerate().take(Superseded::MOST) {
        let Ok((header, _)) = RecordHeader::read_from_prefix(record) else { continue };
        if !is_of_hook(header.kind) {
            return Superseded::default();
        }
        let slot = &mut last[slot_of(header.sock)];
        let before = slot.take().filter(|step| step.sock == header.sock);
        if header.kind != Kind::State as u8 || record.len() != size_of::<SocketRecord>() {
            continue;
        }
        let RecordHeader { sock, old_state, new_state, flags, .. } = header;
        if let Some(step) = before
            && step.to == old_state
            && step.flags & !flags == 0
            && TcpState::from_kernel(new_state).is_some()
        {
            found.0 |= 1 << step.place;
        }
        if is_of_established(old_state) && is_of_established(new_state) {
            *slot = Some(Step { sock, to: new_state, flags, place });
        }
    }
    found
}

fn is_of_established(state: u8) -> bool {
    TcpState::from_kernel(state).is_some_and(TcpState::is_past_handshake)
}

fn is_of_hook(kind: u8) -> bool {
    match Kind::from_raw(kind) {
        Some(
            Kind::State
            | Kind::StateByTask
            | Kind::Connect
            | Kind::Accept
            | Kind::Destroy
            | Kind::CallFailed
            | Kind::FdCallFailed,
        ) => true,
        Some(Kind::Scanned | Kind::FdOwner | Kind::Listener | Kind::Bound | Kind::Inode | Kind::PassEnd) | None => {
            false
        }
    }
}

#[cfg(test)]
#[path = "superseded_tests.rs"]
mod tests;
