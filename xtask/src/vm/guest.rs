//! The programs under test, with the libraries that they are linked with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::arch::Arch;
use super::initramfs::Root;
use super::userland;
use crate::{process, tools, workspace};

/// The test binaries that a guest gets, as `/tests/<name>`.
const TESTS: [&str; 2] = ["live", "serve"];

/// What cargo built for guests.
pub(crate) struct Programs {
    /// Whether this machine's `strip` knows them.
    is_native: bool,
    /// With the name of its cargo target.
    executables: Vec<(String, PathBuf)>,
}

/// Builds the observer and its tests. For this machine's processor they are the programs that `cargo test --workspace` runs:
/// nothing is compiled twice. For another one, everything is, and linked so that it runs where no library is.
pub(crate) fn build(arch: &Arch) -> Result<Programs> {
    let mut cargo = if arch.is_native() { process::cargo() } else { tools::debian_rust("cargo") };
    cargo.args("test --workspace --locked --no-run --message-format=json-render-diagnostics".split(' '));
    cargo.args(TESTS.iter().flat_map(|test| ["--test", test]));
    if !arch.is_native() {
        cargo.args(["--target", &arch.target()]);
        // Other flags than the host's: in one folder they would rebuild each other's dependencies.
        cargo.arg("--target-dir").arg(workspace::target_dir()?.join("vm"));
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags_of_others(arch)?.join("\x1f"));
        // This machine's `strip` may not know that processor.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    }
    let messages = process::stdout(&mut cargo)?;
    let executables: Vec<_> = messages.lines().filter_map(executable).collect();
    for name in TESTS.iter().chain(&["observer"]) {
        ensure!(executables.iter().any(|(built, _)| built == name), "cargo did not build {name}");
    }
    Ok(Programs { is_native: arch.is_native(), executables })
}

/// What Debian's rustc needs for a program of another processor, which then needs no library.
pub(crate) fn flags_of_others(arch: &Arch) -> Result<[String; 3]> {
    let sysroot = format!("--sysroot={}", userland::sysroot(arch)?.display());
    let linker = format!("-Clinker={}-linux-gnu-gcc", arch.name);
    Ok(["-Ctarget-feature=+crt-static".to_owned(), sysroot, linker])
}

impl Programs {
    /// Puts the programs into a guest.
    pub(crate) fn install(&self, root: &mut Root) -> Result<()> {
        for (name, path) in &self.executables {
            let stripped = self.is_native.then(|| stripped(path)).transpose()?;
            let object = stripped.as_ref().map_or(path.as_path(), NamedTempFile::path);
            if name == "observer" {
                // Tests call it by the path that cargo compiled into them.
                root.program(path, object)?;
                root.link("/usr/bin/observer", path);
            } else {
                root.program(Path::new("/tests").join(name), object)?;
            }
        }
        Ok(())
    }
}

/// A program without what only debuggers read: an emulated processor copies every byte of it. Its symbols stay, for backtraces.
fn stripped(program: &Path) -> Result<NamedTempFile> {
    let stripped = NamedTempFile::new().context("make a file for a program")?;
    process::run_silently(Command::new("strip").arg("--strip-debug").arg("-o").arg(stripped.path()).arg(program))?;
    Ok(stripped)
}

/// The name and path of an executable, if a message of cargo names one.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    Some((message.get("target")?.get("name")?.as_str()?.to_owned(), path.into()))
}
