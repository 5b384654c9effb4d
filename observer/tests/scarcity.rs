//! The program where the system refuses it something: descriptors, threads, memory, /proc, bpf(). A session goes on, a
//! check always says its line, and every error names what was attempted and the errno. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[path = "program/limit.rs"]
mod limit;
#[path = "program/namespace.rs"]
mod namespace;
mod program;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::{
    limit::limit_descriptors,
    namespace::another_namespace,
    program::{OBSERVER, copy_for_everyone},
};

const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// What a shell makes of `script`, in which `$0` is the program.
fn shell(script: &str) -> Output {
    Command::new("sh").args(["-c", script, OBSERVER]).stdin(Stdio::null()).output().unwrap()
}

/// The one line of a check, whose exit status belongs to its first words.
#[track_caller]
fn line_of_check(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{output:?}");
    let word = text.split_whitespace().nth(1).unwrap_or_default();
    let code = ["OK", "WARNING", "CRITICAL", "UNKNOWN"].iter().position(|it| *it == word);
    assert!(text.starts_with("OBSERVER ") && code.is_some(), "{output:?}");
    assert_eq!(output.status.code(), code.map(|code| i32::try_from(code).unwrap()), "{output:?}");
    text
}

/// The one sentence of a failure.
#[track_caller]
fn sentence(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{output:?}");
    text
}

/// Text without its line ends: words may stand on either side of one.
fn one_line(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_says(text: &str, words: &[&str], not: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    for word in not {
        assert!(!text.contains(word), "{word:?} in: {text}");
    }
}

#[test]
fn a_check_says_its_line_however_few_descriptors_there_are() {
    for limit in [4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 28, 32, 40, 64] {
        line_of_check(&shell(&format!("ulimit -n {limit}; exec \"$0\" check --own-netns")));
    }
    let line = line_of_check(&shell("ulimit -n 8; exec \"$0\" check"));
    assert_says(&line, &["UNKNOWN", "EMFILE (Too many open files)", "ulimit -n"], &["ulimit -l"]);
}

#[test]
fn a_check_says_its_line_however_little_memory_there_is() {
    for kilobytes in [20_000, 24_000, 28_000, 32_000, 40_000, 60_000, 100_000] {
        line_of_check(&shell(&format!("ulimit -v {kilobytes}; exec \"$0\" check --own-netns")));
    }
}

#[test]
fn a_doctor_without_descriptors_for_every_hook_says_which_and_asks_for_descriptors() {
    let mut seen = 0;
    for limit in 20..40 {
        let doctor = shell(&format!("ulimit -n {limit}; exec \"$0\" doctor"));
        let text = one_line(&doctor.stdout);
        if !text.contains("MISSING") {
            continue;
        }
        seen += 1;
        assert_eq!(doctor.status.code(), Some(1), "{limit}: {text}");
        let (_, verdict) = text.rsplit_once(" because ").unwrap();
        assert_says(verdict, &["not ready", "attach the", "EMFILE (Too many open files)", "ulimit -n"], &[]);
        assert_says(&text, &[], &["mount tracefs"]);
    }
    assert!(seen > 0, "no limit made a hook missing");
}

#[test]
fn a_check_names_the_hooks_that_it_lacks() {
    let lines =
        (20..40).map(|limit| line_of_check(&shell(&format!("ulimit -n {limit}; exec \"$0\" check --own-netns"))));
    let lines: Vec<String> = lines.collect();
    assert!(lines.iter().any(|line| line.contains("missing: ") && line.contains("failures")), "{lines:#?}");
}

#[test]
fn generated_text_ends_without_a_panic_where_nothing_takes_it() {
    for command in ["completions bash", "completions zsh", "man"] {
        let full = sentence(&shell(&format!("\"$0\" {command} >/dev/full")));
        assert_says(&full, &["write to standard output: ENOSPC (No space left on device)"], &["panicked"]);
        let gone = shell(&format!("\"$0\" {command} | true"));
        assert_says(&String::from_utf8(gone.stderr).unwrap(), &[], &["panicked"]);
    }
}

#[test]
fn too_few_descriptors_are_blamed_on_descriptors() {
    for command in ["snapshot", "limits", "watch -n 1"] {
        let output = shell(&format!("ulimit -n 12; exec \"$0\" {command}"));
        assert_says(&sentence(&output), &["EMFILE (Too many open files)", "ulimit -n"], &["ulimit -l", "os error"]);
    }
}

#[test]
fn a_recording_without_descriptors_fails_in_one_sentence() {
    for limit in [4, 5, 6, 8, 10, 16] {
        let output = shell(&format!("ulimit -n {limit}; exec \"$0\" record /tmp/observer-e-$$ --for 0.1"));
        assert_says(&sentence(&output), &["EMFILE (Too many open files)"], &["panicked"]);
    }
}

#[test]
fn without_proc_it_says_what_to_mount() {
    let without = |command: &str| {
        let script = format!("umount -l /proc && exec {OBSERVER} {command}");
        Command::new("unshare").args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap()
    };
    assert_says(&line_of_check(&without("check")), &["UNKNOWN", "/proc", "ENOENT", "mount"], &[]);
    let doctor = without("doctor");
    assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");
    assert_says(&one_line(&doctor.stdout), &["not ready", "ENOENT", "mount"], &[]);
    for command in ["snapshot", "limits", "watch -n 1"] {
        assert_says(&sentence(&without(command)), &["/proc", "ENOENT (No such file or directory)", "mount"], &[]);
    }
}

#[test]
fn missing_btf_and_unreadable_btf_are_distinguished() {
    let (_dir, copy) = copy_for_everyone();
    let with_btf = |setup: &str, user: &str| {
        let script =
            format!("mount -t tmpfs none /sys/kernel/btf && {setup} && exec {user} {} snapshot", copy.display());
        Command::new("unshare").args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap()
    };
    let missing = sentence(&with_btf("true", ""));
    assert_says(&missing, &["/sys/kernel/btf/vmlinux", "ENOENT", "CONFIG_DEBUG_INFO_BTF"], &[]);
    let nobody = format!(
        "setpriv {} --inh-caps=-all,+bpf,+perfmon --ambient-caps=-all,+bpf,+perfmon --bounding-set=-all,+bpf,+perfmon",
        NOBODY.join(" ")
    );
    let closed =
        sentence(&with_btf("cat /dev/null > /sys/kernel/btf/vmlinux && chmod 0 /sys/kernel/btf/vmlinux", &nobody));
    assert_says(&closed, &["read /sys/kernel/btf/vmlinux", "EACCES (Permission denied)"], &["CONFIG_DEBUG_INFO_BTF"]);
}

/// Lets a system call fail with an errno, as the default profiles of container engines do.
fn refuse(command: &mut Command, call: libc::c_long, errno: i32) -> &mut Command {
    // struct sock_filter: load the number of the call; if it is this one, return the errno; else allow.
    let (number, answer) = (u32::try_from(call).unwrap(), 0x0005_0000 | u32::try_from(errno).unwrap());
    let filter = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, answer), (0x06, 0, 0, 0x7FFF_0000)];
    let filter = filter.map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
    let install = move || {
        let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
        // SAFETY: PR_SET_SECCOMP copies the program, whose four instructions are alive in the closure.
        let status = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: prctl() is async-signal-safe, and nothing is allocated.
    unsafe { command.pre_exec(install) }
}

#[test]
fn a_refusal_by_seccomp_is_named() {
    let with_bpf_refused =
        |command: &str, errno| refuse(Command::new(OBSERVER).arg(command), libc::SYS_bpf, errno).output().unwrap();
    let snapshot = with_bpf_refused("snapshot", libc::EPERM);
    assert_says(&sentence(&snapshot), &["EPERM (Operation not permitted)", "seccomp"], &["os error", "ulimit -n"]);
    let check = with_bpf_refused("check", libc::EPERM);
    assert_says(&line_of_check(&check), &["UNKNOWN", "EPERM", "seccomp"], &[]);
    // Another errno has another cause, whatever else is in force.
    let check = with_bpf_refused("check", libc::ENOMEM);
    assert_says(&line_of_check(&check), &["UNKNOWN", "ENOMEM", "memory is short"], &["seccomp"]);
}

#[test]
fn a_thread_that_is_refused_is_an_error_and_no_panic() {
    let mut other = another_namespace();
    let without_threads = |args: &[&str]| {
        let mut command = Command::new(OBSERVER);
        command.args(args);
        for call in [libc::SYS_clone3, libc::SYS_clone] {
            refuse(&mut command, call, libc::EAGAIN);
        }
        command.output().unwrap()
    };
    let line = line_of_check(&without_threads(&["check"]));
    assert_says(&line, &["UNKNOWN", "enter network namespace", "EAGAIN (Resource temporarily unavailable)"], &[]);
    let file = std::env::temp_dir().join(format!("observer-e-{}", std::process::id()));
    let path = file.to_str().unwrap();
    let record = sentence(&without_threads(&["record", path, "--own-netns", "--for", "0.1"]));
    assert_says(&record, &["EAGAIN (Resource temporarily unavailable)"], &["panicked"]);
    // The failed start may have left its file.
    let _ = fs::remove_file(file);
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn a_recording_goes_on_without_descriptors_and_keeps_what_was_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recording");
    let path = file.to_str().unwrap();
    let mut child = Command::new(OBSERVER)
        .args(["--own-netns", "record", path, "--for", "5"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The header comes at the start; what follows it comes from an engine that has had its first look.
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut written = Vec::new();
    while written.len() < 3 {
        assert!(Instant::now() < deadline, "nothing was recorded");
        let length = fs::metadata(&file).map_or(0, |it| it.len());
        if written.last() != Some(&length) {
            written.push(length);
        }
        thread::yield_now();
    }
    limit_descriptors(child.id(), 3);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let replayed = Command::new(OBSERVER).args(["replay", "--json", path]).output().unwrap();
    let json: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert!(json["quality"]["skipped_rounds_total"].as_u64().unwrap() > 0, "{json:#}");
    assert_eq!(json["quality"]["last_skip"]["errno"], "EMFILE");
}

#[test]
fn where_no_thread_can_be_started_a_check_still_says_its_line() {
    let (_dir, copy) = copy_for_everyone();
    let only = "-all,+bpf,+perfmon";
    let output = Command::new("setpriv")
        .args(NOBODY)
        .args([format!("--inh-caps={only}"), format!("--ambient-caps={only}"), format!("--bounding-set={only}")])
        .args(["prlimit", "--nproc=1"])
        .arg(&copy)
        .arg("check")
        .output()
        .unwrap();
    line_of_check(&output);
}

/// `observer watch` in the calling thread's namespace, line by line.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watch {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(OBSERVER);
        command.args(["watch", "--interval", "0.1"]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The first line that is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut last = Value::Null;
        for line in &mut self.lines {
            last = serde_json::from_str(&line.unwrap()).unwrap();
            if wanted(&last) {
                return last;
            }
            assert!(Instant::now() < deadline, "not seen: {what}: {last:#}");
        }
        panic!("the session ended before {what}: {last:#}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn established(json: &Value) -> u64 {
    let rows = json["endpoints"].as_array().unwrap().iter();
    rows.map(|row| row["states"]["established"].as_u64().unwrap_or(0)).sum()
}

#[test]
fn a_session_without_descriptors_skips_rounds_and_goes_on_when_there_are_some() {
    let outcome = thread::spawn(|| {
        // SAFETY: only this thread's network namespace is split off; no file table is.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("these tests need root");
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        for args in [&["--own-netns"][..], &[]] {
            goes_on(args);
        }
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

fn goes_on(args: &[&str]) {
    let own = u64::from(observer::host::netns::current().unwrap().0);
    let in_own = |json: &Value| {
        let mut json = json.clone();
        json["endpoints"].as_array_mut().unwrap().retain(|row| row["netns"] == own);
        json
    };
    let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
    let pairs = |count| -> Vec<(TcpStream, TcpStream)> {
        let pair = |_| (TcpStream::connect("127.0.0.1:7000").unwrap(), listener.accept().unwrap().0);
        (0..count).map(pair).collect()
    };
    let before = pairs(5);
    let mut watch = Watch::start(args);
    let first = watch.until("10 sockets", |json| established(&in_own(json)) == 10);
    assert_eq!(first["quality"]["skipped_rounds_total"], 0);
    let range = |json: &Value| {
        let rows = json["namespaces"].as_array().unwrap();
        rows.iter().find(|row| row["netns"] == own).map(|row| row["port_range"].clone())
    };
    let limit = limit_descriptors(watch.child.id(), 3);
    let skipped = |json: &Value| json["quality"]["skipped_rounds_total"].as_u64().unwrap();
    let starved = watch.until("rounds that are skipped", |json| skipped(json) >= 4);
    assert_eq!(starved["quality"]["last_skip"]["errno"], "EMFILE", "{starved:#}");
    assert_eq!(range(&starved), range(&first), "what was known of the namespace stays known");
    assert_eq!(starved["limits"].as_array().unwrap().len(), first["limits"].as_array().unwrap().len());
    // Hooks need no descriptors: what happens meanwhile is seen.
    let meanwhile = pairs(3);
    watch.until("16 sockets", |json| established(&in_own(json)) == 16);
    let scans = starved["quality"]["scans_total"].as_u64().unwrap();
    limit_descriptors(watch.child.id(), limit);
    let after = watch.until("two more scans", |json| json["quality"]["scans_total"].as_u64().unwrap() >= scans + 2);
    assert_eq!(established(&in_own(&after)), 16);
    let ss = Command::new("ss").args(["-Htn", "state", "established"]).output().unwrap();
    assert_eq!(String::from_utf8(ss.stdout).unwrap().lines().count(), 16);
    let stays = skipped(&after);
    let scans = after["quality"]["scans_total"].as_u64().unwrap();
    let later = watch.until("another scan", |json| json["quality"]["scans_total"].as_u64().unwrap() > scans);
    assert_eq!(skipped(&later), stays, "nothing is skipped any more");
    drop((before, meanwhile));
}
