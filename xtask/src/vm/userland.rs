//! The programs that tests call, beside the kernel and the tests themselves: this machine's, or for another processor
//! Debian's of the same release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::arch::Arch;
use super::debian::{self, Archive};
use super::initramfs::Root;
use super::kernel;
use crate::process;

/// What a guest's programs are copied from.
pub(crate) enum Userland {
    /// The machine that this runs on, program by program.
    Host,
    /// A folder that is a root file system.
    Tree(PathBuf),
}

/// Programs that tests call. All others are busybox's, whose `ip` cannot do what they ask, and which has no `ss`.
const PROGRAMS: [&str; 9] = ["bash", "ip", "ss", "nft", "unshare", "setpriv", "prlimit", "stat", "curl"];
/// Packages with these programs.
const PACKAGES: [&str; 7] = ["bash", "busybox-static", "iproute2", "nftables", "util-linux", "coreutils", "curl"];
/// What no test reads, as folders of a root file system.
const UNUSED: [&str; 8] = [
    "usr/include",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl5",
    "usr/share/zoneinfo",
    "var",
];

impl Userland {
    /// Sees to it that the programs for a processor are there.
    pub(crate) fn of(arch: &Arch) -> Result<Self> {
        if arch.is_native() {
            return Ok(Self::Host);
        }
        let tree = fetched(arch, "userland", |archive, dest| {
            archive.unpack_whole(&PACKAGES, dest)?;
            for folder in UNUSED.map(|folder| dest.join(folder)).iter().filter(|folder| folder.exists()) {
                fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
            }
            Ok(())
        })?;
        Ok(Self::Tree(tree))
    }

    /// Puts the programs into a guest.
    pub(crate) fn install(&self, root: &mut Root) -> Result<()> {
        let busybox = find("busybox")?;
        match self {
            Self::Host => {
                root.program("/bin/busybox", &busybox)?;
                for name in PROGRAMS {
                    root.program(Path::new("/bin").join(name), &find(name)?)?;
                }
            }
            Self::Tree(tree) => root.tree(tree)?,
        }
        // In a folder of their own, the last on the PATH. busybox's shell would take them before all else: it is not used.
        for applet in process::stdout(Command::new(busybox).arg("--list"))?.lines() {
            root.link(Path::new("/busybox").join(applet), "/bin/busybox");
        }
        root.link("/bin/sh", "bash");
        Ok(())
    }
}

/// Rust's standard library for a processor, as a sysroot for Debian's rustc of the same version.
pub(crate) fn sysroot(arch: &Arch) -> Result<PathBuf> {
    const LIBRARY: &str = "libstd-rust-web-dev";
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Version}", LIBRARY]);
    let version = process::stdout(&mut query)?;
    let tree = fetched(arch, &format!("{LIBRARY}_{version}"), |archive, dest| {
        let packages = archive.packages()?;
        let package = packages.get(LIBRARY).filter(|package| package.version == version);
        let package = package.with_context(|| format!("no {LIBRARY} {version} for {}", arch.debian))?;
        archive.unpack(&[package], dest)
    })?;
    Ok(tree.join("usr"))
}

/// A folder of the cache, which `fetch` fills once and whole.
fn fetched(arch: &Arch, name: &str, fetch: impl FnOnce(&Archive, &Path) -> Result<()>) -> Result<PathBuf> {
    let (cache, _lock) = kernel::locked_cache(arch)?;
    let tree = cache.join(name);
    if !tree.exists() {
        println!("fetching {name} for {}", arch.debian);
        let archive = Archive::open(&cache.join("apt-programs"), arch.debian, debian::PROGRAMS)?;
        archive.packages()?;
        let staged = tempfile::tempdir_in(&cache).context("make a folder for packages")?;
        fetch(&archive, staged.path())?;
        fs::rename(staged.keep(), &tree).with_context(|| format!("put {} into place", tree.display()))?;
    }
    Ok(tree)
}

/// The path of a program on this machine, where Debian has it: a PATH may lack root's folders, or have others first.
fn find(name: &str) -> Result<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.with_context(|| format!("no {name} in {}", folders.join(", ")))
}
