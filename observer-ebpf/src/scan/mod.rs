//! Iterator programs (since 5.9): they write what exists now to the ring buffer that hooks write changes to.

mod task_file;
mod tcp;

use aya_ebpf::helpers::generated::bpf_seq_write;
use observer_ebpf::abi::{Kind, RecordHeader};

use crate::emit::emit_found;

/// Bytes that an iterator program writes to its own output for each record, so that a `read()` of 4 KiB returns after
/// 512 records and user space can drain the ring buffer in between. Sessions are numbered from 1.
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
        // SAFETY: see above. A full output makes the kernel show the same object again after the next read(); user space takes
        // a record twice without harm.
        unsafe { self.write(PACE) };
    }

    /// Reports that the iterator has shown everything. The kernel calls the program once more then, with no object, in the
    /// read() that reaches the end.
    ///
    /// # Safety
    /// As of [`Self::pace`].
    #[inline(always)]
    pub(crate) unsafe fn end(&self) {
        emit_found(RecordHeader {
            sock: self.session_id,
            at_ns_or_cgroup: 0,
            netns: 0,
            pid: 0,
            local_port: 0,
            remote_port: 0,
            kind: Kind::PassEnd as u8,
            flags: 0,
            old_state: 0,
            new_state: 0,
        });
        // SAFETY: as the caller promises.
        unsafe { self.write(self.session_id) };
    }

    #[inline(always)]
    unsafe fn write(&self, word: u64) {
        // SAFETY: `seq` is the running iterator's own, as the caller promises.
        unsafe { bpf_seq_write(self.seq.cast(), (&raw const word).cast_mut().cast(), 8) };
    }
}
