//! From the start of the service to its end.

use std::fs;

use super::{METRICS, assert_the_group_sees_the_screen, change, journal, machine, property, start, wait_for_state};
use crate::{machine::Machine, runtimes::wait_until};

/// The most exposure, in tenths, that `systemd-analyze security` may find.
const MOST: &str = "28";
const MOST_OF_OWN_NETNS: &str = "17";

fn assert_exposure(machine: &Machine, most: &str) {
    let checked = machine.try_run(&["systemd-analyze", "security", "--threshold", most, "observer"]).unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// A line of /proc/PID/status of the service's first process.
fn status(machine: &Machine, key: &str) -> String {
    let pid = machine.first_pid("system.slice/observer.service").expect("it runs");
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_else(|| panic!("{key}"));
    line.trim().to_owned()
}

#[test]
fn systemd_starts_it_watches_it_and_ends_it() {
    let machine = machine("service");
    assert_exposure(&machine, MOST);
    start(&machine, "observer");
    let metrics = machine.run(&["curl", "-sSf", METRICS]);
    assert!(metrics.contains("observer_build_info{"), "{metrics}");
    assert_eq!(property(&machine, "observer", "StatusText"), "serving on http://127.0.0.1:28232");
    assert!(journal(&machine).contains("observer: serving on http://127.0.0.1:28232"), "{}", journal(&machine));
    let group = machine.run(&["getent", "group", "observer"]);
    let gid = group.split(':').nth(2).unwrap();
    assert_eq!(status(&machine, "Gid"), [gid; 4].join("\t"));
    assert_ne!(status(&machine, "Uid"), ["0"; 4].join("\t"));
    assert_eq!(status(&machine, "NoNewPrivs"), "1");
    let directory = machine.run(&["stat", "--format=%a %G", "/run/observer/"]);
    assert_eq!(directory.trim(), "750 observer");

    // A service that stands still is ended and started again. The watchdog of the unit would take half a minute.
    change(&machine, "WatchdogSec=2\nRestartSec=0");
    machine.run(&["systemctl", "restart", "observer"]);
    let before = property(&machine, "observer", "MainPID");
    machine.run(&["kill", "-STOP", &before]);
    wait_until("the watchdog", || property(&machine, "observer", "NRestarts") == "1");
    wait_for_state(&machine, "active");
    assert_ne!(property(&machine, "observer", "MainPID"), before);
    assert!(journal(&machine).contains("Watchdog timeout"), "{}", journal(&machine));
    machine.run(&["curl", "-sSf", METRICS]);

    machine.run(&["systemctl", "stop", "observer"]);
    assert_eq!(property(&machine, "observer", "Result"), "success");
    assert_eq!(property(&machine, "observer", "ExecMainStatus"), "0");
    assert_eq!(machine.first_pid("system.slice/observer.service"), None, "nothing of it runs");
    assert!(!machine.try_run(&["test", "-e", "/run/observer"]).unwrap().status.success());
}

#[test]
fn the_group_of_the_service_sees_the_live_screen() {
    let machine = machine("group");
    machine.run(&["useradd", "--no-create-home", "ordinary"]);
    start(&machine, "observer");
    let socket = machine.run(&["stat", "--format=%a %G", "/run/observer/attach.sock"]);
    assert_eq!(socket.trim(), "660 observer");
    assert_the_group_sees_the_screen(&machine);
}

#[test]
fn the_first_client_starts_it_where_the_socket_is_enabled() {
    let machine = machine("socket");
    machine.run(&["systemctl", "start", "observer.socket"]);
    assert_eq!(property(&machine, "observer", "ActiveState"), "inactive");
    let metrics = machine.run(&["curl", "-sSf", METRICS]);
    assert!(metrics.contains("observer_build_info{"), "{metrics}");
    assert_eq!(property(&machine, "observer", "ActiveState"), "active");
    assert_eq!(property(&machine, "observer", "StatusText"), "serving on http://127.0.0.1:28232");
    // The socket outlives the service: the next client starts it again.
    machine.run(&["systemctl", "stop", "observer"]);
    machine.run(&["curl", "-sSf", METRICS]);
    assert_eq!(property(&machine, "observer", "NRestarts"), "0");
    assert_eq!(property(&machine, "observer", "ActiveState"), "active");
}

#[test]
fn with_the_drop_in_for_its_own_namespace_it_has_two_capabilities() {
    let machine = machine("own-netns");
    let install = "mkdir -p /etc/systemd/system/observer.service.d && \
        cp /usr/share/doc/observer/examples/own-netns.conf /etc/systemd/system/observer.service.d && \
        systemctl daemon-reload && ip netns add other && systemctl start observer";
    machine.run(&["sh", "-c", install]);
    assert_exposure(&machine, MOST_OF_OWN_NETNS);
    // CAP_PERFMON and CAP_BPF of include/uapi/linux/capability.h.
    assert_eq!(status(&machine, "CapBnd"), format!("{:016x}", 1_u64 << 38 | 1 << 39));
    let metrics = machine.run(&["curl", "-sSf", METRICS]);
    let namespaces = metrics.lines().filter(|line| line.starts_with("observer_netns_info{")).count();
    assert_eq!(namespaces, 1, "{metrics}");
    assert!(metrics.contains("observer_listener_sockets{"), "{metrics}");
    let page = machine.run(&["curl", "-sSf", "http://127.0.0.1:28232/"]);
    assert!(page.contains("processes of other users hidden (hidepid); CAP_SYS_PTRACE would help"), "{page}");
}
