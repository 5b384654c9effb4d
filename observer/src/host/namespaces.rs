//! Which network namespaces there are, and how each can be entered. None is held open: an observer must not keep alive
//! what it observes, so a door is a path that is opened anew for each visit.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use rustc_hash::FxHashMap;
use rustix::{
    process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{pid_namespace::PidView, proc};
use crate::model::units::{NetnsId, Pid};

/// A namespace that can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its `ip netns` name, else the command name of its oldest process.
    pub name: Option<String>,
    /// How it is entered.
    pub door: Door,
}

/// How a namespace is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// A file: /proc/PID/ns/net, or where the namespace was mounted by `ip netns add` and the like.
    Path(PathBuf),
    /// A socket of the namespace that a process holds.
    Socket {
        /// The process.
        pid: Pid,
        /// Its descriptor.
        fd: u32,
    },
}

impl Door {
    /// The process whose namespace this is: its directory in /proc.
    fn process(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => path.strip_prefix(proc::root()).ok().and_then(|_| path.ancestors().nth(2)),
            Self::Socket { .. } => None,
        }
    }

    /// The namespace file, if the door still leads to the namespace.
    fn open(&self, netns: NetnsId) -> io::Result<File> {
        let file = match self {
            Self::Path(path) => File::open(path)?,
            Self::Socket { pid, fd } => namespace_of_socket(*pid, *fd)?,
        };
        if file.metadata()?.ino() == u64::from(netns.0) {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "the door leads to another namespace by now"))
        }
    }
}

/// Runs `work` on a helper thread inside the namespace.
pub fn enter<T: Send>(netns: NetnsId, door: &Door, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = door.open(netns)?;
    thread::scope(|scope| {
        let helper = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Every namespace that has a process or a mount in this mount namespace. A door in `known` stays while it leads there.
pub fn discover<'a>(known: impl Iterator<Item = (NetnsId, &'a Door)>) -> io::Result<FxHashMap<NetnsId, Namespace>> {
    let mounts = mounted(&fs::read_to_string("/proc/self/mountinfo")?).into_iter().map(|(netns, path)| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        (netns, Namespace { name, door: Door::Path(path) })
    });
    let mut found: FxHashMap<NetnsId, Namespace> = mounts.collect();
    let of_processes = from_processes(known, |netns| found.contains_key(&netns))?;
    found.extend(of_processes);
    Ok(found)
}

/// The namespaces of processes but for those that are found already, each by its oldest process when it was first seen: to
/// ask all of them their age each time would cost more than all else that is done on an idle host.
fn from_processes<'a>(
    known: impl Iterator<Item = (NetnsId, &'a Door)>,
    is_found: impl Fn(NetnsId) -> bool,
) -> io::Result<FxHashMap<NetnsId, Namespace>> {
    const SETTLED: u64 = 0;
    let is_there = |netns, door: &Path| namespace_of(door) == Some(netns);
    let mut oldest: FxHashMap<NetnsId, (u64, PathBuf)> = known
        .filter_map(|(netns, door)| Some((netns, door.process()?)))
        .filter(|(netns, process)| !is_found(*netns) && is_there(*netns, &process.join("ns/net")))
        .map(|(netns, process)| (netns, (SETTLED, process.to_owned())))
        .collect();
    for entry in fs::read_dir(proc::root())?.flatten() {
        if entry.file_name().to_str().is_none_or(|name| !name.starts_with(|first: char| first.is_ascii_digit())) {
            continue;
        }
        let process = entry.path();
        // A process may end while it is looked at.
        let Some(netns) = namespace_of(&process.join("ns/net")).filter(|netns| !is_found(*netns)) else { continue };
        let age = |process: &Path| started_at(process).unwrap_or(u64::MAX);
        match oldest.get_mut(&netns) {
            None => drop(oldest.insert(netns, (age(&process), process))),
            Some((SETTLED, _)) => {}
            Some(oldest) => {
                let started = age(&process);
                if started < oldest.0 {
                    *oldest = (started, process);
                }
            }
        }
    }
    let named = |process: &Path| fs::read_to_string(process.join("comm")).ok().map(|comm| comm.trim_end().to_owned());
    Ok(oldest
        .into_iter()
        .map(|(netns, (_, process))| {
            (netns, Namespace { name: named(&process), door: Door::Path(process.join("ns/net")) })
        })
        .collect())
}

/// The door to a namespace that only a thread of a process is in.
#[must_use]
pub fn of_thread(netns: NetnsId, pid: Pid) -> Option<Namespace> {
    let threads = fs::read_dir(proc::file(pid, "task")).ok()?;
    let thread = threads
        .flatten()
        .map(|entry| entry.path())
        .find(|thread| namespace_of(&thread.join("ns/net")) == Some(netns))?;
    let name = fs::read_to_string(thread.join("comm")).ok().map(|comm| comm.trim_end().to_owned());
    Some(Namespace { name, door: Door::Path(thread.join("ns/net")) })
}

/// The door to a namespace that only a socket is in.
#[must_use]
pub fn of_socket(pid: Pid, fd: u32) -> Namespace {
    let comm = fs::read_to_string(proc::file(pid, "comm")).ok();
    Namespace { name: comm.map(|comm| comm.trim_end().to_owned()), door: Door::Socket { pid, fd } }
}

fn namespace_of(link: &Path) -> Option<NetnsId> {
    u32::try_from(fs::metadata(link).ok()?.ino()).ok().map(NetnsId)
}

/// Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot.
fn started_at(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The command name may hold spaces and brackets; the last bracket ends it, and field 3 follows.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The network namespaces among the mounts: "… net:[4026532567] /run/netns/blue … - nsfs nsfs rw".
fn mounted(mountinfo: &str) -> Vec<(NetnsId, PathBuf)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(3);
            let id = words.next()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
            Some((NetnsId(id), PathBuf::from(words.next()?.replace("\\040", " "))))
        })
        .collect()
}

/// The namespace of a socket that another process holds (`SIOCGSKNS`, include/uapi/linux/sockios.h).
fn namespace_of_socket(pid: Pid, fd: u32) -> io::Result<File> {
    const SIOCGSKNS: libc::Ioctl = 0x894C;
    // pidfd_open() knows processes by the numbers of this pid namespace.
    if !PidView::read().is_own() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let pid = i32::try_from(pid.0).ok().and_then(rustix::process::Pid::from_raw);
    let process = pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    let socket = pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?;
    // SAFETY: SIOCGSKNS takes no argument and returns a new descriptor or -1.
    let namespace = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mounted_network_namespaces_and_no_others() {
        let mountinfo = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
            512 30 0:4 net:[4026532567] /run/netns/blue rw shared:262 - nsfs nsfs rw\n\
            513 30 0:4 mnt:[4026532568] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw\n\
            514 30 0:4 net:[4026532569] /run/with\\040space rw - nsfs nsfs rw\n";
        assert_eq!(
            mounted(mountinfo),
            [
                (NetnsId(4_026_532_567), PathBuf::from("/run/netns/blue")),
                (NetnsId(4_026_532_569), PathBuf::from("/run/with space")),
            ]
        );
    }

    #[test]
    fn the_namespace_of_this_process_is_found_and_can_be_entered() {
        let own = namespace_of(Path::new("/proc/self/ns/net")).unwrap();
        let found = discover(std::iter::empty()).unwrap();
        let inside = enter(own, &found[&own].door, crate::host::netns::current).unwrap().unwrap();
        assert_eq!(inside, own);
        let elsewhere = enter(NetnsId(1), &found[&own].door, || ()).unwrap_err();
        assert_eq!(elsewhere.kind(), io::ErrorKind::NotFound);
    }
}
