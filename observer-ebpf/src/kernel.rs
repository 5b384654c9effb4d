//! Reads of kernel memory by offset.

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{
        self, bpf_get_current_task_btf, bpf_skc_to_tcp_sock, bpf_skc_to_tcp_timewait_sock, bpf_sock_from_file,
    },
};
use observer_ebpf::abi::Offsets;

/// A kernel structure whose fields can be read.
pub(crate) trait Fields: Copy {
    /// What a pointer among the fields leads to.
    type Target: Fields;
    /// How all of a `struct tcp_sock` is read.
    type TcpSock: Fields;

    /// Where the structure is.
    fn address(self) -> u64;

    /// The field at `offset`, or `None` if this kernel has no such field or it cannot be read.
    fn read<T>(self, offset: u16) -> Option<T>;

    /// What the pointer at `offset` leads to, unless it is null or cannot be read.
    fn follow(self, offset: u16) -> Option<Self::Target>;

    /// A full TCP socket, with the fields that only the whole `struct tcp_sock` has.
    fn tcp_sock(self) -> Option<Self::TcpSock>;

    /// The same structure, read with a helper, which also reads fields beyond the type that the verifier knows.
    #[inline(always)]
    fn untyped(self) -> KernelPtr {
        KernelPtr(self.address())
    }
}

/// The address of a kernel structure: each field is read by a helper, which checks it.
#[derive(Clone, Copy)]
pub(crate) struct KernelPtr(u64);

impl KernelPtr {
    /// `None` for a null pointer.
    #[inline(always)]
    pub(crate) fn new(address: u64) -> Option<Self> {
        (address != 0).then_some(Self(address))
    }

    /// The structure embedded `offset` bytes further on.
    #[inline(always)]
    pub(crate) fn add(self, offset: u64) -> Self {
        Self(self.0 + offset)
    }
}

impl Fields for KernelPtr {
    type Target = Self;
    type TcpSock = Self;

    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn read<T>(self, offset: u16) -> Option<T> {
        if offset == Offsets::ABSENT {
            return None;
        }
        let field = (self.0 + u64::from(offset)) as *const T;
        // SAFETY: the helper checks the address and fails on one that is not mapped.
        unsafe { bpf_probe_read_kernel(field) }.ok()
    }

    #[inline(always)]
    fn follow(self, offset: u16) -> Option<Self> {
        self.read(offset).and_then(Self::new)
    }

    #[inline(always)]
    fn tcp_sock(self) -> Option<Self> {
        Some(self)
    }
}

/// Makes the verifier forget what it knows of a value on the stack, which stays as it is. It walks a loop step by step, once
/// for each different thing that it knows of what the loop starts with.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a value on the stack has at most 512 bytes")]
pub(crate) fn forget<T: Copy>(value: &mut T) {
    let (to, from) = (&raw mut *value, &raw const *value);
    // SAFETY: the helper copies the value's bytes, in order, to where they are.
    unsafe { generated::bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from.cast()) };
}

/// Aligned as the structures that they are copied from.
#[repr(C, align(8))]
struct Bytes<const LEN: usize>([u8; LEN]);

/// The start of a kernel structure, copied with one helper call: each call costs more than all the loads from the copy.
/// Fields beyond the copy are read from the structure.
pub(crate) struct Head<const LEN: usize> {
    structure: KernelPtr,
    bytes: Bytes<LEN>,
}

impl<const LEN: usize> Head<LEN> {
    #[inline(always)]
    pub(crate) fn of(structure: KernelPtr) -> Option<Self> {
        Some(Self { structure, bytes: structure.read(0)? })
    }
}

impl<const LEN: usize> Fields for &Head<LEN> {
    type Target = KernelPtr;
    type TcpSock = KernelPtr;

    #[inline(always)]
    fn address(self) -> u64 {
        self.structure.address()
    }

    #[inline(always)]
    fn read<T>(self, offset: u16) -> Option<T> {
        let offset_in_head = usize::from(offset);
        if offset == Offsets::ABSENT || offset_in_head + size_of::<T>() > LEN {
            return self.structure.read(offset);
        }
        // SAFETY: within the bytes, as just checked; the verifier knows the offset and checks its alignment.
        Some(unsafe { self.bytes.0.as_ptr().add(offset_in_head).cast::<T>().read() })
    }

    #[inline(always)]
    fn follow(self, offset: u16) -> Option<KernelPtr> {
        self.read(offset).and_then(KernelPtr::new)
    }

    #[inline(always)]
    fn tcp_sock(self) -> Option<KernelPtr> {
        Some(self.structure)
    }
}

/// A structure whose type the verifier knows: read by plain loads, without a helper. Only fields of that type can be.
#[derive(Clone, Copy)]
pub(crate) struct Typed(u64);

impl Typed {
    /// A structure that the running program was given as such; `None` for a null pointer.
    ///
    /// # Safety
    /// `structure` must be an argument of the running typed program, or come from its context.
    #[inline(always)]
    pub(crate) unsafe fn given(structure: u64) -> Option<Self> {
        (structure != 0).then_some(Self(structure))
    }

    /// The current task. The kernel must have the helper.
    #[inline(always)]
    pub(crate) fn current_task() -> Option<Self> {
        // SAFETY: the helper takes no argument, and returns a typed pointer.
        unsafe { Self::given(bpf_get_current_task_btf() as u64) }
    }

    /// The `struct socket` behind this `struct file`, if that is a socket. The kernel must have the helper.
    #[inline(always)]
    pub(crate) fn socket(self) -> Option<Self> {
        // SAFETY: the verifier knows that this is a file; the helper returns a typed pointer.
        unsafe { Self::given(bpf_sock_from_file(self.0 as *mut _) as u64) }
    }

    /// This member of the `sock_common` family as a `struct tcp_timewait_sock`, if it is one. Not of IPv6 where that is a
    /// module.
    #[inline(always)]
    pub(crate) fn tcp_timewait_sock(self) -> Option<Self> {
        // SAFETY: the verifier knows that this is a socket; the helper returns a typed pointer.
        unsafe { Self::given(bpf_skc_to_tcp_timewait_sock(self.0 as *mut _) as u64) }
    }
}

impl Fields for Typed {
    type Target = Self;
    type TcpSock = Self;

    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn read<T>(self, offset: u16) -> Option<T> {
        if offset == Offsets::ABSENT {
            return None;
        }
        // SAFETY: the verifier checks each such load against the structure's BTF; a fault reads as 0.
        Some(unsafe { ((self.0 + u64::from(offset)) as *const T).read() })
    }

    #[inline(always)]
    fn follow(self, offset: u16) -> Option<Self> {
        // SAFETY: a pointer read from a typed structure is typed too.
        self.read(offset).and_then(|structure| unsafe { Self::given(structure) })
    }

    #[inline(always)]
    fn tcp_sock(self) -> Option<Self> {
        // SAFETY: the verifier knows that this is a socket; the helper returns a typed pointer.
        unsafe { Self::given(bpf_skc_to_tcp_sock(self.0 as *mut _) as u64) }
    }
}
