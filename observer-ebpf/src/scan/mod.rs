//! Iterator programs (since 5.9): they write what exists now to the ring buffer that hooks write changes to.

mod task_file;
mod tcp;

use aya_ebpf::helpers::generated::bpf_seq_write;

/// Bytes that an iterator program writes to its own output for each record, so that a `read()` of 4 KiB returns after
/// 512 records and user space can drain the ring buffer in between.
const PACE: u64 = 0;

/// `struct bpf_iter_meta`
#[repr(C)]
pub(crate) struct IterMeta {
    seq: *mut core::ffi::c_void,
    session_id: u64,
    seq_num: u64,
}

impl IterMeta {
    /// Accounts for one record in the iterator's own output.
    ///
    /// # Safety
    /// `self` must be the `meta` of the running iterator program's context.
    #[inline(always)]
    pub(crate) unsafe fn pace(&self) {
        let pace = PACE;
        // SAFETY: `seq` is the running iterator's own, as the caller promises. A full output makes the kernel show
        // the same object again after the next read(); user space takes a record twice without harm.
        unsafe { bpf_seq_write(self.seq.cast(), (&raw const pace).cast_mut().cast(), 8) };
    }
}
