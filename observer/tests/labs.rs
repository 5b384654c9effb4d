//! Labs with a heavy load, and what labs leave behind: nothing, whatever ends them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

fn observer(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn confirmed(args: &[&str]) -> Value {
    let output = observer(args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["verdict"], "confirmed", "{text}");
    report
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "did not come: {what}");
        thread::yield_now();
    }
}

/// The network namespaces of all processes, by their inode numbers.
fn namespaces() -> BTreeSet<u64> {
    processes().filter_map(|pid| Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes that this one has started.
fn children(parent: u32) -> Vec<u32> {
    let is_its = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent_field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent_field == Some(parent)
    };
    processes().filter(is_its).collect()
}

/// What labs set in their own namespace or could reach from it, as it is outside; and all mounts.
fn outside() -> Vec<Vec<u8>> {
    let sysctls = ["net/ipv4/ip_local_port_range", "net/ipv4/tcp_tw_reuse", "net/core/somaxconn", "fs/file-max"];
    let mut files: Vec<String> = sysctls.map(|name| format!("/proc/sys/{name}")).into();
    files.push("/proc/self/mountinfo".to_owned());
    // Names of mounts are bytes, and other processes make mounts too.
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A lab in the midst of its work: its process and its namespace.
struct Running {
    lab: Child,
    netns: u64,
}

impl Running {
    fn start() -> Self {
        let lab = Command::new(OBSERVER)
            .args(["lab", "client-ceiling", "--scale", "20000", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = lab.id();
        wait_until("servers and a client", || children(pid).len() >= 4);
        let netns = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
        assert_ne!(netns, fs::metadata("/proc/self/ns/net").unwrap().ino(), "it has a namespace of its own");
        for worker in children(pid) {
            assert_eq!(fs::metadata(format!("/proc/{worker}/ns/net")).unwrap().ino(), netns);
        }
        Self { lab, netns }
    }

    fn ends_without_a_trace(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.lab), signal).unwrap();
        self.lab.wait().unwrap();
        // Also those that it had just started: all are in its namespace. A zombie has none any more.
        wait_until("all workers to be gone", || !namespaces().contains(&self.netns));
    }
}

#[test]
fn a_killed_lab_leaves_nothing_behind() {
    let before = outside();
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        Running::start().ends_without_a_trace(signal);
    }
    assert_eq!(outside(), before);
}

#[test]
fn a_lab_whose_clients_are_killed_fails_and_leaves_nothing_behind() {
    let Running { mut lab, netns } = Running::start();
    let named =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "lab-client");
    // Every client that it starts: which of them it misses is a matter of chance.
    let mut status = None;
    wait_until("the lab to give up", || {
        for client in children(lab.id()).iter().filter(|pid| named(pid)) {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_raw(client.cast_signed()).unwrap(), Signal::KILL);
        }
        status = lab.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(1));
    wait_until("the namespace to be empty", || !namespaces().contains(&netns));
}

#[test]
fn a_lab_that_ends_well_or_refuses_leaves_nothing_behind() {
    let before = outside();
    confirmed(&["lab", "accept", "--scale", "100", "--json"]);
    let refused = observer(&["lab", "accept", "--scale", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("takes 10 to 10,000 connections"), "{refused:?}");
    assert_eq!(outside(), before);
}

#[test]
fn more_than_65536_connections_on_one_port() {
    let report = confirmed(&["lab", "myth", "--scale", "70000", "--json"]);
    let check = |what: &str| report["checks"].as_array().unwrap().iter().find(|check| check["what"] == what).cloned();
    let different = check("different clients in /proc/net/tcp").unwrap();
    assert_eq!((&different["observer"], &different["kernel"]), (&70_000.into(), &70_000.into()), "{different}");
    let bound = observer(&["lab", "myth", "--scale", "65536"]);
    assert!(String::from_utf8_lossy(&bound.stderr).contains("takes 65,537 to"), "{bound:?}");
}

#[test]
fn connect_gets_slower_at_half_of_the_range() {
    let report = confirmed(&["lab", "cliff", "--scale", "10000", "--json"]);
    assert_eq!(report["curve"].as_array().unwrap().len(), 20);
}

#[test]
fn lab_million_measures_the_memory_of_its_connections() {
    let report = confirmed(&["lab", "million", "--scale", "20000", "--json"]);
    assert_eq!(report["checks"][0]["kernel"], 20_000);
    assert!(report["measurements"][0]["value"].is_u64(), "{report:#}");
}

#[test]
fn a_lab_names_the_resource_that_the_host_lacks() {
    let script = format!("ulimit -n 100 && exec {OBSERVER} lab accept");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("too little for lab accept") && error.contains("ulimit -Hn"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "one sentence: {error}");
}

/// Some hosts let only root make namespaces: then that is what it says.
#[test]
fn without_rights_a_lab_runs_in_a_user_namespace_and_names_the_missing_rights() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("observer");
    // By another process: see tests/program.
    assert!(Command::new("cp").arg(OBSERVER).arg(&copy).status().unwrap().success());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["lab", "port-reuse", "--scale", "200"])
        .output()
        .unwrap();
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        assert!(text.contains("confirmed") && text.contains("Without the rights to use BPF"), "{text}");
    } else {
        assert!(error.contains("lets only root make namespaces"), "{error}\n{text}");
    }
}

#[test]
fn plain_output_fits_a_terminal_and_names_what_it_uses() {
    let output = observer(&["lab", "four-tuple"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["USES", "1 private network namespace", "theory", "kernel", "observer", "VERDICT     confirmed"] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
