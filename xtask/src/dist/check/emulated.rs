//! The archive of another processor, by an emulator of processes, which has no bpf(2).

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{Artefacts, RECORDING, says_its_version, sections};
use crate::dist::program::SHELLS;
use crate::vm::arch::Arch;
use crate::{process, tools};

/// Fails unless the program writes the completions of the archive, which this machine's program wrote, and refuses a recording of
/// this machine's processor.
pub(super) fn check(artefacts: &Artefacts, arch: &Arch) -> Result<()> {
    tools::for_aarch64_emulation()?;
    let root = TempDir::new().context("make a folder")?;
    let folder = artefacts.unpack(arch, root.path())?;
    let program = folder.join("observer");
    let emulated = || {
        let mut qemu = Command::new(format!("qemu-{}-static", arch.name));
        qemu.arg(&program);
        qemu
    };
    says_its_version(&mut emulated(), &artefacts.version)?;
    sections::check(&program, arch, None)?;
    for shell in &SHELLS {
        let path = folder.join("completions").join(shell.file);
        let script = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let written = process::stdout(emulated().args(["completions", shell.name]))?;
        ensure!(written == script, "the program for {} writes other completions for {}", arch.name, shell.name);
    }
    let report = emulated().args(["report", RECORDING]).output().context("start an emulator")?;
    let said = String::from_utf8_lossy(&report.stderr);
    let is_refused = !report.status.success() && said.contains("can be replayed there only");
    ensure!(is_refused, "the program for {} takes {RECORDING} of another processor: {said}", arch.name);
    Ok(())
}
