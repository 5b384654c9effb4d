//! Debian's packages of other suites, read by an apt with state of its own: the machine's sources, package lists and
//! installed packages stay as they are. What is downloaded is signed by Debian.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use crate::process;

const DEBIAN: (&str, &str) = ("Debian", "http://deb.debian.org/debian");
const SECURITY: (&str, &str) = ("Debian-Security", "http://deb.debian.org/debian-security");

/// A suite, with the label of its archive and its address if this machine's own sources do not name one.
pub(crate) type Suite = (&'static str, (&'static str, &'static str));

/// Where cloud kernels are: together these have every series since 5.10 that Debian still keeps.
pub(crate) const KERNELS: &[Suite] = &[
    ("bullseye-security", SECURITY),
    ("bookworm-security", SECURITY),
    ("bookworm-backports", DEBIAN),
    ("trixie-backports", DEBIAN),
];

/// Where this machine's programs are from too.
pub(crate) const PROGRAMS: &[Suite] = &[("bookworm", DEBIAN), ("bookworm-security", SECURITY)];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How long package lists count as the newest.
const FRESH: Duration = Duration::from_hours(24);

/// An apt that knows some suites and nothing else.
pub(crate) struct Archive {
    dir: PathBuf,
}

/// A package as the lists have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The names alone, of the first of each alternative.
    pub(crate) depends: Vec<String>,
}

impl Archive {
    /// Keeps its state in `dir`; `arch` is Debian's name of it.
    pub(crate) fn open(dir: &Path, arch: &str, suites: &[Suite]) -> Result<Self> {
        let archive = Self { dir: dir.to_owned() };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        // No package counts as installed.
        archive.write("state/status", "")?;
        archive.write("sources.list", &sources(arch, suites)?)?;
        archive.write("apt.conf", &configuration(dir, arch))?;
        Ok(archive)
    }

    /// Every package of the suites. Old lists are fetched again; if that fails, the old ones are used.
    pub(crate) fn packages(&self) -> Result<HashMap<String, Package>> {
        let listed = self.dir.join("refreshed");
        if !is_fresh(&listed) {
            match process::run_silently(self.apt("apt-get").args(["--error-on=any", "update"])) {
                Ok(()) => self.write("refreshed", "")?,
                Err(error) if listed.exists() => println!("using the package lists of an earlier day: {error:#}"),
                Err(error) => return Err(error).context("fetch Debian's lists of kernels"),
            }
        }
        let lists = process::stdout(self.apt("apt-cache").arg("dumpavail"))?;
        Ok(parse(&lists))
    }

    /// Downloads packages and unpacks them into `dest`, one over the other.
    pub(crate) fn unpack(&self, packages: &[&Package], dest: &Path) -> Result<()> {
        let debs = tempfile::tempdir_in(&self.dir).context("make a folder for packages")?;
        let versions = packages.iter().map(|package| format!("{}={}", package.name, package.version));
        process::run_silently(self.apt("apt-get").arg("download").args(versions).current_dir(debs.path()))?;
        extract_all(debs.path(), dest)
    }

    /// The same with all that the packages need, down to the C library: nothing counts as installed.
    pub(crate) fn unpack_whole(&self, packages: &[&str], dest: &Path) -> Result<()> {
        process::run_silently(self.apt("apt-get").arg("clean"))?;
        let mut install = self.apt("apt-get");
        install.args(["install", "--download-only", "--yes", "--no-install-recommends"]).args(packages);
        process::run_silently(&mut install)?;
        extract_all(&self.dir.join("cache/archives"), dest)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // On the command line it is read after the machine's own configuration.
        command.arg("--config-file").arg(self.dir.join("apt.conf"));
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

fn extract_all(debs: &Path, dest: &Path) -> Result<()> {
    for deb in fs::read_dir(debs).with_context(|| format!("list {}", debs.display()))? {
        let deb = deb?.path();
        if deb.extension() == Some(OsStr::new("deb")) {
            process::run_silently(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(dest))?;
        }
    }
    Ok(())
}

/// The lines of an apt.conf that keeps apt to `dir`.
fn configuration(dir: &Path, arch: &str) -> String {
    let at = |folder: &str| dir.join(folder).display().to_string();
    let options = [
        ("Dir::Etc::sourcelist", at("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferences", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("Dir::State", at("state")),
        ("Dir::State::status", at("state/status")),
        ("Dir::Cache", at("cache")),
        ("APT::Architecture", arch.to_owned()),
        ("APT::Architectures", arch.to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
        // The user that downloads are handed to otherwise may not write to these folders.
        ("APT::Sandbox::User", String::new()),
    ];
    let lines = options.map(|(name, value)| format!("{name} \"{value}\";\n"));
    lines.concat()
}

/// The lines of a sources.list: the mirrors that this machine uses for its own packages.
fn sources(arch: &str, suites: &[Suite]) -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let targets = process::stdout(&mut targets)?;
    let line = |&(suite, (label, default)): &Suite| {
        let own = targets.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
        let mirror = own.unwrap_or(default);
        format!("deb [arch={arch} signed-by={KEYRING}] {mirror} {suite} main\n")
    };
    Ok(suites.iter().map(line).collect())
}

fn is_fresh(stamp: &Path) -> bool {
    let written = fs::metadata(stamp).and_then(|stamp| stamp.modified());
    // A stamp of the future has no age: its clock was wrong.
    written.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < FRESH))
}

/// Reads the stanzas of Debian's package lists (deb822).
fn parse(lists: &str) -> HashMap<String, Package> {
    let mut packages = HashMap::new();
    for stanza in lists.split("\n\n") {
        let field = |name| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (Some(name), Some(version)) = (field("Package"), field("Version")) else {
            continue;
        };
        let depends = field("Depends").unwrap_or_default().split(',');
        let depends = depends.filter_map(|one| one.split_whitespace().next()).map(str::to_owned).collect();
        let package = Package { name: name.to_owned(), version: version.to_owned(), depends };
        packages.insert(name.to_owned(), package);
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_its_version_and_what_it_depends_on() {
        let lists = "\
Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.3.4 (= 7.3.4-1), linux-binary-7.3.4 (= 7.3.4-1)
Description: Linux 7.3.4 for x86-64 cloud
 Depends: is a word here

Package: bare
Version: 1

";
        let packages = parse(lists);
        assert_eq!(packages.len(), 2);
        let kernel = &packages["linux-image-7.3.4+deb13-cloud-amd64"];
        assert_eq!(kernel.version, "7.3.4-1~bpo13+1");
        assert_eq!(kernel.depends, ["dracut", "linux-base-7.3.4", "linux-binary-7.3.4"]);
        assert_eq!(packages["bare"].depends, Vec::<String>::new());
    }
}
