//! The kernels: Debian's newest cloud kernel of a series, kept outside of the tree by its exact version.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use super::debian::{self, Archive, Package};
use crate::{process, tools};

/// A kernel that is ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// `6.12`.
    pub(crate) series: String,
    /// Debian's package and its version: `linux-image-6.12.117+deb12-cloud-amd64 6.12.117-1~deb12u1`.
    pub(crate) package: String,
    pub(crate) image: PathBuf,
    /// `/lib/modules/<release>` of it, with a `modules.dep`.
    pub(crate) modules: PathBuf,
}

/// Sees to it that the newest kernel of each series is there.
pub(crate) fn newest(series: &[String], arch: &Arch) -> Result<Vec<Kernel>> {
    let (cache, _lock) = locked_cache(arch)?;
    let archive = Archive::open(&cache.join("apt"), arch.debian, debian::KERNELS)?;
    let packages = archive.packages()?;
    series.iter().map(|series| ready(series, arch, &archive, &packages, &cache.join("kernels").join(series))).collect()
}

/// Where things for guests are kept, locked for this process: apt and the folders in it are for one at a time.
pub(crate) fn locked_cache(arch: &Arch) -> Result<(PathBuf, File)> {
    let cache = tools::cache_dir()?.join("vm").join(arch.debian);
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let lock = File::create(cache.join("lock")).context("make the lock of the cache")?;
    lock.lock().context("lock the cache")?;
    Ok((cache, lock))
}

/// The newest kernel of a series, in a folder below `dir` that is made whole or not at all.
fn ready(
    series: &str,
    arch: &Arch,
    archive: &Archive,
    packages: &HashMap<String, Package>,
    dir: &Path,
) -> Result<Kernel> {
    let flavour = arch.flavour();
    let Some(package) = newest_of(series, &flavour, packages) else {
        let known: BTreeSet<_> = packages.keys().filter_map(|name| Some(release_of(name, &flavour)?.0)).collect();
        let known: Vec<_> = known.into_iter().map(|(major, minor)| format!("{major}.{minor}")).collect();
        bail!("Debian has no {flavour} kernel of series {series} in these suites; it has {}", known.join(", "));
    };
    let name = format!("{}_{}", package.name, package.version);
    let home = dir.join(&name);
    if !home.exists() {
        println!("fetching {} {}", package.name, package.version);
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let unpacked = tempfile::tempdir_in(dir).context("make a folder for a kernel")?;
        archive.unpack(&parts(package, packages), unpacked.path())?;
        let staged = tempfile::tempdir_in(dir).context("make a folder for a kernel")?;
        keep(unpacked.path(), staged.path()).with_context(|| format!("unpack {name}"))?;
        forget_all_in(dir, &[unpacked.path(), staged.path()])?;
        fs::rename(staged.keep(), &home).with_context(|| format!("put {} into place", home.display()))?;
    }
    let modules = only_entry(&home.join("lib/modules"))?;
    let package = format!("{} {}", package.name, package.version);
    Ok(Kernel { series: series.to_owned(), package, image: home.join("vmlinuz"), modules })
}

/// Moves what a guest needs of an unpacked kernel: its image and its modules.
fn keep(unpacked: &Path, home: &Path) -> Result<()> {
    let modules = [unpacked.join("lib/modules"), unpacked.join("usr/lib/modules")];
    let modules = modules.iter().find(|dir| dir.exists()).context("no modules in it")?;
    let release = only_entry(modules)?;
    let name = release.file_name().context("modules without a release")?.to_owned();
    // Debian 14's packages have the image beside the modules.
    let mut boot = std::ffi::OsString::from("vmlinuz-");
    boot.push(&name);
    let images = [unpacked.join("boot").join(boot), release.join("vmlinuz")];
    let image = images.iter().find(|image| image.exists()).context("no kernel image in it")?;
    fs::rename(image, home.join("vmlinuz")).context("move the image")?;
    fs::create_dir_all(home.join("lib/modules"))?;
    fs::rename(&release, home.join("lib/modules").join(&name)).context("move the modules")?;
    // The packages leave modules.dep to the machine that they are installed on.
    process::run_silently(Command::new("/sbin/depmod").arg("--basedir").arg(home).arg(&name))
}

/// Removes the kernels that a newer one takes the place of.
fn forget_all_in(dir: &Path, but: &[&Path]) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if !but.contains(&path.as_path()) {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn only_entry(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let entry = entries.next().with_context(|| format!("{} is empty", dir.display()))??;
    ensure!(entries.next().is_none(), "{} has more than one entry", dir.display());
    Ok(entry.path())
}

/// The packages that make up a kernel: `linux-image-*` alone, and since 7.x those that it is split into.
fn parts<'a>(image: &'a Package, packages: &'a HashMap<String, Package>) -> Vec<&'a Package> {
    const PARTS: [&str; 3] = ["linux-base-", "linux-binary-", "linux-modules-"];
    let is_part = |name: &&String| PARTS.iter().any(|part| name.starts_with(part));
    [image].into_iter().chain(image.depends.iter().filter(is_part).filter_map(|name| packages.get(name))).collect()
}

fn newest_of<'a>(series: &str, flavour: &str, packages: &'a HashMap<String, Package>) -> Option<&'a Package> {
    let of_series = packages.values().filter_map(|package| {
        let ((major, minor), patch) = release_of(&package.name, flavour)?;
        (format!("{major}.{minor}") == series).then_some((patch, package))
    });
    of_series.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, package)| package)
}

/// The series of a kernel package and the numbers in the rest of its release, by which releases of a series are
/// ordered: `linux-image-6.1.0-56-cloud-amd64` is 56 of the 6.1 kernels.
fn release_of(package: &str, flavour: &str) -> Option<((u32, u32), Vec<u32>)> {
    let release = package.strip_prefix("linux-image-")?.strip_suffix(flavour)?.strip_suffix('-')?;
    let (major, rest) = release.split_once('.')?;
    let (minor, rest) = rest.split_once('.')?;
    let numbers = rest.split(|char: char| !char.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    Some(((major.parse().ok()?, minor.parse().ok()?), numbers.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAVOUR: &str = "cloud-amd64";

    fn packages(names: &[&str]) -> HashMap<String, Package> {
        let package = |&name: &&str| Package { name: name.to_owned(), version: "1".to_owned(), depends: vec![] };
        names.iter().map(|name| ((*name).to_owned(), package(name))).collect()
    }

    #[test]
    fn the_newest_of_a_series_is_taken() {
        let packages = packages(&[
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-0.deb11.99-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.12.90+deb12.1-cloud-amd64",
            "linux-image-6.12.90+deb12-cloud-amd64",
            "linux-image-6.12.107+deb12-cloud-amd64",
        ]);
        let newest = |series| newest_of(series, FLAVOUR, &packages).map(|package| package.name.as_str());
        assert_eq!(newest("6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12"), Some("linux-image-6.12.107+deb12-cloud-amd64"));
        assert_eq!(newest("6"), None);
        assert_eq!(newest("5.10"), None);
    }

    #[test]
    fn a_split_kernel_is_all_its_parts() {
        const NAMES: [&str; 4] =
            ["linux-image-7.3.4-cloud-amd64", "linux-base-7.3.4", "linux-binary-7.3.4", "linux-modules-7.3.4"];
        let mut all = packages(&NAMES);
        all.extend(packages(&["dracut"]));
        let image = all.get_mut(NAMES[0]).unwrap();
        image.depends = [&["dracut", "gone"], &NAMES[1..]].concat().into_iter().map(str::to_owned).collect();
        let names: Vec<_> = parts(&all[NAMES[0]], &all).iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, NAMES);
    }
}
