//! Open file descriptors of processes against their limits (`RLIMIT_NOFILE`).

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::{pid_namespace::PidView, proc};
use crate::model::{
    snapshot::ProcessFiles,
    units::{Comm, Pid, Process},
};

/// The `most` processes that are nearest to their soft limit, among all.
#[must_use]
pub fn nearest_to_limit(most: usize) -> Vec<ProcessFiles> {
    // While this listing is open, this process has a descriptor: it must be seen to have one.
    let Ok(pids) = proc::list() else { return Vec::new() };
    let count = Count::by_trying();
    named(pids.filter_map(|pid| use_of(pid, count)).collect(), most)
}

/// The same among these processes; those that are gone are left out.
#[must_use]
pub fn read(pids: &[Pid]) -> Vec<ProcessFiles> {
    let count = Count::by_trying();
    named(pids.iter().filter_map(|pid| use_of(*pid, count)).collect(), pids.len())
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
    /// A kernel that does not tell says 0, as of a process without any; this process has some.
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
struct Use {
    pid: Pid,
    open: u64,
    limit: libc::rlimit,
}

/// `None` for a process that is gone, not ours to ask, or without files, as kernel threads are.
fn use_of(pid: Pid, count: Count) -> Option<Use> {
    let open = count.open_files(&proc::of(pid)).ok().filter(|open| *open > 0)?;
    Some(Use { pid, open, limit: limit(pid)? })
}

/// The `most` that are nearest to their soft limit, of equals those with more files; only these are asked their names.
fn named(mut found: Vec<Use>, most: usize) -> Vec<ProcessFiles> {
    // Parts per million: a total order, which floats lack. Unlimited is so large that its part is 0.
    let part = |used: &Use| u128::from(used.open) * 1_000_000 / u128::from(used.limit.rlim_cur.max(1));
    found.sort_unstable_by_key(|used| std::cmp::Reverse((part(used), used.open, used.pid)));
    found.truncate(most);
    let finite = |limit| Some(limit).filter(|limit| *limit != libc::RLIM_INFINITY);
    let named = found.into_iter().map(|Use { pid, open, limit }| {
        let comm = proc::comm(pid).unwrap_or_default();
        ProcessFiles {
            process: Process { pid, comm: Comm::from(comm.as_slice()) },
            open,
            soft_limit: finite(limit.rlim_cur),
            hard_limit: finite(limit.rlim_max),
        }
    });
    named.collect()
}

/// `RLIMIT_NOFILE` of a process; `None` if it is gone or not ours to ask.
fn limit(pid: Pid) -> Option<libc::rlimit> {
    // prlimit() knows processes by the numbers of this pid namespace.
    if PidView::read().is_own() { limit_by_call(pid) } else { limit_by_file(pid) }
}

/// "Max open files            1024                 524288               files"
fn limit_by_file(pid: Pid) -> Option<libc::rlimit> {
    let limits = fs::read_to_string(proc::file(pid, "limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(libc::RLIM_INFINITY),
        number => number.parse().ok(),
    });
    Some(libc::rlimit { rlim_cur: numbers.next()??, rlim_max: numbers.next()?? })
}

fn limit_by_call(pid: Pid) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid.0).ok()?;
    // SAFETY: a null new limit only asks; `limit` is a live rlimit to be written to.
    let status = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
    (status == 0).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_files_of_this_process_as_proc_lists_them() {
        let _held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
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
        let all = nearest_to_limit(usize::MAX);
        let found = all.iter().find(|files| files.process.pid == pid).unwrap();
        let own = read(&[pid, Pid(u32::MAX)]);
        assert_eq!(own.len(), 1, "the one that is no process is left out");
        assert_eq!((own[0].soft_limit, own[0].hard_limit), (found.soft_limit, found.hard_limit));
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers, [own[0].soft_limit.unwrap(), own[0].hard_limit.unwrap()]);
    }
}
