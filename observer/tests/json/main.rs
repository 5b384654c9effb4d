//! docs/json.md describes every key of real documents, and no other.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// The keys of this object are names of TCP states, not fields.
const STATES: &str = "endpoints[].states.";

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
            let at = at.split_once(['.', ':']).filter(|(head, _)| head.ends_with('`')).map_or(at, |_| at);
            objects = in_backticks(at).take_while(|word| !word.contains(' ')).map(|word| format!("{word}.")).collect();
            objects.retain(|object| !["range.", "host."].contains(&object.as_str()));
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

/// What the commands print of every recording of the repository, and of this host; what a lab prints is below `LAB`.
fn real() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut add = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_observer")).args(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        let root = if args[0] == "lab" { "LAB" } else { "" };
        keys(&serde_json::from_slice(&output.stdout).unwrap(), root, &mut found);
    };
    add(&["lab", "four-tuple", "--json"]);
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
    found
}

/// The fields of the Rust structs that are written as JSON.
fn fields_in_source() -> BTreeSet<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let export = fs::read_dir(src.join("export")).unwrap().map(|entry| entry.unwrap().path());
    let sources = export.filter(|path| path.is_file()).chain([src.join("lab/report.rs")]);
    let lines =
        sources.flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>());
    let field = |line: String| {
        let (name, kind) = line.strip_prefix("    ")?.split_once(": ")?;
        let name = name.trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ");
        let is_name =
            name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        (is_name && kind.ends_with(',')).then(|| name.to_owned())
    };
    lines.filter_map(field).collect()
}

#[test]
fn the_page_describes_every_key_and_no_other() {
    let (described, real) = (described(), real());
    let missing: Vec<_> = real.iter().filter(|path| !path.starts_with(STATES) && !described.contains(*path)).collect();
    assert!(missing.is_empty(), "not in docs/json.md: {missing:#?}");
    // A quiet host does not show every field: what no document has must at least be a field of the program.
    let fields = fields_in_source();
    let name = |path: &str| path.rsplit('.').next().unwrap().to_owned();
    let stale: Vec<_> =
        described.iter().filter(|path| !real.contains(*path) && !fields.contains(&name(path))).collect();
    assert!(stale.is_empty(), "in docs/json.md, and in no document: {stale:#?}");
    let seen = described.intersection(&real).count();
    assert!(seen * 2 > described.len(), "{seen} of {} paths were seen: these documents prove little", described.len());
}
