//! What the options of the unit leave in sight, and what stricter ones take.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{change, journal, machine, start, wait_for_state};
use crate::{machine::Machine, runtimes::wait_until};

/// TIME_WAIT sockets last a minute.
const PATIENCE: Duration = Duration::from_secs(40);

const SOCKET: &str = "/run/observer/metrics.sock";
const SOCKET_OF_PLAIN: &str = "/run/plain.sock";
const LISTEN: &str = "Environment=OBSERVER_ARGS=--listen=unix:/run/observer/metrics.sock";

/// A service in a namespace with a client and five TIME_WAIT sockets that keep their ports; and a namespace that only a
/// socket of systemd is in.
const SCENE: &str = "set -e; cd /run/systemd/system
for name in busy held; do ip netns add $name; ip -n $name link set lo up; done
ip netns exec busy sysctl -qw net.ipv4.tcp_tw_reuse=0
printf '[Service]\\nNetworkNamespacePath=/run/netns/busy\\nExecStart=/usr/bin/busybox httpd -f -p 127.0.0.1:7000\\n' > web.service
printf '[Service]\\nNetworkNamespacePath=/run/netns/busy\\nExecStart=/bin/sh -c \"sleep infinity | busybox nc 127.0.0.1 7000\"\\n' > client.service
printf '[Service]\\nExecStart=/bin/true\\n' > held.service
printf '[Socket]\\nNetworkNamespacePath=/run/netns/held\\nListenStream=127.0.0.1:7001\\n' > held.socket
systemctl daemon-reload; systemctl start web held.socket
stat --format=%i /run/netns/held > /run/held; ip netns del held
until ip netns exec busy ss -Htln | grep -q :7000; do :; done
for number in 1 2 3 4 5; do ip netns exec busy busybox nc 127.0.0.1 7000 < /dev/null; done
systemctl start client; until ip netns exec busy ss -Htn state established | grep -q :7000; do :; done";

fn snapshot(machine: &Machine, socket: &str) -> Value {
    let text = machine.run(&["curl", "-sSf", "--unix-socket", socket, "http://observer/snapshot"]);
    serde_json::from_str(&text).unwrap()
}

fn page(machine: &Machine) -> String {
    machine.output(&["curl", "-sS", "--unix-socket", SOCKET, "http://observer/"])
}

fn rows<'a>(snapshot: &'a Value, of: &str) -> impl Iterator<Item = &'a Value> {
    snapshot[of].as_array().unwrap().iter()
}

/// These members of an object.
fn members(of: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), of[*name].clone())).collect()
}

/// The namespaces of the machine: its own, and those of the scene. Hooks see those of other tests, too.
fn namespaces(machine: &Machine) -> [u64; 3] {
    ["stat --dereference --format=%i /proc/1/ns/net", "stat --format=%i /run/netns/busy", "cat /run/held"]
        .map(|words| machine.run(&words.split(' ').collect::<Vec<_>>()).trim().parse().unwrap())
}

/// What does not depend on when an observer started, without the observers themselves and without what is outside.
fn facts(snapshot: &Value, inside: &[u64]) -> BTreeSet<String> {
    const NAMESPACE: [&str; 7] =
        ["netns", "port_range", "reserved_ports", "blocked_ports", "tcp_tw_reuse", "established", "time_wait"];
    const ENDPOINT: [&str; 11] = [
        "netns",
        "local_ip",
        "local_port",
        "listening",
        "listeners",
        "sockets",
        "states",
        "process",
        "owners",
        "service",
        "orphans",
    ];
    // Processes without a service are those that ask.
    let is_other = |row: &&Value| match row["process"]["comm"].as_str() {
        Some(comm) => !comm.starts_with("observer") && row["service"].is_object(),
        None => true,
    };
    let is_inside = |row: &&Value| {
        row["netns"].as_u64().is_none_or(|netns| inside.contains(&netns))
            && row["process"]["outside_pid_namespace"] != true
    };
    let namespaces = rows(snapshot, "namespaces").filter(is_inside).map(|row| members(row, &NAMESPACE));
    let endpoints = rows(snapshot, "endpoints").filter(is_inside).map(|row| {
        let none = Vec::new();
        let destinations = row["destinations"].as_array().unwrap_or(&none).iter();
        let destinations: Vec<Value> =
            destinations.map(|it| members(it, &["remote_ip", "remote_port", "ports"])).collect();
        json!([members(row, &ENDPOINT), destinations])
    });
    let limits = rows(snapshot, "limits").filter(is_other).filter(is_inside).map(|row| {
        let of = members(row, &["kind", "scope", "netns", "process", "service"]);
        // Open files of processes do not change here; those of the host, and its memory, do.
        let numbers = members(row, if row["kind"] == "process_files" { &["used", "maximum"] } else { &[] });
        json!([of, numbers])
    });
    let quality = [members(&snapshot["quality"], &["hooks", "unread"])];
    namespaces.chain(endpoints).chain(limits).chain(quality).map(|fact| fact.to_string()).collect()
}

/// Whether a snapshot shows what ss and /proc show of the scene; else what differs.
fn compare(machine: &Machine, snapshot: &Value, inside: &[u64; 3]) -> Result<(), String> {
    let run = |words: &str| machine.run(&["sh", "-c", &format!("ip netns exec busy {words}")]);
    let [_, netns, held] = *inside;
    let listener = run("ss -Htlnp");
    let pid: u64 = listener.split("pid=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    let count = |state: &str| run(&format!("ss -Htn state {state}")).lines().count();
    let (established, waiting) = (count("established"), count("time-wait"));
    let check = |name: &str, is: bool, row: Option<&Value>| if is { Ok(()) } else { Err(format!("{name}: {row:#?}")) };

    let row = rows(snapshot, "namespaces").find(|row| row["netns"] == netns);
    let is = row.is_some_and(|row| row["established"] == established && row["time_wait"] == waiting);
    check("counts", is, row)?;
    let row = rows(snapshot, "endpoints").find(|row| row["netns"] == netns && row["local_port"] == 7000);
    let is = |row: &Value| row["listeners"][0]["pid"] == pid && row["service"]["unit"] == "web.service";
    check("listener", row.is_some_and(is), row)?;
    let row = rows(snapshot, "endpoints").find(|row| row["netns"] == netns && row["destinations"].is_array());
    // One connection of the client, and what ss shows.
    let left = 60_999 - 32_768 + 1 - 1 - waiting;
    let is =
        |row: &Value| row["destinations"][0]["ports"]["left"] == left && row["service"]["unit"] == "client.service";
    check("ports left", row.is_some_and(is), row)?;
    // With that which accept() has taken and not opened yet: it counts.
    let files = machine.run(&["stat", "--format=%s", &format!("/proc/{pid}/fd/")]);
    let files: u64 = files.trim().parse().unwrap();
    let row = rows(snapshot, "limits").find(|row| row["kind"] == "process_files" && row["process"]["pid"] == pid);
    check("open files", row.is_some_and(|row| row["used"] == files), row)?;
    // The namespace that nothing but a socket leads to.
    let row = rows(snapshot, "endpoints").find(|row| row["netns"] == held && row["local_port"] == 7001);
    check("listener of systemd", row.is_some_and(|row| row["listeners"][0]["pid"] == 1), row)?;
    let row = rows(snapshot, "namespaces").find(|row| row["netns"] == held);
    check("ports of its namespace", row.is_some_and(|row| row["port_range"].is_array()), row)
}

#[test]
fn with_all_options_the_service_sees_what_it_sees_without_any() {
    let machine = machine("options");
    machine.run(&["timeout", "60", "sh", "-c", SCENE]);
    // Beside what the unit gives: the right to the namespace that only a socket is in.
    let net_admin = "CapabilityBoundingSet=CAP_NET_ADMIN\nAmbientCapabilities=CAP_NET_ADMIN";
    change(&machine, &format!("{LISTEN}\n{net_admin}"));
    start(&machine, "observer");
    let listen = format!("--listen=unix:{SOCKET_OF_PLAIN}");
    machine.run(&["systemd-run", "--unit=plain", "--property=Type=notify", "/usr/bin/observer", "serve", &listen]);
    let inside = namespaces(&machine);
    eventually("both are equal to ss", || {
        let (hardened, plain) = (snapshot(&machine, SOCKET), snapshot(&machine, SOCKET_OF_PLAIN));
        compare(&machine, &plain, &inside)?;
        compare(&machine, &hardened, &inside)?;
        let (hardened, plain) = (facts(&hardened, &inside), facts(&plain, &inside));
        let differ: Vec<&String> = hardened.symmetric_difference(&plain).collect();
        if differ.is_empty() { Ok(()) } else { Err(format!("{differ:#?}")) }
    });
    let page = page(&machine);
    assert!(page.contains("few system calls"), "{page}");
    assert!(!page.contains("supplementary groups"), "{page}");
}

/// An option that takes what observer uses.
struct Takes {
    option: &'static str,
    /// What it then says on its page and in the journal; JSON has the kind.
    said: &'static str,
    kind: &'static str,
    /// doctor reads no descriptors, and does not learn of namespaces that only sockets are in.
    by_doctor: bool,
}

const fn takes(option: &'static str, kind: &'static str, said: &'static str) -> Takes {
    Takes { option, said, kind, by_doctor: true }
}

const TAKES: [Takes; 7] = [
    // The unit as it is: CAP_NET_ADMIN would open a namespace that nothing but a socket is in.
    Takes { by_doctor: false, ..takes("", "namespaces", "1 namespace not entered (EPERM)") },
    Takes {
        by_doctor: false,
        ..takes("SystemCallFilter=~pidfd_getfd", "namespaces", "1 namespace not entered (EPERM)")
    },
    takes("RestrictNamespaces=yes", "namespaces", "not entered (EPERM)"),
    takes("CapabilityBoundingSet=~CAP_SYS_ADMIN", "namespaces", "not entered (EPERM)"),
    takes("CapabilityBoundingSet=~CAP_SYS_PTRACE", "hidden_processes", "processes of other users hidden (hidepid)"),
    takes("CapabilityBoundingSet=~CAP_DAC_READ_SEARCH", "files", "1 kernel file not read (EACCES)"),
    takes("ProcSubset=pid", "files", "not read (ENOENT)"),
];

/// Options with which it cannot start, and what the journal then has.
const FORBIDS: [(&str, &str); 3] = [
    ("PrivateUsers=yes", "the kernel allows no BPF in a user namespace"),
    ("SystemCallFilter=\nSystemCallFilter=@system-service", "a seccomp filter is active"),
    ("CapabilityBoundingSet=~CAP_PERFMON CAP_SYS_ADMIN", "CAP_PERFMON"),
];

#[test]
fn what_a_stricter_option_takes_is_said() {
    let machine = machine("stricter");
    machine.run(&["timeout", "60", "sh", "-c", SCENE]);
    for Takes { option, said: sentence, kind, by_doctor } in TAKES {
        change(&machine, &format!("{LISTEN}\n{option}"));
        machine.run(&["systemctl", "restart", "observer"]);
        eventually(option, || {
            let page = page(&machine);
            if page.contains(sentence) { Ok(()) } else { Err(page) }
        });
        if !by_doctor {
            // A namespace is not forgotten where it is refused.
            let scans = || snapshot(&machine, SOCKET)["quality"]["scans_total"].as_u64().unwrap();
            let before = scans();
            wait_until("scans", || scans() > before + 2);
        }
        let snapshot = snapshot(&machine, SOCKET);
        let unread = snapshot["quality"]["unread"].as_array().unwrap();
        assert!(unread.iter().any(|row| row["kind"] == kind), "{option}: {unread:#?}");
        assert!(journal(&machine).contains(sentence), "{option}: {}", journal(&machine));
        machine.run(&["systemctl", "stop", "observer"]);
        if !by_doctor {
            continue;
        }
        // doctor under the same options.
        let doctor = "Type=oneshot\nRestart=no\nExecStart=\nExecStart=-/usr/bin/observer doctor";
        change(&machine, &format!("{doctor}\n{option}"));
        machine.run(&["sh", "-c", "journalctl --rotate --vacuum-time=1s 2> /dev/null"]);
        machine.run(&["systemctl", "start", "observer"]);
        // It wraps its lines.
        let words = journal(&machine).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(sentence), "{option}: {words}");
    }
    for (option, sentence) in FORBIDS {
        change(&machine, &format!("Restart=no\n{option}"));
        let started = machine.try_run(&["systemctl", "start", "observer"]).unwrap();
        assert!(!started.status.success(), "{option}");
        wait_for_state(&machine, "failed");
        assert!(journal(&machine).contains(sentence), "{option}: {}", journal(&machine));
        machine.run(&["systemctl", "reset-failed", "observer"]);
    }
}

/// Waits until `check` passes; its last error is the message.
#[track_caller]
fn eventually(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(differs) = check() {
        assert!(Instant::now() < deadline, "{what}: {differs}");
    }
}
