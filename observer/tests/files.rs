//! Files that observer makes under names from its user, and recordings through pipes. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
const DEADLINE: Duration = Duration::from_mins(1);

fn observer(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

/// A program that has none of the rights that it needs.
fn without_rights(args: &[&str]) -> Output {
    Command::new("setpriv")
        .args(["--bounding-set=-sys_admin,-perfmon", "--inh-caps=-sys_admin,-perfmon"])
        .arg(OBSERVER)
        .args(args)
        .output()
        .unwrap()
}

#[track_caller]
fn fails_with(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "one sentence: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Replays a recording of this name, and returns the number of scans that it shows.
fn scans(path: &str) -> u64 {
    let output = observer(&["replay", "--json", path]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    json["quality"]["scans_total"].as_u64().unwrap()
}

/// One of each kind that is no regular file, with the word for it.
fn odd_files(folder: &Path) -> Vec<(&'static str, &'static str)> {
    fs::write(folder.join("target"), "precious").unwrap();
    symlink(folder.join("target"), folder.join("link")).unwrap();
    symlink(folder.join("nowhere"), folder.join("dangling")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap().success());
    assert!(Command::new("mknod").arg(folder.join("device")).args(["c", "1", "3"]).status().unwrap().success());
    drop(UnixListener::bind(folder.join("socket")).unwrap());
    vec![
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("folder", "directory"),
        ("fifo", "FIFO"),
        ("device", "device"),
        ("socket", "socket"),
    ]
}

#[test]
fn nothing_but_a_regular_file_is_replaced_or_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let odd = odd_files(dir.path());
    let before = names(dir.path());
    for (name, kind) in odd {
        let path = dir.path().join(name);
        let (path, found) = (path.to_str().unwrap(), fs::symlink_metadata(&path).unwrap());
        for args in [
            &["--own-netns", "record", path, "--for", "0.1"][..],
            &["--own-netns", "record", path, "--for", "0.1", "--force"],
            &["lab", "accept", "--scale", "10", "--json", "--record", path],
            &["--own-netns", "snapshot", "--log-file", path],
        ] {
            let output = observer(args);
            fails_with(&output, &[path, kind]);
            assert!(!String::from_utf8_lossy(&output.stderr).contains("--force"), "{args:?}: {output:?}");
        }
        let after = fs::symlink_metadata(path).unwrap();
        assert_eq!((after.ino(), after.file_type()), (found.ino(), found.file_type()), "{name}");
    }
    assert_eq!((names(dir.path()), fs::read(dir.path().join("target")).unwrap()), (before, b"precious".to_vec()));
    assert!(fs::symlink_metadata(dir.path().join("device")).unwrap().file_type().is_char_device());
}

#[test]
fn a_start_that_fails_leaves_nothing_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let [old, new, log] = ["old", "new", "log"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    fs::write(&old, "what was there").unwrap();
    for args in [&["record", &new][..], &["record", &old, "--force"], &["snapshot", "--log-file", &log]] {
        fails_with(&without_rights(args), &["CAP_PERFMON"]);
        assert_eq!((names(dir.path()), fs::read(&old).unwrap()), (vec!["old".to_owned()], b"what was there".to_vec()));
    }
    let script = format!("mount -t tmpfs none /sys/kernel/btf && exec {OBSERVER} record {old} --force");
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    fails_with(&output, &["/sys/kernel/btf/vmlinux"]);
    assert_eq!((names(dir.path()), fs::read(&old).unwrap()), (vec!["old".to_owned()], b"what was there".to_vec()));
}

#[test]
fn a_recording_is_private_complete_and_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recording");
    let path = file.to_str().unwrap();
    fs::write(&file, "old").unwrap();
    let inode = fs::metadata(&file).unwrap().ino();
    let recorded = observer(&["--own-netns", "record", path, "--for", "0.1", "--force"]);
    assert_eq!(recorded.status.code(), Some(0), "{recorded:?}");
    let found = fs::metadata(&file).unwrap();
    assert_eq!((found.mode() & 0o7777, names(dir.path())), (0o600, vec!["recording".to_owned()]));
    assert_ne!(found.ino(), inode, "whoever had the old file open still has it");
    assert!(scans(path) >= 1);
    // A name within the folder that observer is started in, which begins as an option does.
    let here = Command::new(OBSERVER)
        .args(["--own-netns", "record", "./-", "--for", "0.1"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(here.status.code(), Some(0), "{here:?}");
    assert_eq!(names(dir.path()), ["-", "recording"]);
}

#[test]
fn a_recording_has_its_name_while_it_runs_and_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recording");
    let path = file.to_str().unwrap();
    let mut child = Command::new(OBSERVER).args(["--own-netns", "record", path]).spawn().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let size = || fs::metadata(&file).map_or(0, |it| it.len());
    while size() == 0 {
        assert!(Instant::now() < deadline, "it has no name");
        std::thread::yield_now();
    }
    // The chunk of the next second.
    let begun = size();
    while size() == begun {
        assert!(Instant::now() < deadline, "nothing is added");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert_eq!(names(dir.path()), ["recording"]);
    assert!(scans(path) >= 1);
}

#[test]
fn a_recording_goes_through_standard_output_and_standard_input() {
    let recorded = observer(&["--own-netns", "record", "-", "--for", "0.2"]);
    assert_eq!(recorded.status.code(), Some(0), "{recorded:?}");
    assert!(recorded.stdout.starts_with(b"observer"), "no recording");
    let words = String::from_utf8(recorded.stderr).unwrap();
    let size = format!("{} bytes", recorded.stdout.len());
    assert!(words.contains("standard output") && words.replace(',', "").contains(&size), "{words}");
    let mut replay = Command::new(OBSERVER)
        .args(["replay", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    replay.stdin.take().unwrap().write_all(&recorded.stdout).unwrap();
    let output = replay.wait_with_output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["quality"]["scans_total"].as_u64().unwrap() >= 1, "{json}");
    fails_with(&observer(&["replay", "-"]), &["standard input", "not a recording"]);
}

#[test]
fn a_reader_of_a_recording_may_leave() {
    for rest in [&[][..], &["--anonymize"]] {
        let mut child = Command::new(OBSERVER)
            .args(["--own-netns", "record", "-"])
            .args(rest)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 8]).unwrap();
        drop(stdout);
        let mut words = String::new();
        child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
        assert_eq!((child.wait().unwrap().code(), words.as_str()), (Some(0), ""), "{rest:?}");
    }
}

#[test]
fn a_signal_ends_a_recording_that_nobody_reads() {
    let (reader, writer) = std::io::pipe().unwrap();
    // Full before it begins: not even the header is taken.
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    while (&writer).write(&[0; 4096]).is_ok() {}
    while (&writer).write(&[0]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).unwrap();
    let mut child = Command::new(OBSERVER)
        .args(["--own-netns", "record", "-"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    let pid = child.id();
    // write(2) to a descriptor: its number on x86_64, or on aarch64.
    let waits_to_write = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut calls = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("syscall")).ok());
        calls.any(|call| call.starts_with("1 0x") || call.starts_with("64 0x"))
    };
    while !waits_to_write() {
        assert!(Instant::now() < deadline, "it does not wait for its reader");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{words}");
    assert!(words.contains("standard output does not take it"), "{words}");
    drop(reader);
}
