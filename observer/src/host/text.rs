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
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::{errno::Refusal, model::gaps::Gap};

/// Nearly every file fits.
const FIRST: usize = 16 << 10;
/// From one buffer to the next.
const GROWTH: usize = 4;

/// The whole file.
pub fn bytes(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Files of /sys have a size, those of /proc say 0.
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    read(|buffer, at| file.read_at(buffer, at), FIRST.max(size + 1))
}

/// The whole file as text. For files whose words are the kernel's: what is not UTF-8 becomes U+FFFD.
pub fn string(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = bytes(path)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
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
