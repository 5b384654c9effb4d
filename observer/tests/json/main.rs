//! docs/json.md describes every key of real documents, and no other.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod scenario;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jiff::Timestamp;
use observer::recording::Reader;
use serde_json::Value;
use tempfile::TempDir;

/// The keys of these objects are names of TCP states, not fields.
const STATES: [&str; 2] = ["endpoints[].states.", "services[].states."];

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The paths of the page: a table's rows below the paths that the text before it names after "At".
fn described() -> BTreeSet<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md")).unwrap();
    let (mut paths, mut objects) = (BTreeSet::new(), vec![String::new()]);
    for paragraph in page.split("\n\n") {
        if paragraph.starts_with('#') {
            if paragraph.ends_with("root") {
                objects = vec![String::new()];
            }
        } else if let Some(at) = paragraph.strip_prefix("At ").or_else(|| paragraph.strip_prefix("Only at ")) {
            // What follows the paths is for people.
            let end = ["`.", "`:"].iter().filter_map(|end| at.find(end)).min().unwrap();
            objects = in_backticks(&at[..=end]).map(|word| format!("{word}.")).collect();
        } else if paragraph.starts_with("| Field") {
            for row in paragraph.lines().skip(2) {
                let key = in_backticks(row).next().unwrap();
                paths.extend(objects.iter().map(|object| format!("{object}{key}")));
            }
        }
    }
    paths
}

fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                keys(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, &format!("{path}[]"), found)),
        Value::Null => panic!("{path} is null: unknown fields are absent"),
        _ => {}
    }
}

/// What the commands print of every recording of the repository, and of this host, and what they would print of the
/// [`scenario`]; what a lab prints is below `LAB`.
fn real() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut add = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_observer")).args(args).stdin(Stdio::null()).output().unwrap();
        let is_lab = args[0] == "lab";
        let root = match args[0] {
            "lab" => "LAB",
            "report" => "REPORT",
            _ => "",
        };
        // A lab that measures time may find its measurement inconclusive.
        assert!(output.status.success() || is_lab, "{args:?}: {output:?}");
        keys(&serde_json::from_slice(&output.stdout).unwrap(), root, &mut found);
    };
    add(&["lab", "four-tuple", "--json"]);
    add(&["lab", "cliff", "--json", "--scale", "4000"]);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let recordings: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "obs")).collect();
    assert!(recordings.len() >= 5, "{recordings:?}");
    for command in ["snapshot", "limits"] {
        for file in &recordings {
            add(&[command, "--recording", file.to_str().unwrap(), "--json"]);
        }
        add(&[command, "--json"]);
    }
    let recorder = recorder(&recordings);
    add(&["report", recorder.path().to_str().unwrap(), "--json"]);
    for document in scenario::documents() {
        keys(&serde_json::from_slice(&document).unwrap(), "", &mut found);
    }
    found
}

/// What a recorder that had an incident leaves, of a recording that is no recorder's.
fn recorder(recordings: &[PathBuf]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let demo = recordings.iter().find(|path| path.ends_with("demo.obs")).unwrap();
    let began = Reader::start(File::open(demo).unwrap()).unwrap().header().started_at;
    let at = |seconds: u64| {
        let at = i64::try_from(began.as_secs() + seconds).unwrap();
        Timestamp::from_second(at).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string()
    };
    let incident = folder.path().join(format!("incidents/1-{}-ports-exhausted", at(8)));
    fs::create_dir_all(&incident).unwrap();
    for folder in [folder.path(), incident.as_path()] {
        fs::copy(demo, folder.join(format!("00000001-{}.obs", at(0)))).unwrap();
    }
    folder
}

/// Whether a report has this path of an object that snapshots have, too.
fn is_shared(path: &str, described: &BTreeSet<String>) -> bool {
    path.strip_prefix("REPORT.").is_some_and(|rest| rest.contains('.') && described.contains(rest))
}

/// Paths that the page describes and no document here has, each with its reason.
const UNSEEN: [(&str, &str); 3] = [
    ("LAB.inconclusive_reason", "a lab has none where its measurement decides, as it nearly always does"),
    ("arithmetic.own_soft_nofile_unlimited", "Linux allows no RLIM_INFINITY for RLIMIT_NOFILE: fs.nr_open bounds it"),
    ("arithmetic.own_hard_nofile_unlimited", "as the soft limit"),
];

#[test]
fn the_page_describes_every_key_and_no_other() {
    let (described, real) = (described(), real());
    let is_state = |path: &str| STATES.iter().any(|states| path.starts_with(states));
    let is_known = |path: &str| is_state(path) || described.contains(path) || is_shared(path, &described);
    let missing: Vec<_> = real.iter().filter(|path| !is_known(path)).collect();
    assert!(missing.is_empty(), "not in docs/json.md: {missing:#?}");
    let unseen: BTreeSet<&str> = UNSEEN.into_iter().map(|(path, _)| path).collect();
    let stale: Vec<_> =
        described.iter().filter(|path| !real.contains(*path) && !unseen.contains(path.as_str())).collect();
    assert!(stale.is_empty(), "in docs/json.md, and in no document: {stale:#?}");
    let undescribed: Vec<_> = unseen.iter().filter(|path| !described.contains(**path)).collect();
    assert!(undescribed.is_empty(), "listed as unseen, and not in docs/json.md: {undescribed:#?}");
}
