//! Programs that read series.

use std::{
    ffi::OsStr,
    io::{Seek as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use super::exposition::Exposition;

const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
/// Debian's, with the package python3-prometheus-client.
const PYTHON: &str = "/usr/bin/python3";
const COUNT_SAMPLES: &str = "import sys\n\
    from prometheus_client.openmetrics.parser import text_fd_to_metric_families as families\n\
    print(sum(len(family.samples) for family in families(sys.stdin)))";

fn fed(command: &mut Command, input: &str) -> Output {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    let program = command.get_program().to_owned();
    command.stdin(file).output().unwrap_or_else(|error| panic!("{}: {error}", Path::new(&program).display()))
}

/// promtool finds no fault with a text of the format 0.0.4.
#[track_caller]
pub(crate) fn assert_promtool_is_content(text: &str) {
    let output = fed(Command::new("promtool").args(["check", "metrics"]), text);
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "promtool: {}", String::from_utf8_lossy(&said));
}

/// The OpenMetrics parser of Prometheus' Python client takes all of it.
#[track_caller]
pub(crate) fn assert_openmetrics(text: &str) {
    let output = fed(Command::new(PYTHON).args(["-c", COUNT_SAMPLES]).env("PYTHONIOENCODING", "utf-8"), text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(count, Exposition::parse(text).len());
}

pub(crate) fn observer<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
pub(crate) fn printed<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = observer(args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
