//! `observer limits` and `observer check`, run as users and monitoring systems run them. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::Value;

const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");

fn observer(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs `test` on a thread in a new network namespace with `lo` up; programs that it starts are in there too.
fn in_private_netns(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(|| {
        // SAFETY: only this thread's network namespace is split off; no file table is.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("these tests need root");
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        test();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn sysctl(name: &str) -> u64 {
    fs::read_to_string(format!("/proc/sys/{name}")).unwrap().trim().parse().unwrap()
}

/// A range of 100 ports, and so many of them taken towards one destination.
fn take_ports(count: usize) -> (TcpListener, Vec<TcpStream>) {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
    let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
    let clients = (0..count).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
    (listener, clients)
}

#[test]
fn limits_has_the_arithmetic_of_this_host() {
    in_private_netns(|| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20999").unwrap();
        fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "20100-20199,30000").unwrap();
        for args in ["link add d0 type veth peer name d1", "addr add 10.9.0.1/24 dev d0", "addr add 10.9.0.2/24 dev d0"]
        {
            assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
        }
        let output = observer(&["limits", "--own-netns", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["schema"], 1);
        let is = |name: &str, expected: Value| assert_eq!(json["arithmetic"][name], expected, "{name}");
        is("connections_over_ipv4", 2_u128.pow(96).to_string().into());
        is("connections_of_a_local_ip", 2_u128.pow(64).to_string().into());
        is("connections_of_a_local_endpoint", 2_u64.pow(48).into());
        is("connections_of_a_local_endpoint_with_a_remote_ip", 65_536.into());
        is("port_range", vec![20_000, 20_999].into());
        is("usable_ports", 900.into());
        is("reserved_ports", 100.into());
        is("local_ipv4", 2.into());
        is("connections_to_an_ipv4_destination", 1_800.into());
        is("nr_open", sysctl("fs/nr_open").into());
        let limits = Command::new("sh").args(["-c", "ulimit -Sn; ulimit -Hn"]).output().unwrap();
        let limits: Vec<u64> = printed(&limits).lines().map(|line| line.parse().unwrap()).collect();
        is("own_soft_nofile", limits[0].into());
        is("own_hard_nofile", limits[1].into());
    });
}

#[test]
fn a_wall_says_all_that_is_asked_of_it() {
    in_private_netns(|| {
        let held = take_ports(81);
        for args in [["limits", "--own-netns", "--json"], ["snapshot", "--own-netns", "--json"]] {
            let json: Value = serde_json::from_slice(&observer(&args).stdout).unwrap();
            let walls = json["walls"].as_array().unwrap();
            let ports = walls.iter().find(|wall| wall["kind"] == "ports").unwrap();
            assert_eq!((&ports["used"], &ports["maximum"], &ports["ratio"]), (&81.into(), &100.into(), &0.81.into()));
            assert_eq!((&ports["local_ip"], &ports["remote_port"]), (&"127.0.0.1".into(), &7_000.into()));
            for wall in walls {
                for field in ["kind", "scope", "unit", "source", "refusal", "remedy", "risk"] {
                    assert!(wall[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {wall}");
                }
            }
            assert_eq!(json["findings"], Value::Array(vec![]));
        }
        let text = printed(&observer(&["limits", "--own-netns"]));
        for words in ["127.0.0.1 → 127.0.0.1:7000", "net.ipv4.ip_local_port_range", "2^96", "40000-40099", "fs.nr_open"]
        {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        drop(held);
    });
}

/// The numbers behind the `|`, by label.
fn performance(line: &str) -> BTreeMap<String, Vec<u64>> {
    let (_, data) = line.trim_end().split_once(" | ").unwrap_or_else(|| panic!("no performance data: {line}"));
    let label_and_numbers = |part: &str| {
        let (label, numbers) = part.split_once('=').unwrap();
        (label.trim_matches('\'').to_owned(), numbers.split(';').map(|number| number.parse().unwrap()).collect())
    };
    data.split(' ').map(label_and_numbers).collect()
}

#[test]
fn check_is_ok_warning_or_critical_by_its_thresholds() {
    in_private_netns(|| {
        let held = take_ports(90);
        // Other walls of this machine are far from 89 %.
        for (warn, crit, code, word) in [
            ("91", "95", 0, "OK"),
            ("90", "91", 1, "WARNING"),
            ("80", "90", 2, "CRITICAL"),
            ("89", "89", 2, "CRITICAL"),
        ] {
            let output = observer(&["check", "--own-netns", "--warn", warn, "--crit", crit]);
            let line = printed(&output);
            assert_eq!(output.status.code(), Some(code), "{line}{output:?}");
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.starts_with(&format!("OBSERVER {word} - ")), "{line}");
            assert!(line.contains("ports 127.0.0.1 → 127.0.0.1:7000 90 % (90/100)"), "{line}");
            let [warn, crit] = [warn, crit].map(|percent| percent.parse::<u64>().unwrap() - 1);
            let data = performance(&line);
            assert_eq!(data["ports"], [90, warn, crit, 0, 100]);
            assert!(data.contains_key("process_files") && data.contains_key("time_wait"), "{line}");
        }
        drop(held);
    });
}

#[test]
fn check_does_not_know_where_it_cannot_see() {
    let unknown = |output: &Output, words: &str| {
        let line = printed(output);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(line.starts_with("OBSERVER UNKNOWN - ") && line.contains(words), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    };
    unknown(&observer(&["check", "--warn", "90", "--crit", "80"]), "--warn 90 is above --crit 80");
    unknown(&observer(&["check", "--warn", "0"]), "not 1 to 100");
    unknown(&observer(&["check", "--no-such-flag"]), "--no-such-flag");
    unknown(&observer(&["check", "--log-file", "/no/such/dir/log"]), "open the log file");
    let without_rights = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin,-perfmon", "--inh-caps=-sys_admin,-perfmon"])
        .args([OBSERVER, "check"])
        .output()
        .unwrap();
    unknown(&without_rights, "CAP_PERFMON");
    let help = observer(&["check", "--help"]);
    assert_eq!(help.status.code(), Some(3), "as the guidelines have it");
    assert!(printed(&help).contains("0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN"), "{help:?}");
    // Of other commands the codes stay what they are.
    assert_eq!(observer(&["limits", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(observer(&["--help"]).status.code(), Some(0));
}
