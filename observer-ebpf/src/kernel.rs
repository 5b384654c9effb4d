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

/// A source of the fields of one kernel structure.
pub(crate) trait Fields {
    /// The field at `offset`, or `None` if this kernel has no such field or it cannot be read.
    fn read<T>(&self, offset: u16) -> Option<T>;
}

impl Fields for KernelPtr {
    #[inline(always)]
    fn read<T>(&self, offset: u16) -> Option<T> {
        Self::read(*self, offset)
    }
}

/// Aligned as the structures that they are copied from.
#[repr(C, align(8))]
struct Bytes([u8; Head::LEN]);

/// The start of a kernel structure, copied by one helper call: each call costs more than all the loads from the copy.
/// What lies beyond is read from the structure.
pub(crate) struct Head {
    structure: KernelPtr,
    bytes: Bytes,
}

impl Head {
    /// Holds the addresses, ports, state and namespace of `struct sock_common` on every kernel seen (88 bytes).
    const LEN: usize = 96;

    #[inline(always)]
    pub(crate) fn of(structure: KernelPtr) -> Option<Self> {
        Some(Self { structure, bytes: structure.read(0)? })
    }
}

impl Fields for Head {
    #[inline(always)]
    fn read<T>(&self, offset: u16) -> Option<T> {
        let offset_in_head = usize::from(offset);
        if offset == Offsets::ABSENT || offset_in_head + size_of::<T>() > Self::LEN {
            return self.structure.read(offset);
        }
        // SAFETY: within the bytes, as just checked; the verifier knows the offset and checks its alignment.
        Some(unsafe { self.bytes.0.as_ptr().add(offset_in_head).cast::<T>().read() })
    }
}

/// A structure whose type the verifier knows, as in the context of an iterator: read by plain loads, without a helper.
#[derive(Clone, Copy)]
pub(crate) struct Typed(KernelPtr);

impl Typed {
    /// # Safety
    /// `structure` must come from the running program's typed context, and only fields of that type be read.
    #[inline(always)]
    pub(crate) unsafe fn new(structure: KernelPtr) -> Self {
        Self(structure)
    }
}

impl Fields for Typed {
    #[inline(always)]
    fn read<T>(&self, offset: u16) -> Option<T> {
        if offset == Offsets::ABSENT {
            return None;
        }
        // SAFETY: the verifier checks each such load against the structure's BTF; a fault reads as 0.
        Some(unsafe { ((self.0.address() + u64::from(offset)) as *const T).read() })
    }
}
