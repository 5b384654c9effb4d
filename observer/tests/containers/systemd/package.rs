//! The Debian package on a clean Debian: installed, started, used, purged.

use std::collections::BTreeSet;

use super::{METRICS, assert_the_group_sees_the_screen, journal, property, start};
use crate::{
    machine::Machine,
    runtimes::{artefact, wait_until},
};

/// Every file with its mode, owner and size, but for what apt, dpkg and systemd keep of their own work, and the earlier files of
/// groups.
fn files(machine: &Machine) -> BTreeSet<String> {
    const FIND: &str = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
        -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/systemd \
        -o -path /var/tmp -o -path /etc/group- -o -path /etc/gshadow- \\) -prune -o ! -type d -printf '%p %M %u:%g %s\\n' -o -type d -printf '%p %M %u:%g\\n'";
    machine.run(&["sh", "-c", FIND]).lines().map(str::to_owned).collect()
}

#[test]
fn it_is_installed_started_used_and_purged_and_leaves_nothing() {
    let machine = Machine::debian("package", &[(artefact(".deb"), "/srv/observer.deb")]);
    machine.run(&["useradd", "--no-create-home", "ordinary"]);
    let before = files(&machine);
    machine.run(&["dpkg", "--install", "/srv/observer.deb"]);
    for (unit, state) in [("observer.service", "disabled"), ("observer.socket", "disabled")] {
        assert_eq!(machine.output(&["systemctl", "is-enabled", unit]).trim(), state, "{unit}");
        assert_eq!(property(&machine, unit, "ActiveState"), "inactive", "{unit}");
    }
    start(&machine, "observer");
    let metrics = machine.run(&["curl", "-sSf", METRICS]);
    assert!(metrics.contains("observer_build_info{"), "{metrics}");
    assert!(metrics.contains("observer_listener_sockets{"), "{metrics}");
    assert_eq!(property(&machine, "observer", "StatusText"), "serving on http://127.0.0.1:28232");
    assert!(journal(&machine).contains("serving on http://127.0.0.1:28232"));

    assert_the_group_sees_the_screen(&machine);

    // With changed settings, and what a recorder has kept.
    let settings = "s/^#\\(OBSERVER_ARGS=--recorder=\\)/\\1/";
    machine.run(&["sed", "--in-place", settings, "/etc/default/observer"]);
    machine.run(&["systemctl", "restart", "observer"]);
    let kept = || machine.output(&["find", "/var/lib/observer/recorder/", "-name", "*.obs.part"]);
    wait_until("the recorder writes", || kept().lines().any(|line| line.ends_with(".obs.part")));

    // While it runs.
    machine.run(&["apt-get", "--yes", "--quiet", "purge", "observer"]);
    assert_eq!(property(&machine, "observer", "LoadState"), "not-found");
    assert_eq!(machine.first_pid("system.slice/observer.service"), None, "it runs on");
    assert_eq!(machine.output(&["getent", "group", "observer"]), "");
    assert!(!machine.try_run(&["test", "-e", "/run/observer"]).unwrap().status.success());
    let after = files(&machine);
    let left: Vec<&String> = after.symmetric_difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
}
