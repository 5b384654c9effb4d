//! Open files: of the host, and of the process that is nearest to its own limit.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use crate::model::{
    snapshot::{FileUse, Host, ProcessFiles},
    units::{Comm, Pid, Process},
};

/// All readings of this file together.
#[must_use]
pub fn read() -> Host {
    Host {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        files: fs::read_to_string("/proc/sys/fs/file-nr").ok().and_then(|text| parse_file_nr(&text)),
        fullest_process: fullest_process(),
    }
}

/// `fs.file-nr`: allocated handles, a number that is always 0, and `fs.file-max`.
fn parse_file_nr(text: &str) -> Option<FileUse> {
    let mut numbers = text.split_whitespace();
    Some(FileUse { allocated: numbers.next()?.parse().ok()?, max: numbers.nth(1)?.parse().ok()? })
}

/// The process whose open file descriptors are the largest part of its soft limit; of equals the one with more.
fn fullest_process() -> Option<ProcessFiles> {
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let open = open_files(&entry.path()).ok()?;
        Some((pid, open, soft_limit(pid)?))
    });
    // Parts per million: a total order, which floats lack. Unlimited is so large that its part is 0.
    let part = |open: u64, limit: u64| u128::from(open) * 1_000_000 / u128::from(limit.max(1));
    let (pid, open, limit) = processes.max_by_key(|(_, open, limit)| (part(*open, *limit), *open))?;
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(ProcessFiles {
        process: Process { pid: Pid(pid), comm: Comm::from(comm.trim_end()) },
        open,
        soft_limit: Some(limit).filter(|limit| *limit != libc::RLIM_INFINITY),
    })
}

/// Linux 6.2 and later tell the number as the size of the directory; before, its entries are counted.
fn open_files(process: &Path) -> io::Result<u64> {
    let directory = process.join("fd");
    match fs::metadata(&directory)?.size() {
        0 => Ok(fs::read_dir(&directory)?.count() as u64),
        open => Ok(open),
    }
}

/// The soft `RLIMIT_NOFILE` of a process, `RLIM_INFINITY` for unlimited; `None` if it is gone or not ours to ask.
fn soft_limit(pid: u32) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: a null new limit only asks; `limit` is a live rlimit to be written to.
    let status = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
    (status == 0).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_file_nr() {
        assert_eq!(
            parse_file_nr("1952\t0\t9223372036854775807\n"),
            Some(FileUse { allocated: 1952, max: 9_223_372_036_854_775_807 })
        );
    }

    #[test]
    fn counts_the_files_of_this_process_as_proc_lists_them() {
        let this = Path::new("/proc/self");
        let _held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // The listing has one more: the directory that is being read.
        let listed = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let counted = open_files(this).unwrap();
        assert!(counted >= 50 && counted.abs_diff(listed) <= 4, "{counted} against {listed}");
        assert!(soft_limit(std::process::id()).is_some());
    }
}
