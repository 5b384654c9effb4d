//! In a pid namespace of its own, as in a container: the kernel side numbers processes otherwise than /proc, and a
//! process must neither be two nor be taken for another with the same number. The truth is `ss -p`, run outside.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    processes::start_program,
    support::{PATIENCE, in_private_netns, listen, run, wait_until},
};

const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
const AT: &str = "127.0.0.1:7000";

/// A shell that is process 1 of a new pid namespace, with a /proc of that; the host's is in /run/host of its mounts.
/// What it prints comes by the line that is its standard input.
fn contained(script: &str) -> (Child, UnixStream) {
    let inner = format!("mount -t proc proc /proc; exec >&0; {script}");
    let outer = format!(
        "mount -t tmpfs none /run; mkdir /run/host; mount --rbind /proc /run/host; \
         exec unshare --pid --fork --kill-child bash -c '{inner}'"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", &outer]);
    start_program(command.stdout(Stdio::null())).unwrap()
}

/// The process that this one waits for.
fn only_child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

/// Ends the observer that the shell inside runs, and with it the shell. Not the shell first: it would wait for
/// observer, and observer, while its programs are detached, for every task that is exiting (`exit_tasks_rcu_start`;
/// seen on 6.1).
fn end(child: &mut Child) {
    let observer = only_child(only_child(child.id()));
    let pid = rustix::process::Pid::from_raw(observer.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
}

/// The lines of JSON that it prints.
fn objects(line: UnixStream) -> impl Iterator<Item = Value> {
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines = BufReader::new(line).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// Sockets by process: id, name, and whether it is outside of the pid namespace.
type Owned = BTreeMap<(u64, String, bool), u64>;

fn owned(json: &Value) -> Owned {
    let mut owned = Owned::new();
    for owner in json["endpoints"].as_array().unwrap().iter().filter_map(|row| row["owners"].as_array()).flatten() {
        let is_outside = owner["outside_pid_namespace"].as_bool().unwrap_or(false);
        let process = (owner["pid"].as_u64().unwrap(), owner["comm"].as_str().unwrap().to_owned(), is_outside);
        *owned.entry(process).or_default() += owner["sockets"].as_u64().unwrap();
    }
    owned
}

/// By `ss` outside, which sees all by their numbers there. Each socket has one user here.
fn truth() -> Owned {
    let mut owned = Owned::new();
    for line in run("ss", &["-Htnp"]).lines() {
        let Some((_, list)) = line.split_once("users:((") else { continue };
        assert_eq!(list.matches("pid=").count(), 1, "{line}");
        let mut parts = list.split(',');
        let comm = parts.next().unwrap().trim_matches('"').to_owned();
        let pid = parts.next().unwrap().strip_prefix("pid=").unwrap().parse().unwrap();
        *owned.entry((pid, comm, false)).or_default() += 1;
    }
    owned
}

fn this() -> (u64, String) {
    let pid = std::process::id();
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    (pid.into(), comm.trim_end().to_owned())
}

#[test]
fn a_process_inside_has_the_number_of_its_namespace_and_one_outside_is_no_other() {
    in_private_netns(|| {
        let listener = listen(AT, 128);
        let watch = format!("{OBSERVER} watch --own-netns --interval 0.1 3>&-");
        let (mut child, line) = contained(&format!("exec 3<>/dev/tcp/127.0.0.1/7000; {watch}"));
        let accepted = listener.accept().unwrap().0;
        let mut objects = objects(line);
        let first = objects.next().unwrap();
        // It was there before: nobody inside holds the other end, and who outside does cannot be known.
        assert_eq!(owned(&first), Owned::from([((1, "bash".to_owned(), false), 1)]), "{first:#}");
        assert_eq!(first["quality"]["processes"], "pid_namespace");
        assert!(first["quality"]["processes_missing"].as_str().unwrap().contains("--proc"), "{first:#}");

        // The kernel side reports what happens outside, and fd scans that do not show it do not remove it.
        let client = TcpStream::connect(AT).unwrap();
        let taken = listener.accept().unwrap().0;
        let (pid, comm) = this();
        let wanted = Owned::from([((1, "bash".to_owned(), false), 1), ((pid, comm, true), 2)]);
        let since = first["quality"]["scans_total"].as_u64().unwrap();
        let passed = |json: &Value| json["quality"]["scans_total"].as_u64().unwrap() >= since + 3;
        let last = objects.by_ref().find(|json| passed(json) && owned(json) == wanted);
        assert!(last.is_some(), "the stream ended before both were there");
        // No process gets the fd limit of another one with the same number.
        for limit in last.unwrap()["limits"].as_array().unwrap().iter().filter(|limit| !limit["process"].is_null()) {
            assert!(limit["process"]["pid"].as_u64() != Some(pid), "{limit:#}");
        }
        drop((client, taken, accepted));
        end(&mut child);
    });
}

#[test]
fn with_the_proc_of_the_host_the_owners_are_those_of_ss_outside() {
    in_private_netns(|| {
        let listener = listen(AT, 128);
        let client = TcpStream::connect(AT).unwrap();
        let taken = listener.accept().unwrap().0;
        let watch = format!("{OBSERVER} --proc /run/host watch --own-netns --interval 0.1 3>&-");
        let (mut child, line) = contained(&format!("exec 3<>/dev/tcp/127.0.0.1/7000; {watch}"));
        let accepted = listener.accept().unwrap().0;
        let mut objects = objects(line);
        let first = objects.next().unwrap();
        assert_eq!(owned(&first), truth(), "{first:#}");
        assert_eq!(first["quality"]["processes"], "all");
        assert!(first["quality"]["processes_missing"].is_null());
        let row = first["endpoints"].as_array().unwrap().iter().find(|row| row["listening"] == true).unwrap();
        assert_eq!(row["listeners"][0]["pid"], this().0, "{first:#}");

        // What is passed over later is found too.
        let later = TcpStream::connect(AT).unwrap();
        let taken_later = listener.accept().unwrap().0;
        wait_until("owners equal to ss outside", || objects.next().is_some_and(|json| owned(&json) == truth()));
        drop((later, taken_later, client, taken, accepted));
        end(&mut child);
    });
}

#[test]
fn limits_outside_that_nobody_sees_are_not_fine() {
    in_private_netns(|| {
        let scripts = "check --warn 100 --crit 100|limits|limits --json|doctor";
        let runs: Vec<String> =
            scripts.split('|').map(|words| format!("{OBSERVER} --own-netns {words}; echo status $?")).collect();
        let said = |mut line: UnixStream| {
            let mut text = String::new();
            line.set_read_timeout(Some(PATIENCE)).unwrap();
            line.read_to_string(&mut text).unwrap();
            text
        };
        let (mut child, line) = contained(&runs.join("; "));
        let text = said(line);
        child.wait().unwrap();
        let parts: Vec<&str> = text.split("status ").collect();
        let gap = "processes outside this pid namespace not visible; mount the host's /proc and give --proc PATH";
        assert!(parts[0].starts_with("OBSERVER UNKNOWN - ") && parts[0].contains(gap), "{text}");
        let one_line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
        let limits = one_line(parts[1]);
        assert!(limits.starts_with("3 ") && limits.contains(&format!("NOT READ {gap}")), "{text}");
        assert!(parts[2].contains("\"kind\": \"outside_processes\""), "{text}");
        assert!(one_line(parts[3]).contains(gap) && !parts[3].contains("everything is read"), "{text}");

        // With the host's /proc nothing of that is missing.
        let (mut child, line) = contained(&format!("{OBSERVER} --proc /run/host --own-netns limits"));
        let text = said(line);
        child.wait().unwrap();
        assert!(text.contains("THE ARITHMETIC") && !text.contains("outside this pid namespace"), "{text}");
    });
}

#[test]
fn the_proc_of_a_container_is_not_taken_for_that_of_the_host() {
    in_private_netns(|| {
        let (mut child, line) = contained("echo up; read end");
        BufReader::new(&line).read_line(&mut String::new()).unwrap();
        let table = format!("/proc/{}/root/proc", only_child(child.id()));
        let output =
            Command::new(OBSERVER).args(["--proc", &table, "--own-netns", "snapshot", "--json"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["quality"]["processes"], "pid_namespace", "{json:#}");
        assert_eq!(
            json["quality"]["unread"].as_array().unwrap().last().unwrap()["kind"],
            "outside_processes",
            "{json:#}"
        );
        drop(line);
        child.wait().unwrap();
    });
}

#[test]
fn a_directory_inside_procfs_is_refused() {
    in_private_netns(|| {
        for inside in ["/proc/self", "/proc/1", "/proc/self/task", "/proc/sys", "/proc/net/"] {
            let output = Command::new(OBSERVER).args(["--proc", inside, "snapshot"]).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(&format!("--proc {inside}: this is a directory inside procfs")), "{stderr}");
        }
    });
}

#[test]
fn what_is_no_procfs_is_refused() {
    in_private_netns(|| {
        let output = Command::new(OBSERVER).args(["--proc", "/sys", "snapshot"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("--proc /sys: no procfs is mounted there"), "{stderr}");
    });
}
