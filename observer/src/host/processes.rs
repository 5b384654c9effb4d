//! Open file descriptors of processes against their limits (`RLIMIT_NOFILE`).

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::{namespaces, proc, text};
use crate::model::{
    gaps::Gap,
    snapshot::ProcessFiles,
    units::{Comm, Pid, Process},
};

/// What a walk over all processes found.
#[derive(Debug)]
pub struct ProcessWalk {
    /// Those that are nearest to their soft limit.
    pub nearest: Vec<ProcessFiles>,
    /// Those that could not be read.
    pub unread: Gap,
}

/// A walk over all processes, in parts: ten thousand processes at once would delay all else.
#[derive(Debug)]
pub struct Walker {
    most: usize,
    count: Count,
    /// Those that are still to be looked at, the next one last.
    rest: Vec<Pid>,
    found: Vec<Use>,
    unread: Gap,
}

impl Walker {
    /// Begins a walk for the `most` processes that are nearest to their soft limit.
    pub fn start(most: usize) -> io::Result<Self> {
        let rest = proc::list()?.collect();
        Ok(Self { most, count: Count::by_trying(), rest, found: Vec::new(), unread: Gap::default() })
    }

    /// Walks on while `may_go_on`, and returns what was found once all were looked at. At least one is looked at.
    pub fn walk(&mut self, may_go_on: impl Fn() -> bool) -> io::Result<Option<ProcessWalk>> {
        while let Some(pid) = self.rest.pop() {
            match use_of(pid, self.count) {
                Ok(used) => self.found.extend(used),
                Err(error) if proc::is_gone(&error) => {}
                Err(error) if crate::errno::is_scarce(&error) => {
                    self.rest.push(pid);
                    return Err(error);
                }
                Err(error) => self.unread.add(error.raw_os_error()),
            }
            // Only the nearest can be among the result.
            if self.found.len() > self.most.saturating_mul(8) {
                keep_nearest(&mut self.found, self.most);
            }
            if !self.rest.is_empty() && !may_go_on() {
                return Ok(None);
            }
        }
        let nearest = named(std::mem::take(&mut self.found), self.most);
        Ok(Some(ProcessWalk { nearest, unread: self.unread }))
    }

    /// The nearest among those that it has looked at so far.
    pub fn nearest_so_far(&mut self) -> impl Iterator<Item = Pid> {
        keep_nearest(&mut self.found, self.most);
        self.found.iter().map(|used| used.pid)
    }
}

/// The `most` processes that are nearest to their soft limit, among all.
pub fn nearest_to_limit(most: usize) -> io::Result<ProcessWalk> {
    let walk = Walker::start(most)?.walk(|| true)?;
    Ok(walk.unwrap_or_else(|| ProcessWalk { nearest: Vec::new(), unread: Gap::default() }))
}

/// The same among these processes; those that are gone or not ours to ask are left out: a walk counts them.
#[must_use]
pub fn read(pids: &[Pid]) -> Vec<ProcessFiles> {
    let count = Count::by_trying();
    named(pids.iter().filter_map(|pid| use_of(*pid, count).ok().flatten()).collect(), pids.len())
}

/// Whether this user sees only processes of its own: the mount option `hidepid`.
#[must_use]
pub fn are_hidden() -> bool {
    proc::require().is_ok() && fs::metadata(proc::of(Pid(1))).is_err_and(|error| proc::is_gone(&error))
}

/// Whether the files of the first process can be read, which are those of root.
#[must_use]
pub fn are_readable() -> bool {
    !are_hidden() && use_of(Pid(1), Count::by_trying()).is_ok()
}

/// How open file descriptors are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    /// As the size of /proc/PID/fd: since 6.2 (commit f1f1f2569901).
    BySize,
    /// By listing that directory.
    ByListing,
}

impl Count {
    /// A kernel without this number says 0, as of a process without any; this process has some.
    fn by_trying() -> Self {
        match fs::metadata("/proc/self/fd") {
            Ok(directory) if directory.size() > 0 => Self::BySize,
            _ => Self::ByListing,
        }
    }

    fn open_files(self, process: &Path) -> io::Result<u64> {
        let directory = process.join("fd");
        match self {
            Self::BySize => Ok(fs::metadata(directory)?.size()),
            Self::ByListing => Ok(fs::read_dir(directory)?.count() as u64),
        }
    }
}

/// What is known of a process before its name is asked for.
#[derive(Debug)]
struct Use {
    pid: Pid,
    open: u64,
    limit: libc::rlimit,
}

/// `None` for a process without files, as kernel threads are.
fn use_of(pid: Pid, count: Count) -> io::Result<Option<Use>> {
    match count.open_files(&proc::of(pid))? {
        0 => Ok(None),
        open => limit(pid).map(|limit| Some(Use { pid, open, limit })),
    }
}

/// The `most` that are nearest to their soft limit, of equals those with more files; only these are asked their names.
fn named(mut found: Vec<Use>, most: usize) -> Vec<ProcessFiles> {
    keep_nearest(&mut found, most);
    let finite = |limit| Some(limit).filter(|limit| *limit != libc::RLIM_INFINITY);
    let named = found.into_iter().map(|Use { pid, open, limit }| {
        let comm = namespaces::comm(&proc::of(pid)).unwrap_or_default();
        ProcessFiles {
            process: Process { pid, comm: Comm::from(comm.as_slice()) },
            open,
            soft_limit: finite(limit.rlim_cur),
            hard_limit: finite(limit.rlim_max),
        }
    });
    named.collect()
}

/// Drops all but the `most` that are nearest to their soft limit, and puts those in order.
fn keep_nearest(found: &mut Vec<Use>, most: usize) {
    // Parts per million: a total order, which floats lack. Unlimited is so large that its part is 0.
    let part = |used: &Use| u128::from(used.open) * 1_000_000 / u128::from(used.limit.rlim_cur.max(1));
    found.sort_unstable_by_key(|used| std::cmp::Reverse((part(used), used.open, used.pid)));
    found.truncate(most);
}

/// `RLIMIT_NOFILE` of a process. /proc/PID/limits answers everybody; prlimit() asks about another user's process only for whom
/// has CAP_SYS_RESOURCE, and by ids of this pid namespace.
fn limit(pid: Pid) -> io::Result<libc::rlimit> {
    let text = text::string(proc::file(pid, "limits"))?;
    // Of a process that is ending the file is empty.
    parse_limit(&text).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// "Max open files            1024                 524288               files"
pub(super) fn parse_limit(limits: &str) -> Option<libc::rlimit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(libc::RLIM_INFINITY),
        number => number.parse().ok(),
    });
    Some(libc::rlimit { rlim_cur: numbers.next()??, rlim_max: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_files_of_this_process_as_proc_lists_them() {
        let _held: Vec<_> = (0..50).map(|_| fs::OpenOptions::new().read(true).open("/dev/null").unwrap()).collect();
        let this = Path::new("/proc/self");
        for count in [Count::by_trying(), Count::ByListing] {
            // The listing has one more: the directory that is being read. Other tests open files too.
            let listed = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            let counted = count.open_files(this).unwrap();
            assert!(counted >= 50 && counted.abs_diff(listed) <= 8, "{counted} against {listed} by {count:?}");
        }
    }

    #[test]
    fn this_process_is_among_all_and_has_its_limits() {
        let pid = Pid(std::process::id());
        let all = nearest_to_limit(usize::MAX).unwrap();
        let found = all.nearest.iter().find(|files| files.process.pid == pid).unwrap();
        let own = read(&[pid, Pid(u32::MAX)]);
        assert_eq!(own.len(), 1, "the one that is no process is left out");
        assert_eq!((own[0].soft_limit, own[0].hard_limit), (found.soft_limit, found.hard_limit));
        let by_call = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!((own[0].soft_limit, own[0].hard_limit), (by_call.current, by_call.maximum));
    }

    #[test]
    fn a_walk_in_parts_finds_the_same_as_a_walk_at_once() {
        let pid = Pid(std::process::id());
        let mut walker = Walker::start(usize::MAX).unwrap();
        let mut parts = 1;
        let walk = loop {
            if let Some(walk) = walker.walk(|| false).unwrap() {
                break walk;
            }
            parts += 1;
        };
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let processes = processes.filter(|it| it.file_name().to_string_lossy().parse::<u32>().is_ok()).count();
        assert!(parts > 1 && parts <= 2 * processes, "{parts} parts for {processes} processes");
        let own = walk.nearest.iter().find(|files| files.process.pid == pid).unwrap();
        assert_eq!(own.soft_limit, read(&[pid])[0].soft_limit);
    }

    #[test]
    fn limits_are_numbers_or_none_at_all() {
        let limit = |line: &str| parse_limit(line).map(|limit| (limit.rlim_cur, limit.rlim_max));
        assert_eq!(
            limit("Max cpu time  1 2 seconds\nMax open files  1024  unlimited  files\n"),
            Some((1024, u64::MAX))
        );
        assert_eq!(limit(""), None);
    }
}
