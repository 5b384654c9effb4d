//! Where /proc is: paths to the files of other processes are made here and nowhere else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{errno, model::units::Pid};

/// The root of the process table that is read.
#[must_use]
pub fn root() -> &'static Path {
    Path::new("/proc")
}

/// The directory of a process.
#[must_use]
pub fn of(pid: Pid) -> PathBuf {
    root().join(pid.0.to_string())
}

/// A file of a process.
#[must_use]
pub fn file(pid: Pid, name: &str) -> PathBuf {
    of(pid).join(name)
}

/// Every process that the table lists. While the listing is open, this process has a descriptor for it.
pub fn list() -> io::Result<impl Iterator<Item = Pid>> {
    Ok(fs::read_dir(root())?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid)))
}

/// Whether an error says that the process has ended meanwhile.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Fails with one sentence where /proc is not mounted: nothing else that is read of the host means anything then.
pub fn require() -> Result<(), NoProc> {
    // By the link and not by what it leads to: a /proc of another pid namespace has the link and not the directory.
    fs::symlink_metadata("/proc/self").map(drop).map_err(NoProc)
}

/// There is no /proc.
#[derive(Debug, thiserror::Error)]
#[error("/proc/self: {}: is procfs mounted on /proc (mount -t proc proc /proc)?", errno::describe(.0))]
pub struct NoProc(io::Error);
