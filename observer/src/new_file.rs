//! Files that are made under a name from the user. Observer runs as root: nothing but a regular file is ever replaced or
//! written to, no symbolic link is followed, and what is made can be read by its owner alone.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use tempfile::NamedTempFile;

/// What is there under this name, if anything. `what` is to be written there: anything but a regular file is refused.
fn regular_file_at(path: &Path, what: &str) -> anyhow::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found)),
        Ok(found) => {
            let kind = kind(found.file_type());
            bail!("{} is {kind}: {what} goes to a regular file, choose another name", path.display())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}

fn kind(found: FileType) -> &'static str {
    match found {
        it if it.is_symlink() => "a symbolic link",
        it if it.is_dir() => "a directory",
        it if it.is_fifo() => "a FIFO",
        it if it.is_socket() => "a socket",
        it if it.is_char_device() || it.is_block_device() => "a device",
        _ => "no regular file",
    }
}

/// A file that gets its name once it is known to be of use. Until then it has a temporary one in the same folder, and
/// goes with this value.
#[derive(Debug)]
pub(crate) struct NewFile {
    temporary: NamedTempFile,
    path: PathBuf,
    replaces: Replaces,
}

/// What becomes of a regular file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaces {
    /// It stays, and the new one is not made; `--force` would replace it.
    NothingButMay,
    /// It stays, and the new one is not made.
    Nothing,
    /// It is replaced.
    RegularFile,
}

impl NewFile {
    /// Fails where the name cannot be had; makes nothing.
    pub(crate) fn check(path: &Path, replaces: Replaces) -> anyhow::Result<()> {
        match (regular_file_at(path, "a recording")?, replaces) {
            (None, _) | (Some(_), Replaces::RegularFile) => Ok(()),
            (Some(_), Replaces::NothingButMay) => bail!("{} is there already: --force replaces it", path.display()),
            (Some(_), Replaces::Nothing) => bail!("{} is there already: choose another name", path.display()),
        }
    }

    /// Makes a file of mode 0600 beside `path`: a recording contains all connections and processes of the host.
    pub(crate) fn create(path: &Path, replaces: Replaces) -> anyhow::Result<Self> {
        Self::check(path, replaces)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The kernel's error alone: the temporary name, which tempfile puts around it, says nothing to the user.
        let mut refused = None;
        // O_EXCL: it follows no link.
        let open = |path: &Path| {
            let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
            opened.inspect_err(|error| refused = error.raw_os_error())
        };
        let made = tempfile::Builder::new().prefix(".observer-").suffix(".part").make_in(folder, open);
        let temporary = made
            .map_err(|error| refused.map_or(error, io::Error::from_raw_os_error))
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { temporary, path: path.to_owned(), replaces })
    }

    /// To write to.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.temporary.as_file().try_clone()
    }

    /// Gives the file its name, in one step: whoever looks there finds the old file or this one.
    pub(crate) fn keep(self) -> anyhow::Result<()> {
        let Self { temporary, path, replaces } = self;
        // Somebody may have put something else there in the meantime. rename(2) follows no link.
        Self::check(&path, replaces)?;
        let kept = match replaces {
            Replaces::RegularFile => temporary.persist(&path),
            Replaces::Nothing | Replaces::NothingButMay => temporary.persist_noclobber(&path),
        };
        kept.map(drop).map_err(|error| anyhow!(error.error).context(format!("give {} its name", path.display())))
    }
}

/// A log: a regular file that is added to. One that was made for nothing is taken away again.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// Of a file that was made here: its device and inode.
    made: Option<(u64, u64)>,
}

impl Log {
    /// Opens it, to write at its end.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Self, File)> {
        let context = || format!("open the log file {}", path.display());
        let is_new = regular_file_at(path, "a log")?.is_none();
        let mut options = OpenOptions::new();
        // Between the look and this somebody may have put a link or a FIFO there.
        options.append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = if is_new { options.create_new(true) } else { &mut options }.open(path).with_context(context)?;
        let found = file.metadata().with_context(context)?;
        if !found.is_file() {
            bail!(
                "{} is {}: a log goes to a regular file, choose another name",
                path.display(),
                kind(found.file_type())
            );
        }
        let made = is_new.then(|| (found.dev(), found.ino()));
        Ok((Self { path: path.to_owned(), made }, file))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let is_ours = |found: &fs::Metadata| Some((found.dev(), found.ino())) == self.made;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| is_ours(&found) && found.len() == 0) {
            // An empty file that stays does no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_once_it_is_kept_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let new = NewFile::create(&path, Replaces::NothingButMay).unwrap();
        new.file().unwrap().write_all(b"first").unwrap();
        assert!(!path.exists());
        new.keep().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        // One that is not kept leaves what was there, and nothing else.
        drop(NewFile::create(&path, Replaces::RegularFile).unwrap());
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"first".to_vec(), vec!["new".to_owned()]));
        let error = NewFile::create(&path, Replaces::NothingButMay).unwrap_err();
        assert!(error.to_string().contains("--force replaces it"), "{error}");
        let error = NewFile::create(&path, Replaces::Nothing).unwrap_err();
        assert!(!error.to_string().contains("--force"), "{error}");
    }

    #[test]
    fn an_error_names_the_file_that_was_asked_for_and_the_errno() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("x");
        let error = NewFile::create(&path, Replaces::NothingButMay).unwrap_err();
        let expected = format!("open {}: ENOENT (No such file or directory)", path.display());
        assert_eq!(crate::errno::sentence(&error), expected);
        let error = NewFile::create(&folder.path().join("new\nline\x1b[31m\u{202e}/x"), Replaces::Nothing).unwrap_err();
        let sentence = crate::errno::sentence(&error);
        assert!(!sentence.contains(['\n', '\x1b', '\u{202e}']) && sentence.contains("ENOENT"), "{sentence:?}");
    }

    #[test]
    fn what_comes_to_the_name_in_the_meantime_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("new"), folder.path().join("target"));
        let new = NewFile::create(&path, Replaces::NothingButMay).unwrap();
        fs::write(&path, "mine").unwrap();
        new.keep().unwrap_err();
        let new = NewFile::create(&path, Replaces::RegularFile).unwrap();
        fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        new.keep().unwrap_err();
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        assert_eq!(names(folder.path()), ["new", "target"]);
    }

    #[test]
    fn an_empty_log_goes_and_another_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        drop(Log::open(&path).unwrap());
        assert!(!path.exists());
        let (log, mut file) = Log::open(&path).unwrap();
        file.write_all(b"word").unwrap();
        drop(log);
        drop(Log::open(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"word");
        fs::write(&path, "").unwrap();
        drop(Log::open(&path).unwrap());
        assert!(path.exists(), "somebody else made it");
    }
}
