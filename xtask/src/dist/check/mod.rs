//! Whether the artefacts do what they are for, by the programs that read them: lintian, rpm, podman, shells, a clean Debian, and
//! an emulator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::program::{SHELLS, Shell};
use super::{CHECKSUMS, release::Release};
use crate::bench::terminal::Terminal;
use crate::tally::Tally;
use crate::vm::arch::{Arch, X86_64};
use crate::{process, test, tools};

mod emulated;
mod image;
mod installed;
mod sections;

/// What programs replay: a live screen of the documents.
const RECORDING: &str = "observer/tests/data/demo.obs";

/// The artefacts of one release.
struct Artefacts<'a> {
    folder: &'a Path,
    version: String,
}

impl Artefacts<'_> {
    fn deb(&self) -> PathBuf {
        self.folder.join(format!("observer_{}-{}_amd64.deb", self.version, Release::REVISION))
    }

    fn rpm(&self) -> PathBuf {
        self.folder.join(format!("observer-{}-{}.x86_64.rpm", self.version, Release::REVISION))
    }

    /// Unpacks the tar archive of a processor below `root`; returns its folder there.
    fn unpack(&self, arch: &Arch, root: &Path) -> Result<PathBuf> {
        let name = format!("observer-{}-{}-linux", self.version, arch.name);
        let tarball = self.folder.join(format!("{name}.tar.gz"));
        process::run(Command::new("tar").arg("--extract").arg("--file").arg(tarball).arg("-C").arg(root))?;
        Ok(root.join(name))
    }

    fn image(&self) -> PathBuf {
        self.folder.join(format!("observer-{}-x86_64-oci.tar", self.version))
    }

    fn sbom(&self) -> PathBuf {
        self.folder.join(format!("observer-{}.cdx.json", self.version))
    }
}

/// Fails unless the artefacts in `folder` work. Quickly built ones may be large, and are without an SBOM. `also` is the other
/// processor that has a tar archive.
pub(super) fn run(folder: &Path, quick: bool, also: Option<&Arch>) -> Result<()> {
    tools::for_dist_checks()?;
    let artefacts = Artefacts { folder, version: Release::of_this_tree()?.version };
    process::run_silently(Command::new("sha256sum").args(["--check", "--strict", CHECKSUMS]).current_dir(folder))?;
    lint(&artefacts)?;
    unpacked(&artefacts, quick)?;
    if let Some(arch) = also {
        emulated::check(&artefacts, arch)?;
    }
    installed::check(&artefacts)?;
    installed::check_rpm(&artefacts)?;
    image::check(&artefacts, quick)?;
    println!("the artefacts of {} are sound", artefacts.version);
    Ok(())
}

/// Runs the tests that use what stands in the folder of builds: the package where systemd is the first process, and the image
/// with the rights of the DaemonSet.
pub(super) fn in_use() -> Result<()> {
    const TESTS: [&str; 2] = ["systemd::package::", "podman::"];
    tools::for_dist_tests()?;
    let mut cargo = process::cargo();
    // Of the whole workspace, as `cargo xtask test` builds them: nothing is compiled twice.
    cargo.args("test --workspace --locked --test containers --test fleet --".split(' ')).args(TESTS);
    let mut tally = Tally::default();
    test::run_summing(cargo, &mut tally)?;
    ensure!(tally.passed == TESTS.len(), "of {TESTS:?} there ran {}", tally.passed);
    Ok(())
}

fn lint(artefacts: &Artefacts) -> Result<()> {
    let mut lintian = Command::new("lintian");
    // It is meant for those who build packages, not for root.
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]).arg(artefacts.deb());
    process::run_silently(&mut lintian)?;
    let rpm = artefacts.rpm();
    process::run_silently(Command::new("rpm").arg("--checksig").arg(&rpm))?;
    let files = process::stdout(Command::new("rpm").args(["--query", "--list", "--package"]).arg(&rpm))?;
    for file in ["/usr/bin/observer", "/usr/lib/systemd/system/observer.service", "/usr/share/man/man1/observer.1.gz"] {
        ensure!(files.lines().any(|line| line == file), "{} has no {file}:\n{files}", rpm.display());
    }
    let settings = process::stdout(Command::new("rpm").args(["--query", "--configfiles", "--package"]).arg(&rpm))?;
    ensure!(settings.trim_end() == "/etc/default/observer", "settings of {}: {settings}", rpm.display());
    process::run_silently(Command::new("rpmlint").args(["--config", "packaging/rpm/rpmlint.toml"]).arg(&rpm))
}

/// The tar archive, unpacked where there is nothing else.
fn unpacked(artefacts: &Artefacts, quick: bool) -> Result<()> {
    let root = TempDir::new().context("make a folder")?;
    let folder = artefacts.unpack(&X86_64, root.path())?;
    // Nothing else is in this root: neither a library nor a loader.
    let inside = Path::new("/").join(folder.file_name().unwrap_or_default()).join("observer");
    says_its_version(Command::new("chroot").arg(root.path()).arg(inside), &artefacts.version)?;
    sections::check(&folder.join("observer"), &X86_64, (!quick).then(|| artefacts.sbom()).as_deref())?;
    let pages = fs::read_dir(folder.join("man/man1")).context("list the man pages")?;
    for page in pages {
        read_page(&page.context("list the man pages")?.path())?;
    }
    SHELLS.iter().try_for_each(|shell| parse(shell, &folder.join("completions").join(shell.file)))
}

/// Fails unless the program that the command runs is of this version.
fn says_its_version(program: &mut Command, version: &str) -> Result<()> {
    let printed = process::stdout(program.arg("--version"))?;
    ensure!(printed == format!("observer {version}\n"), "the program prints {printed}");
    Ok(())
}

/// Fails unless the program that the command runs shows the recording on the screen.
fn replays(program: &mut Command, recording: &str) -> Result<()> {
    let mut screen = Terminal::start(program.args(["replay", recording]))?;
    screen.wait_for(&["REPLAY", "database", "10.0.0.9:5432"])?;
    Ok(())
}

/// Fails if the shell cannot read its script. Debian has no PowerShell.
fn parse(shell: &Shell, script: &Path) -> Result<()> {
    /// Elvish has this module in its editor only.
    const EDITOR: &str = "var edit: = (ns [&completion:=(ns [&arg-completer=[&]]) &complex-candidate~={ }])\n";
    match shell.name {
        "powershell" => Ok(()),
        "elvish" => {
            let text = fs::read_to_string(script).with_context(|| format!("read {}", script.display()))?;
            fs::write(script, format!("{EDITOR}{text}")).with_context(|| format!("write {}", script.display()))?;
            process::run_silently(Command::new("elvish").arg("-compileonly").arg(script))
        }
        name => process::run_silently(Command::new(name).arg("-n").arg(script)),
    }
}

/// Fails if man has anything to say of the page.
fn read_page(page: &Path) -> Result<()> {
    let mut man = Command::new("man");
    man.args(["--local-file", "--warnings=w"]).arg(page).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
    let output = man.output().context("start man")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("SYNOPSIS"), "{} has no synopsis: {text}", page.display());
    Ok(())
}
