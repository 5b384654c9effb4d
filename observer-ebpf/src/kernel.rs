//! Reads of kernel memory by offset.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use observer_ebpf::abi::Offsets;

/// The address of a kernel structure.
#[derive(Clone, Copy)]
pub(crate) struct KernelPtr(u64);

impl KernelPtr {
    /// `None` for a null pointer.
    #[inline(always)]
    pub(crate) fn new(address: u64) -> Option<Self> {
        (address != 0).then_some(Self(address))
    }

    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0
    }

    /// The field at `offset`, or `None` if this kernel has no such field or the read fails.
    #[inline(always)]
    pub(crate) fn read<T>(self, offset: u16) -> Option<T> {
        if offset == Offsets::ABSENT {
            return None;
        }
        let field = (self.0 + u64::from(offset)) as *const T;
        // SAFETY: the helper checks the address and fails on one that is not mapped.
        unsafe { bpf_probe_read_kernel(field) }.ok()
    }

    /// The pointer at `offset`, unless it is null or cannot be read.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u16) -> Option<Self> {
        self.read::<u64>(offset).and_then(Self::new)
    }

    /// The structure embedded `offset` bytes further on.
    #[inline(always)]
    pub(crate) fn add(self, offset: u64) -> Self {
        Self(self.0 + offset)
    }
}

/// The start of a kernel structure, copied by one helper call: each call costs more than all the loads from the copy.
#[repr(C, align(8))]
pub(crate) struct Head {
    bytes: [u8; Self::LEN],
}

impl Head {
    /// Holds the addresses, ports, state and namespace of `struct sock_common` on every kernel seen (88 bytes).
    const LEN: usize = 96;

    #[inline(always)]
    pub(crate) fn of(structure: KernelPtr) -> Option<Self> {
        structure.read(0)
    }

    /// The field at `offset` of `structure`, of which this is the start.
    #[inline(always)]
    pub(crate) fn read<T>(&self, structure: KernelPtr, offset: u16) -> Option<T> {
        let offset_in_head = usize::from(offset);
        if offset == Offsets::ABSENT || offset_in_head + size_of::<T>() > Self::LEN {
            return structure.read(offset);
        }
        // SAFETY: within the bytes, as just checked; the verifier knows the offset and checks its alignment.
        Some(unsafe { self.bytes.as_ptr().add(offset_in_head).cast::<T>().read() })
    }
}
