//! The maps and read-only globals that both sides know by name.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};
use observer_ebpf::abi::{Loss, Offsets, Settings};

use crate::hooks::Call;

/// Every record, of hooks and of scans, in the order in which it happened. User space sets the size at load.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Records lost, by [`Loss`], since load.
#[map]
pub(crate) static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// The socket whose end this CPU has told last. It is destroyed right after, as a rule on the same CPU: a second word on it
/// would cost as much as the first and say nothing.
#[map]
static JUST_CLOSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Takes note of a socket whose end was told.
#[inline(always)]
pub(crate) fn note_closed(sock: u64) {
    if let Some(slot) = JUST_CLOSED.get_ptr_mut(0) {
        // SAFETY: the map lookup returned this CPU's live slot.
        unsafe { *slot = sock };
    }
}

/// Whether this CPU has just told the socket's end; it has not any more when it is asked again, for the next socket at
/// this address is another one.
#[inline(always)]
pub(crate) fn was_just_closed(sock: u64) -> bool {
    let Some(slot) = JUST_CLOSED.get_ptr_mut(0) else { return false };
    // SAFETY: the map lookup returned this CPU's live slot.
    let told = unsafe { slot.replace(0) };
    told == sock
}

/// The last bind(), connect() or listen() of each thread, which it may be within: of more threads than this those are
/// forgotten that have called none for longest.
#[map]
pub(crate) static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(4096, 0);

/// Filled in by user space before load; the verifier sees constants.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Filled in by user space before load.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: Settings = Settings::DEFAULT;

/// The offset of a kernel field, as user space found it.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: reads a live static; volatile, because the value is replaced after compilation.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::OFFSETS.$field) }
    };
}
pub(crate) use offset;

/// A choice of user space.
macro_rules! setting {
    ($field:ident) => {
        // SAFETY: reads a live static; volatile, because the value is replaced after compilation.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::SETTINGS.$field) }
    };
}
pub(crate) use setting;
