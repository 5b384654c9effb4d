//! The program as its users start it: output, exit codes, and one clear sentence for each bad condition.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[path = "program/namespace.rs"]
mod namespace;
mod program;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{
    namespace::another_namespace,
    program::{OBSERVER, copy_for_everyone},
};

fn observer(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

/// The same in new namespaces, set up by `setup` (a shell script).
fn observer_after(unshare: &str, setup: &str, args: &str) -> Output {
    let script = format!("{setup} && exec {OBSERVER} {args}");
    Command::new("unshare").args([unshare, "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn fails_with(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
    if code == 1 {
        assert_eq!(stderr.trim_end().lines().count(), 1, "one sentence: {stderr}");
    }
}

#[test]
fn plain_observer_prints_a_table_where_stdout_is_no_terminal() {
    let plain = observer(&[]);
    assert_eq!(plain.status.code(), Some(0), "{plain:?}");
    let text = String::from_utf8(plain.stdout).unwrap();
    for word in ["LOCAL ENDPOINT", "ephemeral ports", "file descriptors", "state via tp_btf", "0 records lost"] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "escape sequences in a pipe");
}

#[test]
fn snapshot_json_has_the_fields_of_schema_2() {
    let output = observer_after("--net", "ip link set lo up", "snapshot --own-netns --json");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["schema"], 2);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(json["kernel"], kernel.trim());
    for field in ["sockets", "connections", "opened_total", "closed_total", "unopened_total"] {
        assert_eq!(json["totals"][field], 0, "{field}");
    }
    assert_eq!(json["endpoints"], Value::Array(vec![]));
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let range: Vec<u64> = range.split_whitespace().map(|port| port.parse().unwrap()).collect();
    assert_eq!(json["namespaces"][0]["port_range"], Value::from(range));
    let limits = json["limits"].as_array().unwrap();
    assert!(limits.iter().any(|limit| limit["kind"] == "host_files" && limit["scope"] == "host"), "{limits:?}");
    assert_eq!(json["quality"]["scans_total"], 1);
    let hooks: Vec<&str> =
        json["quality"]["hooks"].as_array().unwrap().iter().map(|hook| hook["hook"].as_str().unwrap()).collect();
    assert_eq!(hooks, ["state", "destroy", "connect", "accept", "failures", "scan", "fd_owners"]);
    let taken_at: jiff::Timestamp = json["taken_at"].as_str().unwrap().parse().unwrap();
    let scanned_at: jiff::Timestamp = json["quality"]["last_scan_at"].as_str().unwrap().parse().unwrap();
    assert!(scanned_at <= taken_at);
}

#[test]
fn doctor_reports_the_attach_method_of_each_hook() {
    let output = observer(&["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for word in
        ["sock_common.skc_daddr", "state       used: tp_btf", "scan        used: iter", "advice", "verdict       ready"]
    {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    let verdict = Some("verdict       ready");
    assert_eq!((text.lines().next(), text.lines().last()), (verdict, verdict), "whatever part of it is seen");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for args in [&["snapshot"][..], &["snapshot", "--json"], &["doctor"]] {
        let mut child =
            Command::new(OBSERVER).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn unknown_words_are_wrong_usage() {
    fails_with(&observer(&["--no-such-flag"]), 2, &["--no-such-flag", "Usage"]);
    fails_with(&observer(&["no-such-command"]), 2, &["no-such-command"]);
    fails_with(&observer(&["snapshot", "--jsn"]), 2, &["--jsn", "--json"]);
    fails_with(&observer(&["snapshot", "--sort", "ports"]), 2, &["ports", "close_wait, time_wait"]);
    fails_with(&observer(&["limits", "--sort", "time_wait"]), 2, &["time_wait", "ratio, used, maximum"]);
    fails_with(&observer(&["--ring-bytes", "5000"]), 2, &["--ring-bytes", "power of two"]);
    fails_with(&observer(&["--max-cost", "0"]), 2, &["--max-cost", "not 0.01 to 100 percent"]);
    fails_with(&observer(&["--max-cost", "five"]), 2, &["--max-cost", "invalid float"]);
    fails_with(&observer(&["--ring-bytes", "2048"]), 2, &["power of two from 4096"]);
}

#[test]
fn without_the_right_to_use_bpf_it_names_what_is_missing() {
    let (_dir, copy) = copy_for_everyone();
    let unprivileged = |args: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .args(args)
            .output()
            .unwrap()
    };
    fails_with(&unprivileged(&["snapshot"]), 1, &["EPERM", "CAP_BPF and CAP_PERFMON", "as root: sudo /", " snapshot"]);
    let doctor = unprivileged(&["doctor"]);
    let text = String::from_utf8(doctor.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(doctor.status.code(), Some(1), "{text}");
    assert!(
        text.contains("because load the BPF programs: EPERM: this process lacks CAP_BPF and CAP_PERFMON"),
        "{text}"
    );
    assert!(text.starts_with("verdict not ready") && text.ends_with("verdict not ready"), "{text}");
}

#[test]
fn one_missing_capability_is_named_alone() {
    let (_dir, copy) = copy_for_everyone();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin,-perfmon", "--inh-caps=-sys_admin,-perfmon"])
        .arg(&copy)
        .output()
        .unwrap();
    fails_with(&output, 1, &["lacks CAP_PERFMON;", "grant CAP_PERFMON"]);
}

#[test]
fn the_two_capabilities_that_are_asked_for_are_enough() {
    let (_dir, copy) = copy_for_everyone();
    let only = "-all,+bpf,+perfmon";
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([format!("--inh-caps={only}"), format!("--ambient-caps={only}"), format!("--bounding-set={only}")])
        .arg(&copy)
        .arg("snapshot")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("state via tp_btf"), "{output:?}");
}

#[test]
fn root_of_a_user_namespace_learns_that_this_is_not_enough() {
    fails_with(&observer_after("--user", "true", "snapshot"), 1, &["user namespace", "as root on the host"]);
}

#[test]
fn without_btf_it_says_which_kernel_it_needs() {
    let output = observer_after("--mount", "mount -t tmpfs none /sys/kernel/btf", "snapshot");
    fails_with(&output, 1, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"]);
}

#[test]
fn nonsense_in_the_place_of_btf_is_named() {
    let setup = "mount -t tmpfs none /sys/kernel/btf && echo nonsense > /sys/kernel/btf/vmlinux";
    fails_with(&observer_after("--mount", setup, "snapshot"), 1, &["not BTF"]);
}

#[test]
fn a_log_file_takes_the_diagnostics_of_the_kernel_side() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("observer.log");
    let output = observer(&["snapshot", "--log-file", log.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("end of the socket table"), "the scan's own word is missing:\n{text}");
    let nowhere = observer(&["snapshot", "--log-file", "/no/such/dir/log"]);
    fails_with(&nowhere, 1, &["open the log file /no/such/dir/log", "No such file"]);
}

#[test]
fn watch_prints_as_many_lines_as_were_asked_for() {
    let output = observer(&["--own-netns", "watch", "-n", "2", "--interval", "0.05"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let snapshot: Value = serde_json::from_slice(&observer(&["--own-netns", "snapshot", "--json"]).stdout).unwrap();
    let fields = |json: &Value| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let taken_at = |json: &Value| json["taken_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(lines.iter().all(|line| line["schema"] == 2 && fields(line) == fields(&snapshot)));
    assert!(taken_at(&lines[0]) < taken_at(&lines[1]));
    fails_with(&observer(&["watch", "--interval", "0"]), 2, &["--interval", "0.05 seconds"]);
}

#[test]
fn a_recording_is_replayed_without_any_right() {
    let (dir, copy) = copy_for_everyone();
    let file = dir.path().join("recording");
    let path = file.to_str().unwrap();
    let record = |more: &[&str]| observer(&[&["--own-netns", "record", path, "--for", "0.2"], more].concat());
    let recorded = record(&[]);
    assert_eq!(recorded.status.code(), Some(0), "{recorded:?}");
    let words = String::from_utf8(recorded.stderr).unwrap();
    let size = fs::metadata(&file).unwrap().len();
    assert_eq!(words.lines().count(), 1, "{words}");
    assert!(words.contains(path) && words.replace(',', "").contains(&format!("{size} bytes")), "{words}");

    fails_with(&record(&[]), 1, &[path, "is there already", "--force"]);
    assert_eq!(fs::metadata(&file).unwrap().len(), size, "it was touched");
    assert_eq!(record(&["--force"]).status.code(), Some(0));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let replay = |more: &[&str]| {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        Command::new("setpriv").args(nobody).arg(&copy).args(["replay", path]).args(more).output().unwrap()
    };
    let json: Value = serde_json::from_slice(&replay(&["--json"]).stdout).unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!((json["schema"].as_u64(), json["kernel"].as_str()), (Some(2), Some(kernel.trim())));
    assert!(json["quality"]["scans_total"].as_u64().unwrap() >= 1, "{json}");
    assert!(String::from_utf8(replay(&[]).stdout).unwrap().contains("state via tp_btf"));
}

#[test]
fn a_signal_completes_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recording");
    let mut child = Command::new(OBSERVER)
        .args(["--own-netns", "record", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The header is written when the signals are waited for.
    let deadline = Instant::now() + Duration::from_mins(1);
    while fs::metadata(&file).map_or(0, |it| it.len()) == 0 {
        assert!(Instant::now() < deadline, "nothing was recorded");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert!(stderr.contains("records"), "{stderr}");
    let json = observer(&["replay", "--json", file.to_str().unwrap()]);
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap()["schema"], 2, "{json:?}");
}

#[test]
fn what_is_no_recording_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nonsense");
    fs::write(&file, "nonsense").unwrap();
    let path = file.to_str().unwrap();
    fails_with(&observer(&["replay", path]), 1, &[path, "not a recording of observer"]);
    fails_with(&observer(&["replay", "/no/such/file"]), 1, &["open /no/such/file", "No such file"]);
    fails_with(&observer(&["record", "/no/such/dir/file"]), 1, &["open /no/such/dir/file", "No such file"]);
    fails_with(&observer(&["replay", path, "--speed", "0"]), 2, &["--speed", "0.01 to 1000"]);
}

#[test]
fn completions_and_the_manual_page_name_every_command() {
    for args in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]] {
        let output = observer(args);
        assert!(output.status.success(), "{args:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for command in ["snapshot", "limits", "check", "doctor"] {
            assert!(text.contains(command), "{args:?} says nothing of {command}");
        }
    }
}

#[test]
fn each_page_that_a_man_page_names_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    assert!(observer(&["man", "--folder", folder]).status.success());
    let main = fs::read_to_string(dir.path().join("observer.1")).unwrap();
    // As roff writes a hyphen.
    let named: Vec<_> = main.lines().filter_map(|line| line.strip_suffix("(1)")?.strip_prefix("observer\\-")).collect();
    assert!(named.contains(&"snapshot"), "{main}");
    for command in named {
        let page = fs::read_to_string(dir.path().join(format!("observer-{command}.1"))).unwrap();
        assert!(page.contains("SYNOPSIS"), "{command}: {page}");
    }
    fails_with(&observer(&["man", "--folder", "/no/such/folder"]), 1, &["/no/such/folder", "No such file"]);
}

/// What the program says with this file of settings and this environment.
fn with_settings(file: &str, env: &[(&str, &str)], args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("observer")).unwrap();
    fs::write(home.path().join("observer/config.toml"), file).unwrap();
    let mut command = Command::new(OBSERVER);
    command.args(args).env("XDG_CONFIG_HOME", home.path()).stdin(Stdio::null());
    command.envs(env.iter().copied()).output().unwrap()
}

#[test]
fn the_command_line_decides_before_the_environment_and_that_before_the_file() {
    // Lives until its standard input is closed.
    let mut other = another_namespace();
    let sees_all = |file: &str, env: &[(&str, &str)], flag: &[&str]| {
        let output = with_settings(file, env, &[&["snapshot", "--json"], flag].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        json["namespaces"].as_array().unwrap().len() > 1
    };
    let (own, all) = ([("OBSERVER_OWN_NETNS", "true")], [("OBSERVER_OWN_NETNS", "false")]);
    assert!(sees_all("", &[], &[]));
    assert!(!sees_all("own_netns = true", &[], &[]));
    assert!(sees_all("own_netns = true", &all, &[]));
    assert!(!sees_all("own_netns = true", &all, &["--own-netns"]));
    assert!(sees_all("", &own, &["--own-netns=false"]));
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn settings_that_make_no_sense_are_wrong_usage() {
    for (file, words) in [
        ("colour = 'auto'\n", ["config.toml", "unknown field `colour`"]),
        ("ring_bytes = 5000\n", ["config.toml", "not a power of two"]),
        ("theme = \n", ["config.toml", "line 1"]),
    ] {
        fails_with(&with_settings(file, &[], &["doctor"]), 2, &words);
    }
    let missing = with_settings("", &[], &["--config", "/nowhere/c.toml", "doctor"]);
    fails_with(&missing, 2, &["/nowhere/c.toml", "No such file"]);
    fails_with(&with_settings("", &[("OBSERVER_THEME", "pink")], &["doctor"]), 2, &["pink", "high-contrast"]);
    // A monitoring plugin has its own way to say so.
    assert_eq!(with_settings("colour = 1", &[], &["check"]).status.code(), Some(3));
}

/// The line that doctor prints, run as it is, gives an ordinary user what root has.
#[test]
fn the_setcap_line_of_doctor_lets_an_ordinary_user_run_it() {
    let (_dir, copy) = copy_for_everyone();
    let nobody = |args: &[&str]| {
        let credentials = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
        Command::new("setpriv").args(credentials).arg(&copy).args(args).output().unwrap()
    };
    let doctor = String::from_utf8(nobody(&["doctor"]).stdout).unwrap();
    let line = doctor.lines().find_map(|line| line.trim().strip_prefix("sudo setcap ")).expect("a setcap line");
    assert!(line.ends_with(copy.to_str().unwrap()), "{line}");
    let setcap =
        Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin; setcap {line}")]).output().unwrap();
    assert!(setcap.status.success(), "{setcap:?}");
    let snapshot = nobody(&["snapshot", "--json"]);
    let json: Value = serde_json::from_slice(&snapshot.stdout).unwrap_or_else(|_| panic!("{snapshot:?}"));
    let held = |name: &str| {
        let rows = json["quality"]["capabilities"].as_array().unwrap();
        rows.iter().find(|row| row["capability"] == name).unwrap()["holding"].as_str().unwrap().to_owned()
    };
    assert_eq!([held("CAP_BPF"), held("CAP_SYS_ADMIN"), held("CAP_NET_ADMIN")], ["given up", "held", "held"]);
    assert!(json["quality"]["hooks"].as_array().unwrap().iter().all(|hook| hook["method"].is_string()), "{json:#}");
    // A file that this user may not read is closed to the program too.
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "theme = \"light\"\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = nobody(&["--config", secret.to_str().unwrap(), "doctor"]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("EACCES"));
}
