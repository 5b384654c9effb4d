//! Recordings as files: what others can read of them, and what they can share of them. Needs root and Python.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod anonymized;
mod described;
mod stage;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

/// Recordings of the repository.
const NAMES: [&str; 7] =
    ["demo", "lab-accept", "lab-backlog", "lab-client-ceiling", "lab-fd-limit", "lab-port-reuse", "lab-time-wait"];

fn observer(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn succeeds(args: &[&str]) -> Output {
    let output = observer(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    output
}

fn recording(name: &str) -> String {
    format!("{}/tests/data/{name}.obs", env!("CARGO_MANIFEST_DIR"))
}

/// What the decoder prints that was written by docs/recording.md alone.
fn decoder(args: &[&str]) -> Vec<u8> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/decode.py");
    let output = Command::new("python3").arg(script).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What it finds in a recording.
fn decoded(path: &str) -> Value {
    serde_json::from_slice(&decoder(&[path])).unwrap()
}

/// All that the recording consists of, unpacked.
fn unpacked(path: &str) -> Vec<u8> {
    decoder(&[path, "--bytes"])
}

/// The name of a file in this folder.
fn within(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}
