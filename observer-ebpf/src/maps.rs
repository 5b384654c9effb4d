//! The maps and read-only globals that several programs share. User space finds them by name.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use observer_ebpf::abi::{Loss, Offsets, Settings};

/// Every record of hooks and scans, in the order of what they report. User space sets the size at load.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Lost records since load, indexed by [`Loss`].
#[map]
pub(crate) static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// Other than 0 while user space has suspended the hooks that follow sockets, because they cost too much. A link that is taken
/// away could not always be made again without rights, and a hook that returns early can count what it leaves out.
#[map]
static SUSPENDED: Array<u32> = Array::with_max_entries(1, 0);

/// Whether the hooks that follow sockets are suspended.
#[inline(always)]
pub(crate) fn is_suspended() -> bool {
    SUSPENDED.get(0).is_some_and(|suspended| *suspended != 0)
}

/// The last socket whose end this CPU reported. The kernel destroys it right after, usually on the same CPU: a second record
/// would cost as much as the first and add nothing.
#[map]
static JUST_CLOSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Notes a socket whose end was reported.
#[inline(always)]
pub(crate) fn note_closed(sock: u64) {
    if let Some(slot) = JUST_CLOSED.get_ptr_mut(0) {
        // SAFETY: the map lookup returned this CPU's live slot.
        unsafe { *slot = sock };
    }
}

/// Whether this CPU has just reported the socket's end. The answer is true once: the next socket at this address is another
/// one.
#[inline(always)]
pub(crate) fn was_just_closed(sock: u64) -> bool {
    let Some(slot) = JUST_CLOSED.get_ptr_mut(0) else { return false };
    // SAFETY: the map lookup returned this CPU's live slot.
    let reported = unsafe { slot.replace(0) };
    reported == sock
}

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
