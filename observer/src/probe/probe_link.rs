//! An attached kprobe or kretprobe and its missed runs, which aya does not report.

use std::os::fd::{AsRawFd as _, OwnedFd};

use aya::programs::links::FdLink;

use super::system_call::{self, LINK_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD};

/// Detached when dropped.
pub(super) struct ProbeLink {
    _attached: FdLink,
    /// The same link; `None` without the right to open links by their id (`CAP_SYS_ADMIN`).
    fd: Option<OwnedFd>,
}

impl ProbeLink {
    pub(super) fn new(attached: FdLink) -> Self {
        let fd = attached.info().ok().and_then(|info| open(info.id()));
        Self { _attached: attached, fd }
    }

    /// Missed runs: the probe was hit within another probe, or, for a kretprobe, as many returns were
    /// pending as it can hold (`nmissed` of `struct kprobe` and `struct kretprobe`). `None` before 6.7, where the kernel does not report it.
    pub(super) fn missed(&self) -> Option<u64> {
        let mut info = LinkInfo::default();
        let mut attr = GetInfo {
            fd: self.fd.as_ref()?.as_raw_fd().cast_unsigned(),
            info_len: u32::try_from(size_of::<LinkInfo>()).ok()?,
            info: (&raw mut info) as u64,
        };
        // SAFETY: the arm of this command; its buffer is `info`, with its true size, and both outlive the call.
        let result = unsafe { system_call::bpf(OBJ_GET_INFO_BY_FD, &mut attr) };
        let is_reported = attr.info_len as usize == size_of::<LinkInfo>();
        let is_kprobe = info.link_type == PERF_EVENT && KPROBES.contains(&info.event_type);
        (result.is_ok() && is_reported && is_kprobe).then_some(info.missed)
    }
}

fn open(id: u32) -> Option<OwnedFd> {
    // SAFETY: the arm of this command, without pointers.
    unsafe { system_call::new_fd(LINK_GET_FD_BY_ID, &mut LinkById { id, next: 0, flags: 0 }) }.ok()
}

#[repr(C)]
struct GetInfo {
    fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
struct LinkById {
    id: u32,
    next: u32,
    flags: u32,
}

/// `struct bpf_link_info` of a link of type `perf_event` with a kprobe.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    program: u32,
    padding: u32,
    event_type: u32,
    event_padding: u32,
    function_name: u64,
    name_len: u32,
    offset: u32,
    address: u64,
    missed: u64,
}

/// `BPF_LINK_TYPE_PERF_EVENT`; `BPF_PERF_EVENT_KPROBE` and `BPF_PERF_EVENT_KRETPROBE`.
const PERF_EVENT: u32 = 7;
const KPROBES: [u32; 2] = [3, 4];
