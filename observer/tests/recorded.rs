//! Commands on a recording print what they print on the host, and nothing of the host that reads it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod program;

use std::{
    fs::{self, File},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use self::program::{OBSERVER, copy_for_everyone};

fn observer(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

/// The same as a user without any right: a recording needs none.
fn as_nobody(args: &[&str]) -> Output {
    let (dir, copy) = copy_for_everyone();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let output = Command::new("setpriv").args(nobody).arg(&copy).args(args).stdin(Stdio::null()).output().unwrap();
    drop(dir);
    output
}

/// A recording of the repository.
fn recording(name: &str) -> String {
    format!("{}/tests/data/{name}.obs", env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

fn keys(json: &Value) -> Vec<&String> {
    json.as_object().unwrap().keys().collect()
}

#[test]
fn a_snapshot_of_a_recording_is_what_replay_prints() {
    for name in ["demo", "lab-backlog"] {
        let file = recording(name);
        for form in [&["--json"][..], &[], &["--sort", "time_wait"]] {
            let snapshot = printed(&observer(&[&["snapshot", "--recording", &file], form].concat()));
            assert_eq!(snapshot, printed(&observer(&[&["replay", &file], form].concat())), "{name} {form:?}");
        }
        let piped = Command::new(OBSERVER)
            .args(["snapshot", "--recording", "-", "--json"])
            .stdin(File::open(&file).unwrap())
            .output()
            .unwrap();
        assert_eq!(printed(&piped), printed(&observer(&["replay", &file, "--json"])), "{name}");
    }
}

#[test]
fn a_moment_of_a_recording_can_be_chosen() {
    let file = recording("demo");
    let at = |seconds: &str| json(&observer(&["snapshot", "--recording", &file, "--at", seconds, "--json"]));
    let (early, late) = (at("2"), at("5.5"));
    assert_eq!((early["uptime_seconds"].as_f64(), late["uptime_seconds"].as_f64()), (Some(2.0), Some(5.5)));
    assert!(early["quality"]["events_total"].as_u64() < late["quality"]["events_total"].as_u64());
    assert_eq!(json(&observer(&["limits", "--recording", &file, "--at", "2", "--json"]))["limits"], early["limits"]);

    let beyond = observer(&["snapshot", "--recording", &file, "--at", "100000"]);
    let words = String::from_utf8_lossy(&beyond.stderr);
    assert!(beyond.status.code() == Some(2) && words.contains("100000.000 is after its end"), "{words}");
    for args in [vec!["replay", &file, "--from", "100"], vec!["watch", "--recording", &file, "--from", "100"]] {
        let beyond = observer(&args);
        let words = String::from_utf8_lossy(&beyond.stderr);
        let length = json(&observer(&["replay", &file, "--json"]))["uptime_seconds"].as_f64().unwrap();
        let says = words.contains(&format!("is {length:.3} seconds long: 100.000 is after its end"));
        assert!(beyond.status.code() == Some(2) && beyond.stdout.is_empty() && says, "{args:?}: {words}");
    }
    let before = observer(&["snapshot", "--recording", &file, "--at", "0"]);
    let words = String::from_utf8_lossy(&before.stderr);
    assert!(before.status.code() == Some(1) && words.contains("no complete scan"), "{words}");
    assert_eq!(observer(&["snapshot", "--at", "2"]).status.code(), Some(2), "--at is of a recording");
}

#[test]
fn limits_of_a_recording_have_nothing_of_the_host_that_reads_it() {
    for name in ["demo", "lab-fd-limit"] {
        let file = recording(name);
        let limits = json(&as_nobody(&["limits", "--recording", &file, "--json"]));
        let snapshot = json(&observer(&["snapshot", "--recording", &file, "--json"]));
        for part in ["schema", "taken_at", "uptime_seconds", "kernel", "limits", "hits", "findings"] {
            assert_eq!(limits[part], snapshot[part], "{name}: {part}");
        }
        let absent = [
            "local_ipv4_addresses",
            "local_ipv6_addresses",
            "connections_to_an_ipv4_destination",
            "own_soft_nofile",
            "own_soft_nofile_unlimited",
            "own_hard_nofile",
            "own_hard_nofile_unlimited",
        ];
        for field in absent {
            assert_eq!(limits["arithmetic"].get(field), None, "{name}");
        }
        let own = &limits["arithmetic"]["netns"];
        let row = snapshot["namespaces"].as_array().unwrap().iter().find(|row| row["netns"] == *own).unwrap();
        assert_eq!(limits["arithmetic"]["port_range"], row["port_range"], "{name}");

        let text = printed(&as_nobody(&["limits", "--recording", &file]));
        for words in ["On the recorded host", "Addresses and RLIMIT_NOFILE of the recorded host: not in a recording."] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        for words in ["On this host", "local IPv4 addresses", "a process started here"] {
            assert!(!text.contains(words), "{words:?} in\n{text}");
        }
    }
}

#[test]
fn check_judges_a_recording_by_its_limits() {
    // Half of its ports are in use, and nothing else is near its limit.
    let file = recording("lab-time-wait");
    let limits = json(&observer(&["limits", "--recording", &file, "--json"]));
    let ratios = || limits["limits"].as_array().unwrap().iter().filter_map(|limit| limit["ratio"].as_f64());
    assert!((ratios().fold(0.0, f64::max) - 0.5).abs() < 1e-9, "{limits}");
    let ports = limits["limits"].as_array().unwrap().iter().find(|limit| limit["kind"] == "ports").unwrap();
    for (warn, crit, word, code) in [("80", "95", "OK", 0), ("50", "51", "WARNING", 1), ("1", "50", "CRITICAL", 2)] {
        let output = as_nobody(&["check", "--recording", &file, "--warn", warn, "--crit", crit]);
        let line = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(line.starts_with(&format!("OBSERVER {word} - ")) && line.lines().count() == 1, "{line}");
        assert!(line.contains(&format!("'ports'={};", ports["used"])), "{ports} in {line}");
    }
}

#[test]
fn check_is_unknown_where_a_recording_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(recording("demo")).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let recordings = [
        ("/no/such/file".to_owned(), "No such file"),
        (file("nonsense", b"nonsense"), "not a recording of observer"),
        (file("cut", &whole[..12]), "cut off before it had begun"),
        (file("damaged", &damaged), "damaged in the chunk"),
    ];
    for (path, words) in &recordings {
        let output = as_nobody(&["check", "--recording", path]);
        let line = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(line.starts_with("OBSERVER UNKNOWN - ") && line.contains(words), "no {words:?} in {line}");
    }
    let too_late = observer(&["check", "--recording", &recording("demo"), "--at", "100000"]);
    assert_eq!(too_late.status.code(), Some(3), "{too_late:?}");
}

#[test]
fn watch_prints_a_recording_in_its_own_time() {
    let file = recording("demo");
    let lines = |args: &[&str]| -> Vec<Value> {
        let text = printed(&observer(&[&["watch", "--recording", &file], args].concat()));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let seconds =
        |lines: &[Value]| lines.iter().map(|line| line["uptime_seconds"].as_f64().unwrap()).collect::<Vec<_>>();
    let all = lines(&["--interval", "2"]);
    let end = json(&observer(&["snapshot", "--recording", &file, "--json"]));
    assert_eq!(all.last().unwrap(), &end, "the last line is the end");
    assert!(all.iter().all(|line| line["quality"]["scans_total"].as_u64().unwrap() > 0));
    let times = seconds(&all);
    let steps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (last, others) = steps.split_last().unwrap();
    assert!(!others.is_empty() && others.iter().all(|step| (step - 2.0).abs() < 1e-6) && *last <= 2.0, "{times:?}");
    assert_eq!(seconds(&lines(&["--from", "3", "-n", "2"])), [3.0, 4.0]);
    let at = json(&observer(&["snapshot", "--recording", &file, "--at", "3", "--json"]));
    assert_eq!(lines(&["--from", "3", "-n", "1"]), [at]);
}

/// What does not change on a quiet host is the same live and in a recording of the same namespace.
#[test]
fn a_recording_of_this_host_prints_what_the_live_run_prints() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recording").to_str().unwrap().to_owned();
    let script = r#"
        ip link set lo up && echo 20000 20999 > /proc/sys/net/ipv4/ip_local_port_range || exit 9
        "$0" --own-netns record "$1" --for 0.2 || exit 8
        for command in "snapshot --json" "limits --json"; do "$0" --own-netns $command || exit 7; done
        "$0" --own-netns check
    "#;
    let output = Command::new("unshare").args(["--net", "sh", "-c", script, OBSERVER, &file]).output().unwrap();
    let live_text = String::from_utf8(output.stdout).unwrap();
    let mut documents = serde_json::Deserializer::from_str(&live_text).into_iter::<Value>();
    let [snapshot, limits] = [documents.next().unwrap().unwrap(), documents.next().unwrap().unwrap()];
    let live_line = live_text[documents.byte_offset()..].trim_start();

    let recorded = json(&observer(&["snapshot", "--recording", &file, "--json"]));
    assert_eq!(keys(&recorded), keys(&snapshot));
    for part in ["schema", "kernel", "totals", "endpoints", "namespaces", "failures", "failures_total"] {
        assert_eq!(recorded[part], snapshot[part], "{part}");
    }
    let recorded = json(&observer(&["limits", "--recording", &file, "--json"]));
    assert_eq!(keys(&recorded), keys(&limits));
    for field in ["netns", "port_range", "usable_ports", "reserved_ports", "nr_open", "file_max"] {
        assert_eq!(recorded["arithmetic"].get(field), limits["arithmetic"].get(field), "{field}");
    }
    let kinds = |json: &Value| {
        let mut kinds: Vec<String> =
            json["limits"].as_array().unwrap().iter().map(|limit| limit["kind"].to_string()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    };
    assert_eq!(kinds(&recorded), kinds(&limits));

    let check = observer(&["check", "--recording", &file]);
    assert_eq!(check.status.code(), output.status.code(), "{check:?}, live {live_line}");
    let labels = |line: &str| -> Vec<String> {
        let data = line.trim_end().split_once(" | ").unwrap().1.to_owned();
        data.split(' ').map(|entry| entry.split('=').next().unwrap().to_owned()).collect()
    };
    let line = String::from_utf8(check.stdout).unwrap();
    assert_eq!(labels(&line), labels(live_line));
    assert!(labels(&line).contains(&"'accept_queue_hits'".to_owned()), "{line}");
}
