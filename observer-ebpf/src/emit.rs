//! Writes records to the ring buffer, and counts losses where they happen.

use observer_ebpf::abi::{Loss, SocketRecord, TaskRecord, WAKE_UP_NEVER};

use crate::{
    maps::{EVENTS, LOSSES},
    task::Process,
};

/// Writes one record of a hook, or counts its loss. Returns whether it was written.
#[inline(always)]
pub(crate) fn emit<T: 'static>(record: T) -> bool {
    emit_or_count(record, Loss::RingFull)
}

/// Writes one record of a scan, or counts its loss.
#[inline(always)]
pub(crate) fn emit_found<T: 'static>(record: T) {
    emit_or_count(record, Loss::ScanRingFull);
}

#[inline(always)]
fn emit_or_count<T: 'static>(record: T, loss: Loss) -> bool {
    let Some(mut slot) = EVENTS.reserve::<T>(0) else {
        count(loss);
        return false;
    };
    slot.write(record);
    slot.submit(WAKE_UP_NEVER);
    true
}

/// Writes `socket` as an act of the current process, as [`emit`] does.
#[inline(always)]
pub(crate) fn emit_by_task(mut socket: SocketRecord) -> bool {
    let Process { pid, comm } = Process::current();
    socket.header.pid = pid;
    emit(TaskRecord { socket, comm })
}

/// Adds one to a loss counter of this CPU. A nested softirq may lose one increment: that the slot is not 0 is exact.
#[inline(always)]
pub(crate) fn count(loss: Loss) {
    if let Some(slot) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: the map lookup returned this CPU's live slot.
        unsafe { *slot += 1 };
    }
}
