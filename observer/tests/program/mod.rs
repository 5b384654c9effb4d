//! The program under test, and a copy that other users may run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

/// The program where every user may run it, until the folder is dropped.
pub(crate) fn copy_for_everyone() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("observer");
    fs::copy(OBSERVER, &copy).unwrap();
    (dir, copy)
}
