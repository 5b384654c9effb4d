//! The packages in a clean Debian: installed, used, removed and purged. What the scripts of that for RPM call is there, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{Artefacts, RECORDING, replays, says_its_version};
use crate::dist::sha256;
use crate::{debian_root, process};

/// What dpkg and rpm themselves keep, and their logs. Removing a group leaves the earlier files of groups with a hyphen.
const NOT_COMPARED: [&str; 6] = ["var/lib/dpkg", "var/lib/rpm", "var/log", "var/cache", "etc/group-", "etc/gshadow-"];

/// A file's mode, user, group and content.
type State = (u32, u32, u32, String);

/// A copy of a clean Debian.
struct Root {
    folder: TempDir,
}

impl Root {
    fn copy() -> Result<Self> {
        let folder = TempDir::new().context("make a folder")?;
        let clean = debian_root::make()?;
        process::run_silently(
            Command::new("cp").args(["--archive", "--reflink=auto"]).arg(clean.join(".")).arg(folder.path()),
        )?;
        Ok(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command that runs in it.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command
            .arg(self.path())
            .args(words)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn files(&self) -> Result<BTreeMap<PathBuf, State>> {
        let mut files = BTreeMap::new();
        let mut queue = vec![self.path().to_owned()];
        while let Some(path) = queue.pop() {
            let name = path.strip_prefix(self.path()).unwrap_or(&path).to_owned();
            if NOT_COMPARED.iter().any(|ignored| name == Path::new(ignored)) {
                continue;
            }
            let about = path.symlink_metadata().with_context(|| format!("read {}", path.display()))?;
            let mut content = String::new();
            if about.is_dir() {
                for entry in fs::read_dir(&path).with_context(|| format!("list {}", path.display()))? {
                    queue.push(entry.with_context(|| format!("list {}", path.display()))?.path());
                }
            } else if about.is_symlink() {
                content =
                    fs::read_link(&path).with_context(|| format!("read {}", path.display()))?.display().to_string();
            } else if about.is_file() {
                content = sha256(&fs::read(&path).with_context(|| format!("read {}", path.display()))?);
            }
            files.insert(name, (about.mode(), about.uid(), about.gid(), content));
        }
        Ok(files)
    }
}

/// What differs between two states of a root.
fn changed(before: &BTreeMap<PathBuf, State>, after: &BTreeMap<PathBuf, State>) -> Vec<PathBuf> {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

/// Fails unless the package for Debian works, and leaves nothing.
pub(super) fn check(artefacts: &Artefacts) -> Result<()> {
    let root = Root::copy()?;
    let before = root.files()?;
    fs::copy(artefacts.deb(), root.path().join("var/cache/observer.deb")).context("copy the package")?;
    fs::copy(RECORDING, root.path().join("var/cache/demo.obs")).context("copy a recording")?;
    process::run_silently(&mut root.command(&["dpkg", "--install", "/var/cache/observer.deb"]))?;
    files_are_at_their_places(&root, &before)?;
    is_not_enabled(&root)?;
    is_unchanged(&root)?;
    says_its_version(&mut root.command(&["observer"]), &artefacts.version)?;
    replays(&mut root.command(&["observer"]), "/var/cache/demo.obs")?;

    // A removed package keeps its settings, and a purged one nothing.
    process::run_silently(&mut root.command(&["dpkg", "--remove", "observer"]))?;
    // deb-systemd-helper remembers until the purge what was enabled.
    let is_left = |path: &PathBuf| !before.contains_key(path) && !path.starts_with("var/lib/systemd");
    let left: Vec<_> = root.files()?.into_keys().filter(is_left).collect();
    ensure!(left == [Path::new("etc/default/observer")], "a removed package leaves {left:?}");
    process::run_silently(&mut root.command(&["dpkg", "--purge", "observer"]))?;
    let left = changed(&before, &root.files()?);
    ensure!(left.is_empty(), "a purged package leaves, or has taken away: {left:?}");
    Ok(())
}

/// Fails unless the package with RPM works, and leaves the group alone.
pub(super) fn check_rpm(artefacts: &Artefacts) -> Result<()> {
    /// Of the package `filesystem` there, which Debian does not have.
    const FOLDERS: [&str; 3] =
        ["usr/share/fish/vendor_completions.d", "usr/share/licenses", "usr/share/zsh/site-functions"];
    let root = Root::copy()?;
    for folder in FOLDERS.map(|folder| root.path().join(folder)) {
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let before = root.files()?;
    let rpm = |words: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(root.path()).args(["--dbpath", "/var/lib/rpm"]).args(words);
        rpm
    };
    // Debian does not have systemd as a package of RPM's.
    process::run_silently(rpm(&["--install", "--nodeps"]).arg(artefacts.rpm()))?;
    process::run_silently(&mut rpm(&["--verify", "--nodeps", "observer"]))?;
    is_not_enabled(&root)?;
    has_a_group_and_no_user(&root)?;
    says_its_version(&mut root.command(&["observer"]), &artefacts.version)?;
    process::run_silently(&mut rpm(&["--erase", "observer"]))?;
    let left = changed(&before, &root.files()?);
    ensure!(left == ["etc/group", "etc/gshadow"].map(PathBuf::from), "an erased package changes {left:?}");
    Ok(())
}

fn files_are_at_their_places(root: &Root, before: &BTreeMap<PathBuf, State>) -> Result<()> {
    let after = root.files()?;
    for (path, mode) in [
        ("usr/bin/observer", 0o100_755),
        ("lib/systemd/system/observer.service", 0o100_644),
        ("lib/systemd/system/observer.socket", 0o100_644),
        ("usr/lib/sysusers.d/observer.conf", 0o100_644),
        ("etc/default/observer", 0o100_644),
        ("usr/share/man/man1/observer.1.gz", 0o100_644),
        ("usr/share/man/man1/observer-serve.1.gz", 0o100_644),
        ("usr/share/bash-completion/completions/observer", 0o100_644),
        ("usr/share/zsh/vendor-completions/_observer", 0o100_644),
        ("usr/share/fish/vendor_completions.d/observer.fish", 0o100_644),
        ("usr/share/doc/observer/copyright", 0o100_644),
        ("usr/share/doc/observer/changelog.Debian.gz", 0o100_644),
        ("usr/share/doc/observer/third-party-notices.txt.gz", 0o100_644),
        ("usr/share/doc/observer/examples/systemd/own-netns.conf", 0o100_644),
    ] {
        let about = root.path().join(path).metadata().with_context(|| format!("the package lacks {path}"))?;
        ensure!(about.mode() == mode, "{path} has mode {:o}", about.mode());
    }
    for (path, (mode, user, group, _)) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        ensure!((*user, *group) == (0, 0), "{} belongs to {user}:{group}", path.display());
        ensure!(mode & 0o7022 == 0, "{} has mode {mode:o}", path.display());
    }
    has_a_group_and_no_user(root)
}

fn has_a_group_and_no_user(root: &Root) -> Result<()> {
    let group = process::stdout(&mut root.command(&["getent", "group", "observer"]))?;
    ensure!(group.starts_with("observer:"), "the group: {group}");
    let users = process::stdout(&mut root.command(&["getent", "passwd"]))?;
    ensure!(!users.contains("observer"), "the package made a user: the unit makes its own\n{users}");
    Ok(())
}

fn is_not_enabled(root: &Root) -> Result<()> {
    for unit in ["observer.service", "observer.socket"] {
        let output = root.command(&["systemctl", "is-enabled", unit]).output().context("start systemctl")?;
        let state = String::from_utf8_lossy(&output.stdout);
        ensure!(state.trim_end() == "disabled", "{unit} is {state}");
    }
    Ok(())
}

fn is_unchanged(root: &Root) -> Result<()> {
    let verified = process::stdout(&mut root.command(&["dpkg", "--verify", "observer"]))?;
    ensure!(verified.is_empty(), "dpkg finds changed files:\n{verified}");
    let settings =
        process::stdout(&mut root.command(&["dpkg-query", "--show", "--showformat=${Conffiles}", "observer"]))?;
    ensure!(settings.contains("/etc/default/observer"), "the settings are no conffile: {settings}");
    Ok(())
}
