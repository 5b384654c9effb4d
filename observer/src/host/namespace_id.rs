//! Network namespaces by the ids that the kernel gives them, each only once since boot (Linux 6.19). `listns()` lists those that
//! a process is in, or that a mount or an open descriptor keeps: among them those to which no path leads. One that only
//! sockets keep is not listed.

use std::{
    fs::File,
    io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    os::unix::fs::MetadataExt as _,
};

use rustc_hash::FxHashMap;

use crate::model::units::NetnsId;

/// The system call, the same on every processor (include/uapi/asm-generic/unistd.h).
const LISTNS: libc::c_long = 470;
/// Room for so many ids more than were listed before,
const ROOM: usize = 16;
/// and for so many at most: the kernel takes no more than a million (EOVERFLOW).
const MOST_ROOM: usize = 1 << 19;

/// The id of a namespace, of whatever kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId(u64);

/// What the kernel listed, with the inode numbers.
#[derive(Debug, Default)]
pub struct Listed {
    known: FxHashMap<NamespaceId, NetnsId>,
    /// This kernel does not list them, or not for this process.
    is_refused: bool,
}

impl Listed {
    /// The network namespaces that the kernel lists, of those that this process may open. None where it does not list them.
    pub(super) fn look(&mut self) -> impl Iterator<Item = (NetnsId, NamespaceId)> {
        let listed = if self.is_refused { Ok(Vec::new()) } else { list(self.known.len() + ROOM) };
        match listed {
            Ok(ids) => {
                let before = std::mem::take(&mut self.known);
                let number = |id: NamespaceId| before.get(&id).copied().or_else(|| id.number());
                self.known = ids.into_iter().filter_map(|id| Some((id, number(id)?))).collect();
            }
            Err(error) => {
                tracing::debug!(%error, "listns() lists no network namespaces");
                // What is scarce now may be there at the next look.
                self.is_refused = matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL));
                self.known.clear();
            }
        }
        self.known.iter().map(|(id, netns)| (*netns, *id))
    }
}

impl NamespaceId {
    /// The namespace's file. The kernel demands `CAP_SYS_ADMIN` for any but the own one.
    pub(super) fn open(self) -> io::Result<File> {
        /// `FD_NSFS_ROOT` of include/uapi/linux/fcntl.h: the root of all namespace files, for whoever has no file of them.
        const ROOT: RawFd = -10_003;
        /// `FILEID_NSFS` of include/linux/exportfs.h.
        const NSFS: i32 = 0xF1;
        let mut handle = FileHandle { bytes: 16, kind: NSFS, id: self.0, namespace_kind: 0, number: 0 };
        // SAFETY: the call reads a `struct file_handle` with as many bytes as it says, and keeps none of it.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, ROOT, &raw mut handle, libc::O_RDONLY | libc::O_CLOEXEC)
        };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    /// The inode number, while it can be opened. One that ended a moment ago cannot.
    fn number(self) -> Option<NetnsId> {
        let file = self.open().inspect_err(|error| tracing::debug!(id = self.0, %error, "a listed namespace")).ok()?;
        u32::try_from(file.metadata().ok()?.ino()).ok().map(NetnsId)
    }
}

/// `struct file_handle` of include/linux/fs.h, with the `struct nsfs_file_handle` of include/uapi/linux/nsfs.h in it: an id is
/// enough, without kind and number.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    id: u64,
    namespace_kind: u32,
    number: u32,
}

/// `struct ns_id_req` of include/uapi/linux/nsfs.h.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    /// Those of greater ids are wanted.
    after: u64,
    kinds: u32,
    spare2: u32,
    user_namespace: u64,
}

/// All network namespaces that this process may know of. One call has to have room for all: a next one would begin at the last
/// id, and the kernel refuses to where the namespace after that is ending (`do_listns` of kernel/nstree.c).
fn list(mut room: usize) -> io::Result<Vec<NamespaceId>> {
    loop {
        let mut ids = vec![0_u64; room.min(MOST_ROOM)];
        let kinds = libc::CLONE_NEWNET.cast_unsigned();
        let request = Request { size: 32, spare: 0, after: 0, kinds, spare2: 0, user_namespace: 0 };
        // SAFETY: the call reads a request of the size that it says, and writes no more ids than there is room for.
        let count = unsafe { libc::syscall(LISTNS, &raw const request, ids.as_mut_ptr(), ids.len(), 0) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        if count < ids.len() || ids.len() == MOST_ROOM {
            ids.truncate(count);
            return Ok(ids.into_iter().map(NamespaceId).collect());
        }
        room *= 2;
    }
}
