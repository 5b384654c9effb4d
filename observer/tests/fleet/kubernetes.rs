//! The Helm chart, and the files that it makes with its own values.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command};

use serde_json::Value;

use super::packaging;

/// Set, the test writes the files.
const WRITE: &str = "OBSERVER_WRITE_DOCS";
const COMMAND: &str = "OBSERVER_WRITE_DOCS=1 cargo test -p observer --test fleet kubernetes";
const BOTH: &str = r#"{"podMonitor":{"enabled":true},"serviceMonitor":{"enabled":true}}"#;
const OTHERS: &str = r#"{"image":{"tag":"x"},"imagePullSecrets":[{"name":"s"}],"nodeSelector":{"a":"b"},
    "priorityClassName":"system-node-critical","seccompProfile":{"type":"Unconfined","localhostProfile":null},
    "podMonitor":{"enabled":true,"labels":{"release":"p"}},"serviceMonitor":{"enabled":true,"labels":{"release":"p"}}}"#;

/// Python with the validators, where `cargo xtask test` installs them.
fn python() -> PathBuf {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").unwrap_or_else(|| folder("HOME").unwrap().join(".cache"));
    let python = cache.join("observer/kubernetes-validators/bin/python");
    assert!(python.exists(), "{}: `cargo xtask test` installs it", python.display());
    python
}

/// What the chart makes, by the name of the file: its text, and its objects. Each is validated.
pub(crate) fn rendered() -> BTreeMap<String, Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet/kubernetes.py");
    let output =
        Command::new(python()).arg(script).arg(packaging("helm/observer")).args(["{}", OTHERS, BOTH]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files: BTreeMap<String, Vec<Value>> = serde_json::from_slice(&output.stdout).unwrap();
    files.into_iter().map(|(path, file)| (path.rsplit('/').next().unwrap().to_owned(), file)).collect()
}

#[test]
fn validators_take_the_chart_and_it_makes_the_files() {
    let files = rendered();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["daemonset.yaml", "podmonitor.yaml", "servicemonitor.yaml"]);
    for (name, file) in files {
        let text = file[0].as_str().unwrap();
        let path = packaging("kubernetes").join(&name);
        let text = format!("# Written by `{COMMAND}` from packaging/helm. Change the chart, not this file.\n{text}");
        if env::var_os(WRITE).is_some() {
            fs::write(&path, text).unwrap();
        } else {
            assert!(fs::read_to_string(&path).unwrap() == text, "{name} is stale: write it with {COMMAND}");
        }
    }
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = fs::read_to_string(packaging("helm/observer/Chart.yaml")).unwrap();
    assert!(chart.contains(&format!("appVersion: \"{}\"", env!("CARGO_PKG_VERSION"))), "{chart}");
}
