//! The programs under test, linked so that they run where no library is.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::arch::Arch;
use super::initramfs::Root;
use super::userland;
use crate::{process, tools, workspace};

/// The test binaries that a guest gets, as `/tests/<name>`.
const TESTS: [&str; 1] = ["live"];

/// What cargo built for guests.
pub(crate) struct Programs {
    /// With the name of its cargo target.
    executables: Vec<(String, PathBuf)>,
}

/// Builds the observer and its tests.
pub(crate) fn build(arch: &Arch) -> Result<Programs> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut cargo = if arch.is_native() {
        process::cargo()
    } else {
        flags.push(format!("--sysroot={}", userland::sysroot(arch)?.display()));
        flags.push(format!("-Clinker={}-linux-gnu-gcc", arch.name));
        tools::debian_rust("cargo")
    };
    cargo.args("test --locked --no-run --message-format=json-render-diagnostics --package observer".split(' '));
    cargo.args(TESTS.iter().flat_map(|test| ["--test", test]));
    cargo.args(["--target", &arch.target()]);
    // Other flags than the host's: in one folder they would rebuild each other's dependencies.
    cargo.arg("--target-dir").arg(workspace::target_dir()?.join("vm"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // Every byte of these files is copied by an emulated processor.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    let messages = process::stdout(&mut cargo)?;
    let executables: Vec<_> = messages.lines().filter_map(executable).collect();
    for name in TESTS.iter().chain(&["observer"]) {
        ensure!(executables.iter().any(|(built, _)| built == name), "cargo did not build {name}");
    }
    Ok(Programs { executables })
}

impl Programs {
    /// Puts the programs into a guest.
    pub(crate) fn install(&self, root: &mut Root) -> Result<()> {
        for (name, path) in &self.executables {
            if name == "observer" {
                // Tests call it by the path that cargo compiled into them.
                root.program(path, path)?;
                root.link("/usr/bin/observer", path);
            } else {
                root.program(Path::new("/tests").join(name), path)?;
            }
        }
        Ok(())
    }
}

/// The name and path of an executable, if a message of cargo names one.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    Some((message.get("target")?.get("name")?.as_str()?.to_owned(), path.into()))
}
