//! Where /proc is: paths to the files of other processes are made here and nowhere else. Files of this process and of the
//! kernel itself are those of /proc, whatever was chosen here.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{errno, model::units::Pid};

/// The running program itself, even if somebody has replaced its file.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// What was chosen in place of /proc.
static ROOT: OnceLock<PathBuf> = OnceLock::new();

/// Why a folder cannot stand for /proc.
#[derive(Debug, thiserror::Error)]
pub enum NotProc {
    /// It cannot be looked at.
    #[error("--proc {}: {}", errno::printable(.path), errno::describe(.error))]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It is no mount of procfs.
    #[error("--proc {}: no procfs is mounted there; into a container it comes with -v /proc:{}:ro", errno::printable(.0), errno::printable(.0))]
    Other(PathBuf),
    /// It is a directory inside procfs.
    #[error("--proc {}: this is a directory inside procfs; give the one at which procfs is mounted", .0.display())]
    Inside(PathBuf),
}

/// Reads other processes in this mount of procfs from now on. The first choice stays.
pub fn set_root(path: &Path) -> Result<(), NotProc> {
    let unreadable = |error: io::Error| NotProc::Unreadable { path: path.to_owned(), error };
    // Absolute: the screen must not depend on the folder that it is started in.
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let found = rustix::fs::statfs(&absolute).map_err(|error| unreadable(error.into()))?;
    if found.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(NotProc::Other(path.to_owned()));
    }
    // The link is in the root alone, also where it leads nowhere: in the procfs of another pid namespace.
    if fs::symlink_metadata(absolute.join("self")).is_err() {
        return Err(NotProc::Inside(path.to_owned()));
    }
    let _ = ROOT.set(absolute);
    Ok(())
}

/// The root of the process table that is read.
#[must_use]
pub fn root() -> &'static Path {
    ROOT.get().map_or(Path::new("/proc"), PathBuf::as_path)
}

/// The directory of a process. One outside the pid namespace of the table has none.
#[must_use]
pub fn of(pid: Pid) -> PathBuf {
    root().join(pid.to_string())
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
