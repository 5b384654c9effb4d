//! Handles of network namespaces: what opens one. None is kept open between visits, because an observer must not keep
//! alive what it observes; and a namespace has several, because each of them may go away, be hidden by another mount, or
//! lead elsewhere by now.

use std::{
    fs::{self, File},
    io,
    num::NonZero,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{helper, namespace_id::NamespaceId, pid_namespace::PidView, proc};
use crate::{
    errno,
    model::units::{NetnsId, Pid},
};

/// The name of threads that enter namespaces.
const HELPER: &str = "netns";
/// Threads that enter namespaces at the same time, at most: on a host with many CPUs the others belong to its work.
const MOST_HELPERS: usize = 8;
/// Namespaces that are worth a thread, and what the thread makes for them.
const LEAST_PART: usize = 16;

/// How a namespace is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handle {
    /// A file: /proc/PID/ns/net, or where the namespace was mounted by `ip netns add` and the like.
    Path(PathBuf),
    /// A socket of the namespace that a process holds.
    Socket {
        /// The process.
        pid: Pid,
        /// Its descriptor.
        fd: u32,
    },
    /// Its id.
    Id(NamespaceId),
}

impl Handle {
    /// The namespace of a process.
    #[must_use]
    pub fn of_process(pid: Pid) -> Self {
        Self::Path(proc::file(pid, "ns/net"))
    }

    /// The namespace file, if the handle still leads to the namespace.
    fn open(&self, netns: NetnsId) -> io::Result<File> {
        let file = match self {
            Self::Path(path) => File::open(path)?,
            Self::Socket { pid, fd } => namespace_of_socket(*pid, *fd)?,
            Self::Id(id) => id.open()?,
        };
        if file.metadata()?.ino() == u64::from(netns.0) { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Whether the handle is known to lead to this namespace no longer. A refusal says nothing of that.
    pub(super) fn is_stale(&self, netns: NetnsId) -> bool {
        match self {
            Self::Path(path) => match fs::metadata(path) {
                Ok(found) => found.ino() != u64::from(netns.0),
                Err(error) => proc::is_gone(&error) || error.kind() == io::ErrorKind::NotADirectory,
            },
            Self::Socket { .. } | Self::Id(_) => self.open(netns).is_err_and(|error| !errno::is_scarce(&error)),
        }
    }
}

/// Opens the first handle that leads to the namespace. Of several errors the one is returned that is more than absence.
fn open_first(netns: NetnsId, handles: &[Handle]) -> io::Result<File> {
    let mut worst = io::Error::from(io::ErrorKind::NotFound);
    for handle in handles {
        match handle.open(netns) {
            Ok(file) => return Ok(file),
            Err(error) if errno::is_scarce(&error) => return Err(error),
            Err(error) if is_absence(&error) => {}
            Err(error) => worst = error,
        }
    }
    Err(worst)
}

/// Whether an error says that a namespace is gone, and not that it could not be entered.
#[must_use]
pub fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(
            error.raw_os_error(),
            Some(libc::ESRCH | libc::EBADF | libc::ENOTDIR | libc::ENOTSOCK | libc::ENOTTY | libc::ESTALE)
        )
}

/// Runs `work` on a helper thread inside the namespace.
pub fn enter<T: Send>(netns: NetnsId, handles: &[Handle], work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = open_first(netns, handles)?;
    thread::scope(|scope| {
        let helper = helper::start(scope, HELPER, move || move_into(&file).map(|()| work()))?;
        helper::join(helper)
    })
}

/// A namespace, with what opens it.
pub type Target<'a> = (NetnsId, &'a [Handle]);

/// Runs `work` inside each of these namespaces, on a few helper threads, and returns the results in this order. Each thread
/// makes what it needs for so many namespaces with `begin`.
pub fn enter_each<C, T: Send>(
    targets: &[Target<'_>],
    begin: impl Fn(usize) -> C + Sync,
    work: impl Fn(&C, NetnsId) -> T + Sync,
) -> Vec<io::Result<T>> {
    let enter = |needed: &C, (netns, handles): &Target<'_>| {
        let file = open_first(*netns, handles)?;
        move_into(&file)?;
        Ok(work(needed, *netns))
    };
    let enter_all = &|part: &[Target<'_>]| {
        let needed = begin(part.len());
        part.iter().map(|target| enter(&needed, target)).collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_HELPERS);
    let part = targets.len().div_ceil(threads).max(LEAST_PART);
    thread::scope(|scope| {
        let mut helpers = Vec::new();
        for part in targets.chunks(part) {
            helpers.push((part, helper::start(scope, HELPER, move || enter_all(part))));
        }
        let results = helpers.into_iter().flat_map(|(part, helper)| match helper {
            Ok(helper) => helper::join(helper),
            Err(error) => {
                let refused = || error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
                part.iter().map(|_| Err(refused())).collect()
            }
        });
        results.collect()
    })
}

fn move_into(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The namespace that a link of /proc or a mount leads to.
pub(super) fn namespace_of(link: &Path) -> io::Result<NetnsId> {
    u32::try_from(fs::metadata(link)?.ino()).map(NetnsId).map_err(io::Error::other)
}

/// The namespace of a socket that another process holds (`SIOCGSKNS`, include/uapi/linux/sockios.h).
fn namespace_of_socket(pid: Pid, fd: u32) -> io::Result<File> {
    const SIOCGSKNS: libc::Ioctl = 0x894C;
    // pidfd_open() knows processes by the numbers of this pid namespace.
    if !PidView::read().is_own() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let link = proc::file(pid, &format!("fd/{fd}"));
    let pid = i32::try_from(pid.0).ok().and_then(rustix::process::Pid::from_raw);
    let process = pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?;
    let number = i32::try_from(fd).map_err(io::Error::other)?;
    let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).map_err(|error| {
        // Where the call is refused, a closed descriptor is, too.
        let is_closed = fs::symlink_metadata(&link).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if is_closed { io::ErrorKind::NotFound.into() } else { io::Error::from(error) }
    })?;
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
    use std::time::Duration;

    use super::*;
    use crate::host::clock;

    #[test]
    fn work_inside_a_namespace_is_work_of_the_thread_that_entered_it() {
        let own = namespace_of(Path::new("/proc/self/ns/net")).unwrap();
        let work = || while clock::thread_cpu() < Duration::from_millis(20) {};
        let before = clock::work_cpu();
        enter(own, &[Handle::of_process(Pid(std::process::id()))], work).unwrap();
        let took = clock::work_cpu().saturating_sub(before);
        assert!(took >= Duration::from_millis(20), "{took:?}");
    }

    #[test]
    fn the_next_handle_is_tried_where_one_leads_nowhere_or_elsewhere() {
        let own = namespace_of(Path::new("/proc/self/ns/net")).unwrap();
        let stale = [Handle::Path("/no/such/file".into()), Handle::Path("/proc/self/ns/mnt".into())];
        assert!(stale.iter().all(|handle| handle.is_stale(own)));
        let right = Handle::of_process(Pid(std::process::id()));
        assert!(!right.is_stale(own));
        let handles = [&stale[..], &[right]].concat();
        assert_eq!(enter(own, &handles, crate::host::netns::current).unwrap().unwrap(), own);
        let nowhere = enter(own, &stale, || ()).unwrap_err();
        assert!(is_absence(&nowhere), "{nowhere}");
        assert!(is_absence(&enter(NetnsId(1), &handles, || ()).unwrap_err()));
    }

    #[test]
    fn each_namespace_has_its_result_in_its_place_and_each_thread_begins_once() {
        let own = namespace_of(Path::new("/proc/self/ns/net")).unwrap();
        let (right, stale) = (vec![Handle::of_process(Pid(std::process::id()))], vec![Handle::Path("/no".into())]);
        let count = MOST_HELPERS * LEAST_PART + 1;
        let targets: Vec<Target<'_>> =
            (0..count).map(|place| (own, if place % 3 == 0 { &stale[..] } else { &right[..] })).collect();
        let begun = std::sync::Mutex::new(Vec::new());
        let entered = enter_each(&targets, |part| begun.lock().unwrap().push(part), |(), netns| netns);
        for (place, entered) in entered.iter().enumerate() {
            assert_eq!(entered.as_ref().ok(), Some(&own).filter(|_| place % 3 != 0), "place {place}");
        }
        let begun = begun.into_inner().unwrap();
        assert!(begun.iter().sum::<usize>() == count && begun.len() <= MOST_HELPERS, "{begun:?}");
    }
}
