//! A network namespace beside that of the test.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
};

/// A process that holds a network namespace of its own until its standard input is closed.
pub(crate) fn another_namespace() -> Child {
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "echo up; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
    child
}
