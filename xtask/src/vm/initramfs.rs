//! The root file system of a guest: an uncompressed cpio archive, since to unpack one is slow where the processor is
//! emulated.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cpio::newc::{self, ModeFileType};

use super::kernel::Kernel;
use super::modules;

/// The first process: it runs the jobs and reports how they ended.
const INIT: &str = include_str!("init");

/// What each guest loads: sockets by netlink for `ss`, links for namespaces, VRFs, connection tracking, NAT.
const MODULES: [&str; 13] = [
    "inet_diag",
    "tcp_diag",
    "veth",
    "dummy",
    "vrf",
    "nf_conntrack",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "sch_netem",
];

enum Entry {
    Folder,
    Program(Vec<u8>),
    Text(String),
    Link(PathBuf),
}

/// The files of a guest, each by its path in there.
#[derive(Default)]
pub(crate) struct Root(BTreeMap<PathBuf, Entry>);

impl Root {
    /// What every guest has beside programs: modules for its kernel, and the first process.
    pub(crate) fn new(kernel: &Kernel) -> Result<Self> {
        let mut root = Self::default();
        for folder in ["/dev", "/jobs", "/modules", "/proc", "/root", "/run", "/sys", "/tmp"] {
            root.add(folder, Entry::Folder);
        }
        root.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
        root.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        root.add("/init", Entry::Program(INIT.into()));
        let mut order = Vec::new();
        for module in modules::in_load_order(kernel, &MODULES)? {
            let path = format!("/modules/{}.ko", module.name);
            root.add(&path, Entry::Program(module.object));
            order.push(path + "\n");
        }
        root.text("/modules/order", &order.concat());
        Ok(root)
    }

    /// A program with the shared libraries that it asks for.
    pub(crate) fn program(&mut self, path: impl AsRef<Path>, source: &Path) -> Result<()> {
        for library in libraries(source)? {
            let object = read(&library)?;
            self.add(library, Entry::Program(object));
        }
        self.add(path, Entry::Program(read(source)?));
        Ok(())
    }

    /// All that a folder has, as if it were the root.
    pub(crate) fn tree(&mut self, tree: &Path) -> Result<()> {
        let mut folders = vec![tree.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
                let source = entry?.path();
                let kind = fs::symlink_metadata(&source).with_context(|| format!("look at {}", source.display()))?;
                let entry = if kind.is_symlink() {
                    Entry::Link(fs::read_link(&source).with_context(|| format!("read {}", source.display()))?)
                } else if kind.is_dir() {
                    folders.push(source.clone());
                    Entry::Folder
                } else {
                    Entry::Program(read(&source)?)
                };
                self.add(source.strip_prefix(tree).context("a path of the tree")?, entry);
            }
        }
        Ok(())
    }

    pub(crate) fn link(&mut self, path: impl AsRef<Path>, to: impl Into<PathBuf>) {
        self.add(path, Entry::Link(to.into()));
    }

    pub(crate) fn text(&mut self, path: impl AsRef<Path>, text: &str) {
        self.add(path, Entry::Text(text.to_owned()));
    }

    fn add(&mut self, path: impl AsRef<Path>, entry: Entry) {
        // Names in the archive are relative to the root.
        let path = path.as_ref().strip_prefix("/").unwrap_or(path.as_ref());
        let folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        for folder in folders {
            self.0.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Writes the archive. A folder comes before what is in it: so the map is ordered.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
        self.write_to(BufWriter::new(file)).with_context(|| format!("write {}", path.display()))
    }

    fn write_to(&self, mut out: impl Write) -> Result<()> {
        for (inode, (path, entry)) in (1..).zip(&self.0) {
            let name = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            let (kind, mode, content) = match entry {
                Entry::Folder => (ModeFileType::Directory, 0o755, &[][..]),
                Entry::Program(object) => (ModeFileType::Regular, 0o755, object.as_slice()),
                Entry::Text(text) => (ModeFileType::Regular, 0o644, text.as_bytes()),
                Entry::Link(to) => (ModeFileType::Symlink, 0o777, to.as_os_str().as_encoded_bytes()),
            };
            let size = u32::try_from(content.len()).context("a file of more than 4 GiB")?;
            let mut writer = newc::Builder::new(name).ino(inode).mode(mode).set_mode_file_type(kind).write(out, size);
            writer.write_all(content)?;
            out = writer.finish()?;
        }
        newc::trailer(out)?.flush().context("flush")
    }
}

/// The shared libraries of a program, the loader among them, by the paths at which the loader looks for them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("start `ldd`")?;
    // It fails for a program that is linked statically, and says so on its standard error.
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") {
        bail!("{} lacks libraries:\n{text}", program.display());
    }
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
