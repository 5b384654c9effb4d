//! The only reader of files in /proc and /sys (tests/tidy.rs holds this).
//!
//! The kernel has two habits. Some sysctls (`ip_local_reserved_ports`) answer the first read() of a file and nothing after
//! it: what did not fit is lost. Sequence files (mountinfo, slabinfo, net/netstat) give about a page for each read(). So
//! the first read() gets a large buffer, reading goes on until the end, and a buffer that was filled is replaced by a
//! larger one for a new start from the beginning.
//!
//! What is read is bytes: names in it are chosen by others and need not be UTF-8. A file that cannot be read is an error
//! with its errno, never an empty text.

use std::{
    cell::{Cell, RefCell},
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use crate::{errno::Refusal, model::gaps::Gap};

/// Nearly every file fits.
const FIRST: usize = 16 << 10;
/// From one buffer to the next.
const GROWTH: usize = 4;

/// The whole file.
pub fn bytes(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    whole(&File::open(path)?)
}

fn whole(file: &File) -> io::Result<Vec<u8>> {
    // Files of /sys have a size, those of /proc say 0.
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    read(|buffer, at| file.read_at(buffer, at), FIRST.max(size + 1))
}

/// The whole file as text. For files whose words are the kernel's: what is not UTF-8 becomes U+FFFD.
pub fn string(path: impl AsRef<Path>) -> io::Result<String> {
    bytes(path).map(words)
}

fn words(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A directory of which many files are read. It is looked up once.
pub struct Folder {
    path: &'static str,
    opened: io::Result<OwnedFd>,
}

impl Folder {
    /// The sysctls of the calling thread's network namespace, as `procfs` shows them. Where they cannot be opened, nor can the
    /// files, each of which says why.
    pub fn of_sysctls(procfs: &Procfs) -> Self {
        const SYSCTLS: &str = "/proc/sys/net";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = match &procfs.0 {
            Some(own) => openat(own, "sys/net", flags, Mode::empty()),
            None => openat(CWD, SYSCTLS, flags, Mode::empty()),
        };
        Self { path: SYSCTLS, opened: opened.map_err(io::Error::from) }
    }

    fn string(&self, name: &str) -> io::Result<String> {
        match &self.opened {
            Ok(folder) => {
                let file = openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                whole(&File::from(file)).map(words)
            }
            Err(_) => string(Path::new(self.path).join(name)),
        }
    }
}

/// Shows `look` each line of a sequence file that may be larger than memory; the first read() gets a large buffer too.
pub fn each_line(path: impl AsRef<Path>, mut look: impl FnMut(&str)) -> io::Result<()> {
    for line in BufReader::with_capacity(4 * FIRST, File::open(path)?).split(b'\n') {
        look(&String::from_utf8_lossy(&line?));
    }
    Ok(())
}

/// A file of another program, at most `max` bytes of it: a longer one is an error. It has to be a file: a pipe or a device
/// would make us wait, and a link in its place would lead us to a file that its maker may not read.
pub fn bounded(path: impl AsRef<Path>, max: usize) -> io::Result<Vec<u8>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn read(mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>, first: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; first];
    let mut filled = 0;
    loop {
        match read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => {
                buffer.truncate(filled);
                return Ok(buffer);
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == buffer.len() {
            buffer = vec![0; filled * GROWTH];
            filled = 0;
        }
    }
}

/// A mount of procfs. The kernel keeps the sysctls of all network namespaces that were read in one list for each name, and each
/// look-up walks it (`proc_sys_compare`): to read hundreds of namespaces takes many times less in a mount that ends soon.
pub struct Procfs(Option<OwnedFd>);

impl Procfs {
    /// That on /proc.
    pub const SHARED: Self = Self(None);

    /// One that nobody else sees and that ends with this; where that is refused, the one on /proc.
    #[must_use]
    pub fn own() -> Self {
        let open = || {
            let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(context.as_fd())?;
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        Self(open().ok())
    }
}

/// Reads several files and remembers what was refused.
#[derive(Debug, Default)]
pub struct Reads {
    refused: Cell<u32>,
    last: RefCell<Option<Refusal>>,
}

impl Reads {
    /// A file that not every kernel has: its absence is no refusal.
    pub fn optional(&self, path: impl AsRef<Path>) -> Option<String> {
        self.note(path.as_ref(), string(path.as_ref()), |error| error.kind() != io::ErrorKind::NotFound)
    }

    /// As [`Self::optional`], of a file in a directory.
    pub fn optional_in(&self, folder: &Folder, name: &str) -> Option<String> {
        let is_refused = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
        self.note(&Path::new(folder.path).join(name), folder.string(name), is_refused)
    }

    /// As [`Self::required`], of a file in a directory.
    pub fn required_in(&self, folder: &Folder, name: &str) -> Option<String> {
        self.note(&Path::new(folder.path).join(name), folder.string(name), |_| true)
    }

    /// A file that every kernel has.
    pub fn required(&self, path: impl AsRef<Path>) -> Option<String> {
        self.note(path.as_ref(), string(path.as_ref()), |_| true)
    }

    fn note<T>(&self, path: &Path, read: io::Result<T>, counts: impl Fn(&io::Error) -> bool) -> Option<T> {
        read.map_err(|error| {
            if counts(&error) {
                self.refused.set(self.refused.get() + 1);
                self.last.replace(Some(Refusal::new(format!("read {}", path.display()), &error)));
            }
        })
        .ok()
    }

    /// Descriptors or memory were short: nothing that was read says anything of what was not.
    pub fn scarcity(&self) -> Option<Refusal> {
        self.last.borrow().clone().filter(Refusal::is_scarcity)
    }

    /// How many files were refused.
    pub fn gap(&self) -> Gap {
        Gap { count: self.refused.get(), errno: self.last.borrow().as_ref().and_then(|refusal| refusal.errno) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that answers the first read() alone, as `proc_do_large_bitmap` does.
    fn answers_once(text: &[u8]) -> impl FnMut(&mut [u8], u64) -> io::Result<usize> + '_ {
        |buffer, at| {
            let count = if at == 0 { buffer.len().min(text.len()) } else { 0 };
            buffer[..count].copy_from_slice(&text[..count]);
            Ok(count)
        }
    }

    #[test]
    fn a_file_that_answers_once_is_read_whole_whatever_its_length() {
        for length in [0, 1, 7, 8, 9, 31, 32, 33, 200] {
            let text: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            assert_eq!(read(answers_once(&text), 8).unwrap(), text, "{length} bytes");
        }
    }

    #[test]
    fn a_file_that_answers_by_the_page_is_read_to_its_end() {
        let text: Vec<u8> = (0..=u8::MAX).cycle().take(1_000).collect();
        let mut interrupts = 3;
        let by_pages = |buffer: &mut [u8], at: u64| {
            if interrupts > 0 {
                interrupts -= 1;
                return Err(io::ErrorKind::Interrupted.into());
            }
            let rest = &text[usize::try_from(at).unwrap()..];
            let count = buffer.len().min(rest.len()).min(5);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        assert_eq!(read(by_pages, 64).unwrap(), text);
    }

    #[test]
    fn of_another_program_only_a_file_of_bounded_length_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"12345678").unwrap();
        assert_eq!(bounded(&file, 8).unwrap(), b"12345678");
        assert_eq!(bounded(&file, 7).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(bounded(&link, 8).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for other in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            assert_eq!(bounded(other, 8).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", other.display());
        }
    }

    #[test]
    fn a_mount_of_its_own_shows_the_same_sysctls() {
        let range = |procfs: &Procfs| {
            let (reads, folder) = (Reads::default(), Folder::of_sysctls(procfs));
            (reads.required_in(&folder, "ipv4/ip_local_port_range"), reads.optional_in(&folder, "no_such"), reads.gap())
        };
        let expected = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        for procfs in [Procfs::SHARED, Procfs::own()] {
            assert_eq!(range(&procfs), (Some(expected.clone()), None, Gap::default()));
        }
    }

    #[test]
    fn an_error_keeps_its_errno_and_is_counted() {
        let missing = bytes("/proc/sys/net/ipv4/no_such_file").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        let reads = Reads::default();
        assert_eq!(reads.optional("/proc/no-such-file"), None);
        assert_eq!(reads.gap(), Gap::default());
        assert_eq!(reads.required("/proc/no-such-file"), None);
        assert_eq!(reads.gap(), Gap { count: 1, errno: Some(libc::ENOENT) });
        assert_eq!(reads.scarcity(), None);
    }
}
