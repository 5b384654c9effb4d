//! The Helm chart, and the files that it makes with its own values.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command};

use serde_json::Value;

use super::packaging;

/// Set, the test writes the files.
const WRITE: &str = "OBSERVER_WRITE_DOCS";
const COMMAND: &str = "OBSERVER_WRITE_DOCS=1 cargo test -p observer --test fleet kubernetes";
const ALL: &str =
    r#"{"podMonitor":{"enabled":true},"serviceMonitor":{"enabled":true},"prometheusRule":{"enabled":true}}"#;
const OTHERS: &str = r#"{"image":{"tag":"x"},"imagePullSecrets":[{"name":"s"}],"nodeSelector":{"a":"b"},
    "priorityClassName":"system-node-critical","seccompProfile":{"type":"Unconfined","localhostProfile":null},
    "podMonitor":{"enabled":true,"labels":{"release":"p"}},"serviceMonitor":{"enabled":true,"labels":{"release":"p"}},
    "prometheusRule":{"enabled":true,"labels":{"release":"p"}}}"#;

const RULES: [&str; 2] = ["rules.yml", "alerts.yml"];

/// Python with the validators, where `cargo xtask test` installs them.
fn python() -> PathBuf {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").unwrap_or_else(|| folder("HOME").unwrap().join(".cache"));
    let python = cache.join("observer/kubernetes-validators/bin/python");
    assert!(python.exists(), "{}: `cargo xtask test` installs it", python.display());
    python
}

/// What the chart makes, by the name of the file: its text, and its objects. Each is validated. And the files of rules.
pub(crate) fn rendered() -> BTreeMap<String, Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet/kubernetes.py");
    let output =
        Command::new(python()).arg(script).arg(packaging("helm/observer")).args(["{}", OTHERS, ALL]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files: BTreeMap<String, Vec<Value>> = serde_json::from_slice(&output.stdout).unwrap();
    files.into_iter().map(|(path, file)| (path.rsplit('/').next().unwrap().to_owned(), file)).collect()
}

#[test]
fn validators_take_the_chart_and_it_makes_the_files() {
    let mut files = rendered();
    let rules = RULES.map(|name| files.remove(name).unwrap());
    assert_rules(&files["prometheusrule.yaml"][1]["spec"], &rules);
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["daemonset.yaml", "podmonitor.yaml", "prometheusrule.yaml", "servicemonitor.yaml"]
    );
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

/// The rules of the chart are those of the files, all of them, and promtool takes them.
fn assert_rules(spec: &Value, files: &[Vec<Value>]) {
    let groups: Vec<&Value> = files.iter().flat_map(|file| file[1]["groups"].as_array().unwrap()).collect();
    assert_eq!(spec["groups"].as_array().unwrap().iter().collect::<Vec<_>>(), groups);
    let rules: usize = groups.iter().map(|group| group["rules"].as_array().unwrap().len()).sum();
    // JSON is YAML.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, spec.to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(file.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains(&format!("SUCCESS: {rules} rules found")), "{said}");
}

/// The system calls that the container may make: a chart can only have files of its own folder.
pub(crate) const PROFILE: &str = "helm/observer/files/seccomp.json";

#[test]
fn both_ways_have_the_same_seccomp_profile() {
    let (chart, copy) = (packaging(PROFILE), packaging("kubernetes/seccomp-observer.json"));
    if env::var_os(WRITE).is_some() {
        fs::copy(&chart, &copy).unwrap();
    }
    assert!(
        fs::read(chart).unwrap() == fs::read(&copy).unwrap(),
        "{} is stale: write it with {COMMAND}",
        copy.display()
    );
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = fs::read_to_string(packaging("helm/observer/Chart.yaml")).unwrap();
    assert!(chart.contains(&format!("appVersion: \"{}\"", env!("CARGO_PKG_VERSION"))), "{chart}");
}
