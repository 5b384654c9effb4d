//! The list of all crates in the program, as CycloneDX, by cargo-cyclonedx.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::release::Release;
use crate::vm::arch::X86_64;
use crate::{process, workspace};

/// cargo-cyclonedx writes beside each manifest, and only there.
const NAME: &str = "observer-dist.cdx";
const MEMBERS: [&str; 3] = ["observer", "observer-ebpf", "xtask"];

/// The list. Without a serial number, which would be random, and with the commit's time.
pub(super) fn of(cyclonedx: &Path, release: &Release) -> Result<Vec<u8>> {
    let list = write(cyclonedx, release);
    let written = |member: &str| Path::new(member).join(format!("{NAME}.json"));
    for path in MEMBERS.iter().map(|member| written(member)).filter(|path| path.exists()) {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    // It names the crates of this repository by their folders.
    let root = workspace::root()?.display().to_string();
    Ok(list?.replace(&root, "/observer").into_bytes())
}

fn write(cyclonedx: &Path, release: &Release) -> Result<String> {
    let mut cyclonedx = Command::new(cyclonedx);
    cyclonedx.args([
        "cyclonedx",
        "--manifest-path",
        "observer/Cargo.toml",
        "--format",
        "json",
        "--spec-version",
        "1.5",
    ]);
    cyclonedx.args(["--target", &X86_64.target(), "--override-filename", NAME, "--no-build-deps"]);
    process::run_silently(cyclonedx.env("SOURCE_DATE_EPOCH", release.epoch.to_string()))?;
    let path = Path::new("observer").join(format!("{NAME}.json"));
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
