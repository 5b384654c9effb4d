//! Where things are. Tasks may be called from any folder of the repository; all of them work from its root.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Makes the root of the repository the current folder.
pub(crate) fn enter() -> Result<()> {
    // Asked at run time: a path compiled in would be wrong in a moved or copied tree.
    let package = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = PathBuf::from(package).join("..").canonicalize().context("find the root of the repository")?;
    env::set_current_dir(&root).with_context(|| format!("enter {}", root.display()))
}

pub(crate) fn root() -> Result<PathBuf> {
    env::current_dir().context("current folder")
}

/// The folder of build products, made if there is none.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let target = root()?.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    std::fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    Ok(target)
}
