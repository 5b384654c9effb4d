//! The files of packaging/systemd where systemd is the first process: what systemd, `systemd-analyze security`, curl, the
//! journal, ss and /proc say.

mod options;
mod package;
mod service;

use std::path::{Path, PathBuf};

use crate::{machine::Machine, runtimes::wait_until, terminal::Terminal};

const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
const METRICS: &str = "http://127.0.0.1:28232/metrics";

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd").join(name)
}

/// A machine with the program and the files where the packages put them.
fn machine(what: &str) -> Machine {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let binds = [
        (PathBuf::from(OBSERVER), "/usr/bin/observer"),
        (packaging("observer.service"), "/usr/lib/systemd/system/observer.service"),
        (packaging("observer.socket"), "/usr/lib/systemd/system/observer.socket"),
        (packaging("sysusers.conf"), "/usr/lib/sysusers.d/observer.conf"),
        (packaging("own-netns.conf"), "/usr/share/doc/observer/examples/own-netns.conf"),
        (PathBuf::from(busybox.expect("busybox is needed (Debian package busybox-static)")), "/usr/bin/busybox"),
    ];
    Machine::debian(what, &binds)
}

/// A property of a unit.
fn property(machine: &Machine, unit: &str, name: &str) -> String {
    machine.run(&["systemctl", "show", "--value", "--property", name, unit]).trim().to_owned()
}

/// Starts a unit; what it said is in the message if that fails.
#[track_caller]
fn start(machine: &Machine, unit: &str) {
    let started = machine.try_run(&["systemctl", "start", unit]).unwrap();
    assert!(started.status.success(), "{}", journal(machine));
}

/// All that the service has said, and systemd of it.
fn journal(machine: &Machine) -> String {
    machine.run(&["journalctl", "--sync"]);
    machine.run(&["journalctl", "--no-pager", "--output=cat", "--unit=observer"])
}

/// Puts these lines into the service, beside its own or in their place.
fn change(machine: &Machine, lines: &str) {
    let script = "mkdir -p /run/systemd/system/observer.service.d && \
        printf '[Service]\\n%s\\n' \"$0\" > /run/systemd/system/observer.service.d/test.conf && systemctl daemon-reload";
    machine.run(&["sh", "-c", script, lines]);
}

/// The user `ordinary` runs `observer` without any right: in the group of the service it has the live screen, and before that
/// an error.
fn assert_the_group_sees_the_screen(machine: &Machine) {
    const AS_USER: [&str; 6] = ["setpriv", "--reuid=ordinary", "--regid=ordinary", "--init-groups", "--", "observer"];
    let refused = machine.try_run(&[&AS_USER[..], &["snapshot"]].concat()).unwrap();
    assert!(!refused.status.success() && !refused.stderr.is_empty(), "{refused:?}");
    machine.run(&["usermod", "--append", "--groups", "observer", "ordinary"]);
    let enter = machine.enter().unwrap();
    let words: Vec<&str> = enter.iter().map(String::as_str).chain(AS_USER).collect();
    let mut terminal = Terminal::start(120, 30, words[0], &words[1..], &[("PATH", "/usr/sbin:/usr/bin")]);
    // The listener of the service itself.
    terminal.wait_for_words(&["ATTACHED", "Endpoints", "127.0.0.1:28232"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

/// Waits until the service has this state.
#[track_caller]
fn wait_for_state(machine: &Machine, wanted: &str) {
    wait_until(&format!("observer.service is {wanted}"), || property(machine, "observer", "ActiveState") == wanted);
}
