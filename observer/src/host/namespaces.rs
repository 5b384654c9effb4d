//! Which network namespaces there are, how each can be entered, and what people call it.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use rustc_hash::FxHashMap;

use super::{
    handle::{Handle, namespace_of},
    mounts,
    namespace_id::Listed,
    proc, text,
};
use crate::model::{
    gaps::Gap,
    name::Name,
    units::{NetnsId, Pid},
};

/// Processes that are kept as handles of a namespace.
const HANDLES: usize = 4;

/// A namespace that was found.
#[derive(Debug, Default)]
pub struct FoundNamespace {
    /// How it can be entered, the mounts first, its id last.
    pub handles: Vec<Handle>,
    /// Its `ip netns` name.
    pub mount_name: Option<Name>,
    /// The processes in it.
    pub processes: Vec<Pid>,
}

/// What a look at all mounts, all processes and the kernel's list found.
#[derive(Debug, Default)]
pub struct Discovered {
    /// The namespaces that have a process, a mount in this mount namespace, or a place in the list.
    pub namespaces: FxHashMap<NetnsId, FoundNamespace>,
    /// Processes whose namespace could not be read.
    pub unread: Gap,
}

/// Looks at all mounts and processes, and at what the kernel lists.
pub fn discover(listed: &mut Listed) -> io::Result<Discovered> {
    let mut out = Discovered::default();
    for mount in mounts::of_namespaces()? {
        let found = out.namespaces.entry(mount.netns).or_default();
        found.mount_name = found.mount_name.take().or_else(|| mount.netns_name());
        let handle = Handle::Path(mount.path);
        // Another mount may hide this one: then the name is right and the path leads elsewhere.
        if !handle.is_stale(mount.netns) {
            found.handles.push(handle);
        }
    }
    for pid in proc::list()? {
        match namespace_of(&proc::file(pid, "ns/net")) {
            Ok(netns) => {
                let found = out.namespaces.entry(netns).or_default();
                found.processes.push(pid);
                if found.processes.len() <= HANDLES {
                    found.handles.push(Handle::of_process(pid));
                }
            }
            Err(error) if proc::is_gone(&error) => {}
            Err(error) => out.unread.add(error.raw_os_error()),
        }
    }
    for (netns, id) in listed.look() {
        out.namespaces.entry(netns).or_default().handles.push(Handle::Id(id));
    }
    // Nothing but a mount that leads elsewhere: others have to look for a socket or thread in it.
    out.namespaces.retain(|_, found| !found.handles.is_empty());
    Ok(out)
}

/// The handle to a namespace that only a thread of a process is in.
#[must_use]
pub fn of_thread(netns: NetnsId, pid: Pid) -> Option<Handle> {
    let threads = fs::read_dir(proc::file(pid, "task")).ok()?;
    let mut links = threads.flatten().map(|entry| entry.path().join("ns/net"));
    links.find(|link| namespace_of(link).is_ok_and(|found| found == netns)).map(Handle::Path)
}

/// The namespace that the host itself is in: that of the first of all processes. `None` where that process is not seen,
/// as in a container with its own process ids.
#[must_use]
pub fn of_host() -> Option<NetnsId> {
    /// `PROC_PID_INIT_INO` of include/uapi/linux/nsfs.h: the initial pid namespace, the same on every kernel.
    const INITIAL: u64 = 0xEFFF_FFFC;
    let is_first = fs::metadata(proc::file(Pid(1), "ns/pid")).is_ok_and(|namespace| namespace.ino() == INITIAL);
    namespace_of(&proc::file(Pid(1), "ns/net")).ok().filter(|_| is_first)
}

/// The name of a process that a namespace may be called by: not that of a process that only keeps it alive.
#[must_use]
pub fn naming_comm(pid: Pid) -> Option<Name> {
    let comm = comm(&proc::of(pid)).ok()?;
    (!comm.is_empty() && comm != b"pause").then(|| Name::new(&comm))
}

/// The oldest of these processes that a namespace may be called by.
#[must_use]
pub fn oldest_naming(processes: &[Pid]) -> Option<(Pid, Name)> {
    let mut by_age: Vec<(u64, Pid)> =
        processes.iter().map(|pid| (started_at(&proc::of(*pid)).unwrap_or(u64::MAX), *pid)).collect();
    by_age.sort_unstable();
    by_age.into_iter().find_map(|(_, pid)| Some((pid, naming_comm(pid)?)))
}

/// Whether a process is in a namespace.
#[must_use]
pub fn has_process(netns: NetnsId, pid: Pid) -> bool {
    namespace_of(&proc::file(pid, "ns/net")).is_ok_and(|found| found == netns)
}

/// The command name of a process as it chose it; the kernel ends it with a line feed.
pub fn comm(process: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = text::bytes(process.join("comm"))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

/// Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot.
fn started_at(process: &Path) -> Option<u64> {
    parse_start(&text::string(process.join("stat")).ok()?)
}

pub(super) fn parse_start(stat: &str) -> Option<u64> {
    // The command name may hold spaces and brackets; the last bracket ends it, and field 3 follows.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{handle::enter, netns};

    #[test]
    fn the_namespace_of_this_process_is_found_and_can_be_entered() {
        let own = namespace_of(Path::new("/proc/self/ns/net")).unwrap();
        let found = discover(&mut Listed::default()).unwrap();
        let found = &found.namespaces[&own];
        assert!(found.processes.contains(&Pid(std::process::id())));
        assert_eq!(enter(own, &found.handles, netns::current).unwrap().unwrap(), own);
    }

    #[test]
    fn a_process_is_named_by_its_bytes_and_never_when_it_only_pauses() {
        let dir = tempfile::tempdir().unwrap();
        let named = |comm: &[u8]| {
            fs::write(dir.path().join("comm"), comm).unwrap();
            self::comm(dir.path()).unwrap()
        };
        assert_eq!(named(b"caf\xe9 \n"), b"caf\xe9 ");
        assert_eq!(named(b"two\nlines\n\n"), b"two\nlines\n");
        let own = Pid(std::process::id());
        assert!(naming_comm(own).is_some());
        let started = started_at(Path::new("/proc/self")).unwrap();
        let (pid, _) = oldest_naming(&[own, Pid(1)]).unwrap();
        assert!(started_at(&proc::of(pid)).unwrap() <= started);
    }
}
