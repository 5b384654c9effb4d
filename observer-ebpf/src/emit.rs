//! Writes records to the ring buffer, and counts losses where they happen.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use observer_ebpf::abi::{Loss, SocketRecord, TaskRecord};

use crate::{
    maps::{EVENTS, LOSSES, setting},
    task::Process,
};

/// Writes one record of a hook, or counts its loss. Returns whether it was written.
#[inline(always)]
pub(crate) fn emit<T: 'static>(record: T) -> bool {
    emit_or_count(record, Loss::RingFull, wake_up)
}

/// Writes one record of a scan, or counts its loss. User space reads the ring itself while it scans: few records pay for a wake-up.
#[inline(always)]
pub(crate) fn emit_found<T: 'static>(record: T) {
    emit_or_count(record, Loss::ScanRingFull, || BPF_RB_NO_WAKEUP.into());
}

#[inline(always)]
fn emit_or_count<T: 'static>(record: T, loss: Loss, wake_up: impl FnOnce() -> u64) -> bool {
    let Some(mut slot) = EVENTS.reserve::<T>(0) else {
        count(loss);
        return false;
    };
    slot.write(record);
    slot.submit(wake_up());
    true
}

/// Whether the record that is about to be submitted wakes user space: one of the first beyond a part of the ring does.
#[inline(always)]
fn wake_up() -> u64 {
    let waiting = EVENTS.query(BPF_RB_AVAIL_DATA.into());
    let beyond = waiting.wrapping_sub(setting!(wake_from).into());
    if beyond < setting!(wake_within).into() { BPF_RB_FORCE_WAKEUP.into() } else { BPF_RB_NO_WAKEUP.into() }
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
