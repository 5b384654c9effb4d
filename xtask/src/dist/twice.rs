//! Whether the artefacts depend on anything but the commit: the same commit, built again in another folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::vm::arch::Arch;
use crate::{process, workspace};

/// What another folder gives. It is removed when dropped.
pub(super) struct Again(TempDir);

impl Again {
    /// Builds in it.
    pub(super) fn build(also: Option<&Arch>) -> Result<Self> {
        // Of another length, and not below the first folder.
        let folder = tempfile::Builder::new().prefix("observer-built-again-").tempdir().context("make a folder")?;
        let again = Self(folder);
        let tree = again.tree();
        let root = workspace::root()?;
        process::run_silently(Command::new("git").arg("clone").arg("--no-hardlinks").arg(&root).arg(&tree))?;
        println!("building again in {}", tree.display());
        let mut cargo = process::cargo();
        cargo.args(["run", "--quiet", "--locked", "--package", "xtask", "--", "dist"]).current_dir(&tree);
        if let Some(arch) = also {
            cargo.args(["--also", arch.name]);
        }
        // The outer cargo names this repository in variables of its own.
        process::run(cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_TARGET_DIR"))?;
        Ok(again)
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join("sources")
    }

    /// Fails unless it has the same artefacts as `first`.
    pub(super) fn compare(&self, first: &Path) -> Result<()> {
        let (one, other) = (artefacts(first)?, artefacts(&self.tree().join("target/dist"))?);
        ensure!(one.keys().eq(other.keys()), "the artefacts differ: {:?} and {:?}", one.keys(), other.keys());
        let differing: Vec<_> = one.keys().filter(|name| one[*name] != other[*name]).cloned().collect();
        ensure!(differing.is_empty(), "these artefacts depend on where they were built: {}", differing.join(", "));
        println!("built twice with the same bytes: {} artefacts", one.len());
        Ok(())
    }
}

fn artefacts(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let list = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes))
    };
    list.map(read).collect()
}
