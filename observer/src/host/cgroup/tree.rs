//! From the id of a cgroup to its path.
//!
//! The id is the one of kernfs: a file handle made of it leads to the directory, as `ss --cgroup` does it. Without the right
//! to use handles (CAP_DAC_READ_SEARCH), a walk through all directories compares their inode numbers, which are the ids.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{DirEntryExt as _, MetadataExt as _},
        },
    },
    path::Path,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use rustix::fs::{Mode, OFlags};

use crate::{
    errno,
    host::{
        mounts::{self, CgroupMount},
        proc, text,
    },
    model::{
        service::{CgroupId, is_root_path},
        units::Pid,
    },
};

/// Between two walks at least, and between two looks for the mounts.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two walks, as a multiple of the time that the last one took: 2 % of a CPU, as scans take.
const PAUSE_FACTOR: u32 = 50;
/// Cgroups that one walk looks at.
const MOST_CGROUPS: usize = 65_536;
/// Processes of a cgroup that are asked for its path: the first may have ended meanwhile.
const MOST_MEMBERS: usize = 4;
/// Cgroups within each other that a walk follows.
const DEEPEST: usize = 64;

/// What is known of the path of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its path.
    Path(Vec<u8>),
    /// It has ended, or nothing shows it here. No other gets its id.
    Gone,
    /// Nothing: it may be found later.
    Unknown,
}

/// The tree of cgroup2.
#[derive(Debug, Default)]
pub(super) struct Tree {
    mounts: Vec<CgroupMount>,
    read_at: Option<Instant>,
    /// This process may not use handles.
    has_no_right: bool,
    walk: Option<Walk>,
}

#[derive(Debug)]
struct Walk {
    /// When the next one may begin.
    next: Instant,
    paths: FxHashMap<u64, Vec<u8>>,
}

impl Tree {
    /// The path of a cgroup.
    pub(super) fn path(&mut self, id: CgroupId, now: Instant) -> Lookup {
        let Some(root) = self.usable(now) else { return Lookup::Unknown };
        if !self.has_no_right {
            match by_handle(&root, id) {
                Ok(path) => return path.map_or(Lookup::Unknown, Lookup::Path),
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Lookup::Gone,
                Err(error) if errno::is_scarce(&error) => return Lookup::Unknown,
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(%error, "no file handles of cgroups (CAP_DAC_READ_SEARCH): walks find them");
                    self.has_no_right = true;
                }
                Err(error) => tracing::debug!(%error, "no handle of this cgroup"),
            }
        }
        self.by_walk(id, now)
    }

    /// Forgets what a walk has found of a cgroup.
    pub(super) fn forget(&mut self, id: CgroupId) {
        if let Some(walk) = &mut self.walk {
            walk.paths.remove(&id.0);
        }
    }

    /// The mount that shows most, if one can be opened.
    fn usable(&mut self, now: Instant) -> Option<CgroupMount> {
        let is_usable = |mount: &CgroupMount| open(&mount.path).is_ok();
        let usable = |mounts: &[CgroupMount]| mounts.iter().find(|mount| is_usable(mount)).cloned();
        if let Some(mount) = usable(&self.mounts) {
            return Some(mount);
        }
        if self.read_at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            return None;
        }
        self.read_at = Some(now);
        self.mounts = most_first(mounts::of_cgroup2().unwrap_or_default());
        usable(&self.mounts)
    }

    fn by_walk(&mut self, id: CgroupId, now: Instant) -> Lookup {
        let known = |walk: &Walk| walk.paths.get(&id.0).cloned().map(Lookup::Path);
        if let Some(found) = self.walk.as_ref().and_then(known) {
            return found;
        }
        if self.walk.as_ref().is_some_and(|walk| now < walk.next) {
            return Lookup::Unknown;
        }
        let began = Instant::now();
        let paths = walk(&self.mounts, MOST_CGROUPS);
        let walk = self.walk.insert(Walk { next: now + PAUSE.max(began.elapsed() * PAUSE_FACTOR), paths });
        // It was there before this walk began, and another walk would not show it either.
        known(walk).unwrap_or(Lookup::Gone)
    }
}

/// Whether this process gets no handles at all: without the capability, behind a seccomp filter, or of such a file system.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// The mount that shows most comes first.
fn most_first(mut mounts: Vec<CgroupMount>) -> Vec<CgroupMount> {
    mounts.sort_by_key(|mount| (Reverse(levels_above(&mount.root)), prefix(&mount.root).len()));
    mounts
}

/// How far a mount's root is above that of this cgroup namespace: a container that gets the host's mount (`/../..`) has its own
/// (`/`) too, which shows no other cgroup. One beside it (`/../x`) does not show this one.
fn levels_above(root: &[u8]) -> usize {
    if is_root_path(root) { root.split(|byte| *byte == b'/').filter(|segment| *segment == b"..").count() } else { 0 }
}

/// What stands before the paths below a mount. A root above that of this cgroup namespace (`/../..`) shows as `/`.
fn prefix(root: &[u8]) -> &[u8] {
    if is_root_path(root) { b"" } else { root.strip_suffix(b"/").unwrap_or(root) }
}

/// Opens a directory of cgroup2: what another mount hides is none.
fn open(path: &Path) -> io::Result<OwnedFd> {
    /// `CGROUP2_SUPER_MAGIC` of include/uapi/linux/magic.h.
    const CGROUP2: u64 = 0x6367_7270;
    // Not O_PATH: open_by_handle_at() refuses such a mount.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    let is_cgroup2 = u64::try_from(rustix::fs::fstatfs(&directory)?.f_type).is_ok_and(|magic| magic == CGROUP2);
    if is_cgroup2 { Ok(directory) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// The path by a file handle; `None` where nothing shows it.
fn by_handle(mount: &CgroupMount, id: CgroupId) -> io::Result<Option<Vec<u8>>> {
    /// `struct file_handle` of include/linux/fs.h with the 8 bytes that kernfs asks for.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: u64,
    }
    /// `FILEID_KERNFS` of include/linux/exportfs.h.
    const KERNFS: i32 = 0xfe;
    let mut handle = Handle { bytes: 8, kind: KERNFS, id: id.0 };
    let root = open(&mount.path)?;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the handle is a `struct file_handle` followed by as many bytes as it says, and outlives the call.
    let opened = unsafe { libc::syscall(libc::SYS_open_by_handle_at, root.as_raw_fd(), &raw mut handle, flags) };
    let opened = i32::try_from(opened).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    let opened = unsafe { OwnedFd::from_raw_fd(opened) };
    let directory = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let link = fs::read_link(&directory)?;
    Ok(below(link.as_os_str().as_bytes(), mount).or_else(|| of_members(&directory)))
}

/// The path of a cgroup by that of its directory. The kernel shows no path for a directory outside the mount's root.
fn below(directory: &[u8], mount: &CgroupMount) -> Option<Vec<u8>> {
    let rest = directory.strip_prefix(mount.path.as_os_str().as_bytes())?;
    let is_below = rest.is_empty() || rest.starts_with(b"/");
    is_below.then(|| absolute([prefix(&mount.root), rest].concat()))
}

/// The path of a cgroup by a process in it: in a container with a cgroup namespace of its own, all others are outside the
/// mount's root.
fn of_members(directory: &str) -> Option<Vec<u8>> {
    let processes = text::string(format!("{directory}/cgroup.procs")).ok()?;
    // Those outside the pid namespace are 0.
    let pids = processes.lines().filter_map(|line| line.parse().ok().filter(|pid| *pid != 0)).take(MOST_MEMBERS);
    pids.map(Pid).find_map(|pid| {
        let lines = text::bytes(proc::file(pid, "cgroup")).ok()?;
        lines.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::")).map(<[u8]>::to_vec)
    })
}

fn absolute(path: Vec<u8>) -> Vec<u8> {
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// The paths of all cgroups that the mounts show, by their ids; of a host with more than `most`, of those next to the root.
fn walk(mounts: &[CgroupMount], most: usize) -> FxHashMap<u64, Vec<u8>> {
    let mut paths = FxHashMap::default();
    let mut queue = VecDeque::new();
    for mount in mounts.iter().filter(|mount| open(&mount.path).is_ok()) {
        let Ok(id) = fs::metadata(&mount.path).map(|root| root.ino()) else { continue };
        // A bind mount of what another mount shows.
        if paths.contains_key(&id) {
            continue;
        }
        let root = prefix(&mount.root);
        paths.insert(id, absolute(root.to_vec()));
        queue.push_back((root.to_vec(), 0));
        while let Some((path, depth)) = queue.pop_front() {
            let rest = OsStr::from_bytes(path.get(root.len() + 1..).unwrap_or_default());
            // One that has ended meanwhile, or that this process may not list.
            let Ok(entries) = fs::read_dir(mount.path.join(rest)) else { continue };
            for entry in entries.flatten() {
                if paths.len() >= most {
                    tracing::warn!(
                        "a walk finds {most} cgroups and no more: those deeper in the tree stay without a service"
                    );
                    return paths;
                }
                if !entry.file_type().is_ok_and(|it| it.is_dir()) {
                    continue;
                }
                let path = [path.as_slice(), b"/", entry.file_name().as_bytes()].concat();
                if depth + 1 < DEEPEST {
                    queue.push_back((path.clone(), depth + 1));
                }
                paths.insert(entry.ino(), path);
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, path: &str) -> CgroupMount {
        CgroupMount { root: root.as_bytes().to_vec(), path: path.into() }
    }

    #[test]
    fn the_path_begins_at_the_root_of_cgroup2() {
        for (root, at, directory, expected) in [
            ("/", "/sys/fs/cgroup", "/sys/fs/cgroup/a/b", Some("/a/b")),
            ("/", "/sys/fs/cgroup", "/sys/fs/cgroup", Some("/")),
            ("/a", "/mnt", "/mnt/b", Some("/a/b")),
            ("/a", "/mnt", "/mnt", Some("/a")),
            ("/a", "/mnt", "/", None),
            ("/a", "/mnt", "/mntx/d", None),
            ("/../..", "/mnt", "/mnt/b", Some("/b")),
            ("/../..", "/mnt", "/mnt", Some("/")),
        ] {
            let path = below(directory.as_bytes(), &mount(root, at));
            assert_eq!(path.as_deref(), expected.map(str::as_bytes), "{root} {at} {directory}");
        }
    }

    #[test]
    fn the_mount_that_shows_most_is_looked_at_first() {
        for (roots, expected) in [
            // A container's own mount, and the host's cgroups that it was given.
            (&["/", "/../../.."][..], &["/../../..", "/"][..]),
            (&["/", "/..", "/../.."], &["/../..", "/..", "/"]),
            // A bind mount of a part of the tree, and one beside this cgroup.
            (&["/a b", "/", "/a/b/c"], &["/", "/a b", "/a/b/c"]),
            (&["/../x", "/"], &["/", "/../x"]),
            (&["/../x", "/", "/.."], &["/..", "/", "/../x"]),
        ] {
            let found = most_first(roots.iter().map(|root| mount(root, "/mnt")).collect());
            let found: Vec<&str> = found.iter().map(|mount| std::str::from_utf8(&mount.root).unwrap()).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_cgroup2_is_not_taken_for_it() {
        assert_eq!(open(Path::new("/proc")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(open(Path::new("/no/such/directory")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(walk(&[mount("/", "/proc")], MOST_CGROUPS).len(), 0);
    }

    #[test]
    fn only_a_refusal_of_all_handles_ends_the_use_of_handles() {
        let of = io::Error::from_raw_os_error;
        assert!([libc::EPERM, libc::ENOSYS, libc::EOPNOTSUPP].into_iter().all(|errno| is_refusal(&of(errno))));
        assert!([libc::ESTALE, libc::EIO, libc::ENOENT, libc::EMFILE].into_iter().all(|errno| !is_refusal(&of(errno))));
    }

    /// The tree of this machine, which has at least its root.
    fn walking() -> Tree {
        let mounts = most_first(mounts::of_cgroup2().unwrap());
        assert!(!mounts.is_empty(), "cgroup2 is mounted");
        Tree { mounts, has_no_right: true, ..Tree::default() }
    }

    #[test]
    fn a_walk_answers_what_was_asked_before_it_and_the_next_one_waits() {
        let (mut tree, start) = (walking(), Instant::now());
        let (first, second) = (CgroupId(u64::MAX), CgroupId(u64::MAX - 1));
        assert_eq!(tree.path(first, start), Lookup::Gone, "no walk finds it");
        let next = tree.walk.as_ref().unwrap().next;
        assert!(next >= start + PAUSE);
        // This one may have come after the walk.
        assert_eq!(tree.path(second, start), Lookup::Unknown);
        assert_eq!(tree.walk.as_ref().unwrap().next, next, "no second walk");
        assert_eq!(tree.path(second, next), Lookup::Gone);
    }

    #[test]
    fn a_walk_ends_at_the_most_cgroups_that_it_may_find() {
        let tree = walking();
        assert_eq!(walk(&tree.mounts, 1).len(), 1);
    }
}
