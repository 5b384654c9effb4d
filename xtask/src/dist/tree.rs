//! Files of an artefact, and archives of them with the same bytes on every machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

const PROGRAM: u32 = 0o755;
const PLAIN: u32 = 0o644;
const FOLDER: u32 = 0o755;

struct File {
    mode: u32,
    bytes: Vec<u8>,
}

/// Files by their paths. Folders are those of the paths. Everything belongs to root.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, File>);

impl Tree {
    pub(super) fn add(&mut self, path: &str, bytes: &[u8]) {
        self.insert(path, PLAIN, bytes);
    }

    pub(super) fn add_program(&mut self, path: &str, bytes: &[u8]) {
        self.insert(path, PROGRAM, bytes);
    }

    pub(super) fn add_file(&mut self, path: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let about = from.metadata().with_context(|| format!("read {}", from.display()))?;
        // Git keeps this bit, and no other one.
        let is_program = about.permissions().mode() & 0o100 != 0;
        self.insert(path, if is_program { PROGRAM } else { PLAIN }, &bytes);
        Ok(())
    }

    /// Every file below the folder `from`.
    pub(super) fn add_folder(&mut self, path: &str, from: &Path) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
            let entry = entry.with_context(|| format!("list {}", from.display()))?.path();
            let name = entry.file_name().and_then(|name| name.to_str()).context("a file name is not UTF-8")?;
            let path = format!("{path}/{name}");
            if entry.is_dir() {
                self.add_folder(&path, &entry)?;
            } else {
                self.add_file(&path, &entry)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let earlier = self.0.insert(path.to_owned(), File { mode, bytes: bytes.to_vec() });
        debug_assert!(earlier.is_none(), "{path} is there twice");
    }

    fn folders(&self) -> BTreeSet<&str> {
        let ends = |path: &str| path.match_indices('/').map(|(at, _)| at).collect::<Vec<_>>();
        self.0.keys().flat_map(|path| ends(path).into_iter().map(|end| &path[..end])).collect()
    }

    /// Writes the files below `root`, whatever the umask is.
    pub(super) fn write_to(&self, root: &Path) -> Result<()> {
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .with_context(|| format!("set the mode of {}", path.display()))
        };
        for folder in self.folders() {
            let path = root.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
            set_mode(&path, FOLDER)?;
        }
        for (path, file) in &self.0 {
            let path = root.join(path);
            fs::write(&path, &file.bytes).with_context(|| format!("write {}", path.display()))?;
            set_mode(&path, file.mode)?;
        }
        Ok(())
    }

    /// A tar archive in which each path begins with `prefix` and every time is `epoch`, in seconds.
    pub(super) fn tar(&self, prefix: &str, epoch: u64) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        let mut append = |path: &str, kind: EntryType, mode: u32, bytes: &[u8]| {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(bytes.len() as u64);
            header.set_mtime(epoch);
            header.set_uid(0);
            header.set_gid(0);
            archive
                .append_data(&mut header, format!("{prefix}{path}"), bytes)
                .with_context(|| format!("archive {path}"))
        };
        if !prefix.is_empty() {
            append("", EntryType::Directory, FOLDER, &[])?;
        }
        for folder in self.folders() {
            append(&format!("{folder}/"), EntryType::Directory, FOLDER, &[])?;
        }
        for (path, file) in &self.0 {
            append(path, EntryType::Regular, file.mode, &file.bytes)?;
        }
        archive.into_inner().context("end an archive")
    }
}

/// gzip without a name and a time.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("a Vec takes everything")
}
