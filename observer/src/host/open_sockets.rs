//! Open sockets of processes, by /proc: as `ss -p` finds them.

use std::{fs, os::unix::ffi::OsStrExt as _};

use super::{namespaces, proc};
use crate::model::units::{Comm, Pid, Process};

/// A socket that a process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// The process.
    pub by: Process,
    /// Its descriptor.
    pub fd: u32,
    /// The inode of the socket.
    pub inode: u64,
}

/// Calls `found` with the sockets of every process that the table lists and that may be looked at.
pub fn sockets(mut found: impl FnMut(OpenSocket)) {
    for pid in proc::list().into_iter().flatten() {
        let Ok(listing) = fs::read_dir(proc::file(pid, "fd")) else { continue };
        let mut by = None;
        for entry in listing.flatten() {
            let Some(inode) = fs::read_link(entry.path()).ok().and_then(|link| socket(link.as_os_str().as_bytes()))
            else {
                continue;
            };
            let Some(fd) = entry.file_name().to_str().and_then(|fd| fd.parse().ok()) else { continue };
            let by = *by.get_or_insert_with(|| named(pid));
            found(OpenSocket { by, fd, inode });
        }
    }
}

fn named(pid: Pid) -> Process {
    Process { pid, comm: Comm::from(namespaces::comm(&proc::of(pid)).unwrap_or_default().as_slice()) }
}

/// "socket:[12345]"
pub(super) fn socket(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link).ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found_with_its_descriptor_and_inode() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = u32::try_from(listener.as_raw_fd()).unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        let inode = socket(link.as_os_str().as_bytes()).unwrap();
        let mut all = Vec::new();
        sockets(|it| all.push(it));
        let by = named(Pid(std::process::id()));
        assert!(all.contains(&OpenSocket { by, fd, inode }));
        assert_eq!(socket(b"pipe:[1]"), None);
    }
}
