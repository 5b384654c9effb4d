//! bpf(2) commands that aya lacks, or that it makes in another way than `observer` needs.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Commands: `enum bpf_cmd` of include/uapi/linux/bpf.h.
pub(super) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
pub(super) const LINK_CREATE: libc::c_long = 28;
pub(super) const LINK_GET_FD_BY_ID: libc::c_long = 30;
pub(super) const ITER_CREATE: libc::c_long = 33;

/// # Safety
/// `attr` must be the arm of `union bpf_attr` that `command` takes; what it points to must outlive the call.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: as the caller promises.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

/// The new descriptor that a command makes.
///
/// # Safety
/// As for [`bpf`]; `command` must be one that returns a new descriptor.
pub(super) unsafe fn new_fd<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
