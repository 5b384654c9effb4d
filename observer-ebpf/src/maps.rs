//! The maps and read-only globals that both sides know by name.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};
use observer_ebpf::abi::{Loss, Offsets, Settings};

use crate::hooks::Bind;

/// Every record, of hooks and of scans, in the order in which it happened. User space sets the size at load.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Records lost, by [`Loss`], since load.
#[map]
pub(crate) static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// What threads that are within bind() have asked for: more at once than this forget the oldest.
#[map]
pub(crate) static BINDS: LruHashMap<u64, Bind> = LruHashMap::with_max_entries(1024, 0);

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
