//! The program under test, and a copy that other users may run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

/// The program where every user may run it, until the folder is dropped.
pub(crate) fn copy_for_everyone() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("observer");
    // A process of its own writes it: one that another thread forks meanwhile would keep a file of ours open for writing, and
    // nobody could execute it (ETXTBSY).
    assert!(Command::new("cp").arg(OBSERVER).arg(&copy).status().unwrap().success());
    (dir, copy)
}
