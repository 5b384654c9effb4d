//! What the program cannot read is said wherever its numbers are: never is it simply fine. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod program;

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::ffi::OsStrExt as _,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use self::program::{OBSERVER, copy_for_everyone};

const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

fn observer(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A process of another user with so many open files and a limit that was lowered below them.
struct OverLimit {
    child: Child,
    open: usize,
}

impl OverLimit {
    fn start(limit: u32) -> Self {
        let script =
            format!("for i in $(seq {limit}); do exec {{f}}</dev/null; done; ulimit -S -n {limit}; echo up; read end");
        let mut child = Command::new("setpriv")
            .args(NOBODY)
            .args(["bash", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        let open = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
        Self { child, open }
    }
}

impl Drop for OverLimit {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
fn another_users_process_over_its_limit_is_critical() {
    let over = OverLimit::start(100);
    assert!(over.open > 100, "{}", over.open);
    let check = observer(&["check"]);
    let line = stdout(&check);
    assert_eq!(check.status.code(), Some(2), "{line}");
    let words = format!("({}) {} % ({}/100)", over.child.id(), over.open, over.open);
    assert!(line.contains(&words), "no {words:?} in {line}");
    let json: Value = serde_json::from_slice(&observer(&["snapshot", "--json"]).stdout).unwrap();
    let limits = json["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["process"]["pid"] == over.child.id()).expect("its limit");
    assert_eq!((limit["used"].as_u64(), limit["maximum"].as_u64()), (Some(over.open as u64), Some(100)));
}

/// What a user says who has the two capabilities that are asked for, and no other, after root has run `setup` in a mount
/// namespace of its own.
fn with_two_capabilities(setup: &str, command: &str) -> Output {
    let (_dir, copy) = copy_for_everyone();
    let only = "-all,+bpf,+perfmon";
    let script = format!(
        "{setup} && exec setpriv {} --inh-caps={only} --ambient-caps={only} --bounding-set={only} {} {command}",
        NOBODY.join(" "),
        copy.display()
    );
    Command::new("unshare").args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn what_root_reads_whole_has_no_gaps() {
    let json: Value = serde_json::from_slice(&observer(&["snapshot", "--json"]).stdout).unwrap();
    // Some sandboxes close the processes outside of them even to root: those that we cannot see into either.
    let closed = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let looked = fs::metadata(entry.path().join("ns/net"));
        is_process && looked.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    let closed = closed.count() as u64;
    let unread = json["quality"]["unread"].as_array().unwrap();
    let counts: Vec<_> =
        unread.iter().map(|entry| (entry["kind"].as_str().unwrap(), entry["count"].as_u64())).collect();
    let expected = if closed > 0 { vec![("process_namespaces", Some(closed))] } else { Vec::new() };
    assert_eq!(counts, expected, "nothing else is withheld from root");
    assert_eq!(json["quality"]["skipped_rounds_total"], 0);
    let doctor = stdout(&observer(&["doctor"]));
    assert_eq!(doctor.contains("everything is read"), closed == 0, "{doctor}");
    assert!(!doctor.contains("would help"), "root has what would help: {doctor}");
    let check = observer(&["check"]);
    assert_ne!(check.status.code(), Some(3), "what root reads is enough for a verdict: {}", stdout(&check));
}

#[test]
fn what_a_user_with_two_capabilities_cannot_read_is_said_in_every_output() {
    // Root alone may look into it, as wherever it is mounted.
    let tracefs = "mount -t tracefs none /sys/kernel/tracing";
    let with_two_capabilities = |command: &str| with_two_capabilities(tracefs, command);
    let json: Value = serde_json::from_slice(&with_two_capabilities("snapshot --json").stdout).unwrap();
    let unread = json["quality"]["unread"].as_array().unwrap();
    let kind = |id: &str| unread.iter().find(|entry| entry["kind"] == id);
    let memberships = kind("process_namespaces").expect("namespaces of other users' processes are closed");
    assert_eq!((&memberships["errno"], &memberships["capability"]), (&"EACCES".into(), &"CAP_SYS_PTRACE".into()));
    assert!(memberships["count"].as_u64().unwrap() >= 1);
    let hooks = json["quality"]["hooks"].as_array().unwrap();
    let is_missing = |name: &str| hooks.iter().any(|hook| hook["hook"] == name && hook["method"].is_null());
    let needs_tracefs = is_missing("accept") || is_missing("failures");
    assert_eq!(kind("tracefs").is_some(), needs_tracefs, "{json:#}");

    let table = stdout(&with_two_capabilities("snapshot"));
    let limits = stdout(&with_two_capabilities("limits"));
    let doctor = stdout(&with_two_capabilities("doctor"));
    let check = with_two_capabilities("check");
    for text in [&table, &limits, &doctor, &stdout(&check)] {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in ["namespace", "not read", "EACCES", "CAP_SYS_PTRACE would help"] {
            assert!(line.contains(words), "no {words:?} in\n{text}");
        }
        assert_eq!(line.contains("tracefs closed"), needs_tracefs, "{text}");
    }
    assert_ne!(check.status.code(), Some(0), "what was not read is not OK: {}", stdout(&check));
}

#[test]
fn processes_that_proc_hides_are_said() {
    let check = with_two_capabilities("mount -t proc -o hidepid=2 proc /proc", "check");
    let line = stdout(&check);
    assert!(line.contains("processes of other users hidden (hidepid)"), "{check:?}");
    assert_ne!(check.status.code(), Some(0), "{line}");
}

#[test]
fn a_mount_whose_name_is_not_utf_8_makes_nothing_fail() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let place = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&place).unwrap();
    for command in ["snapshot", "snapshot --json", "limits", "check", "watch -n 2 --interval 0.1", "doctor"] {
        let script = format!("mount -t tmpfs none \"$0\" && exec {OBSERVER} {command}");
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(&place)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = stdout(&output);
        assert!(output.status.code().is_some_and(|code| code < 3) && output.stderr.is_empty(), "{command}: {output:?}");
        assert!(!text.contains("UNKNOWN") && !text.is_empty(), "{command}: {text}");
    }
}

#[test]
fn a_name_is_the_same_in_every_output() {
    let name = [b"observer-e-".as_slice(), std::process::id().to_string().as_bytes(), b"-\xe9\t\xe6\x95\xb0"].concat();
    let name = OsStr::from_bytes(&name);
    let ip = |args: &[&OsStr]| assert!(Command::new("ip").arg("netns").args(args).status().unwrap().success());
    ip(&["add".as_ref(), name]);
    let mut full = Command::new("ip")
        .args(["netns", "exec"])
        .arg(name)
        .args([
            "sh",
            "-c",
            "ip link set lo up; sysctl -q -w net.ipv4.ip_local_port_range='20000 20001'; exec bash -c \
            'echo up; exec 3<>/dev/tcp/127.0.0.1/9; read end'",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(full.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let shown = format!("observer-e-{}-??数", std::process::id());
    for command in [&["snapshot"][..], &["snapshot", "--json"], &["watch", "-n", "1"]] {
        let text = stdout(&observer(command));
        assert!(text.contains(&shown), "no {shown} in {command:?}:\n{text}");
    }
    drop(full.stdin.take());
    full.wait().unwrap();
    ip(&["del".as_ref(), name]);
}

/// A process of a user who has no other, with as few more processes as fit its limit.
struct Alone {
    child: Child,
    fillers: Vec<Child>,
    _dir: tempfile::TempDir,
}

impl Alone {
    const USER: [&str; 3] = ["--reuid=61234", "--regid=61234", "--clear-groups"];
    /// Threads of `observer watch`, and that which enters namespaces.
    const THREADS: usize = 6;

    fn watch() -> Self {
        let (dir, copy) = copy_for_everyone();
        let only = "-all,+bpf,+perfmon,+dac_read_search";
        let capabilities = ["--inh-caps", "--ambient-caps", "--bounding-set"].map(|set| format!("{set}={only}"));
        let child = Command::new("prlimit")
            .arg(format!("--nproc={0}:{0}", Self::THREADS))
            .arg("setpriv")
            .args(Self::USER)
            .args(capabilities)
            .arg(copy)
            .args(["watch", "--interval", "0.2"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, fillers: Vec::new(), _dir: dir }
    }

    /// From now on it gets no thread.
    fn fill(&mut self) {
        let filler = || Command::new("setpriv").args(Self::USER).args(["sleep", "60"]).spawn().unwrap();
        self.fillers.extend((0..Self::THREADS).map(|_| filler()));
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        for child in [&mut self.child].into_iter().chain(&mut self.fillers) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// A namespace with a name, removed when dropped.
struct Closed(String);

impl Closed {
    fn add() -> Self {
        let closed = Self(format!("observer-x-{}", std::process::id()));
        assert!(Command::new("ip").args(["netns", "add", &closed.0]).status().unwrap().success());
        closed
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        assert!(Command::new("ip").args(["netns", "del", &self.0]).status().unwrap().success());
    }
}

#[test]
fn what_was_not_entered_stays_a_gap_while_no_thread_is_to_be_had() {
    let _closed = Closed::add();
    let mut alone = Alone::watch();
    let lines = BufReader::new(alone.child.stdout.take().unwrap()).lines();
    let mut qualities = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["quality"].clone());
    let not_entered =
        |quality: &Value| quality["unread"].as_array().unwrap().iter().any(|gap| gap["kind"] == "namespaces");
    let first = qualities.next().unwrap();
    assert!(not_entered(&first) && first["skipped_rounds_total"] == 0, "{first:#}");
    alone.fill();
    let mut seen = 0;
    for quality in qualities.take(200) {
        assert!(not_entered(&quality), "{quality:#}");
        let refused = quality["skipped_rounds_total"].as_u64().unwrap() >= 2;
        seen += u32::from(refused && quality["last_skip"]["errno"] == "EAGAIN");
        if seen >= 5 {
            return;
        }
    }
    panic!("no thread was refused");
}
