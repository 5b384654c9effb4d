//! `observer limits` and `observer check`, run as users and monitoring systems run them. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
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
        assert_eq!(json["schema"], 2);
        let is = |name: &str, expected: Value| assert_eq!(json["arithmetic"][name], expected, "{name}");
        is("connections_over_ipv4", 2_u128.pow(96).to_string().into());
        is("connections_of_a_local_ip", 2_u128.pow(64).to_string().into());
        is("connections_of_a_local_endpoint", 2_u64.pow(48).into());
        is("connections_of_a_local_endpoint_with_a_remote_ip", 65_536.into());
        is("port_range", vec![20_000, 20_999].into());
        is("usable_ports", 900.into());
        is("reserved_ports", 100.into());
        is("local_ipv4_addresses", 2.into());
        is("connections_to_an_ipv4_destination", 1_800.into());
        is("nr_open", sysctl("fs/nr_open").into());
        let limits = Command::new("sh").args(["-c", "ulimit -Sn; ulimit -Hn"]).output().unwrap();
        let limits: Vec<u64> = printed(&limits).lines().map(|line| line.parse().unwrap()).collect();
        is("own_soft_nofile", limits[0].into());
        is("own_hard_nofile", limits[1].into());
    });
}

#[test]
fn a_limit_has_every_field_that_explains_it() {
    in_private_netns(|| {
        let held = take_ports(81);
        for args in [["limits", "--own-netns", "--json"], ["snapshot", "--own-netns", "--json"]] {
            let json: Value = serde_json::from_slice(&observer(&args).stdout).unwrap();
            let limits = json["limits"].as_array().unwrap();
            let ports = limits.iter().find(|limit| limit["kind"] == "ports").unwrap();
            assert_eq!((&ports["used"], &ports["maximum"], &ports["ratio"]), (&81.into(), &100.into(), &0.81.into()));
            assert_eq!((&ports["local_ip"], &ports["remote_port"]), (&"127.0.0.1".into(), &7_000.into()));
            for limit in limits {
                for field in ["kind", "scope", "unit", "source", "refusal", "remedy", "risk"] {
                    assert!(limit[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {limit}");
                }
            }
            assert_eq!(json["findings"], Value::Array(vec![]));
        }
        let text = printed(&observer(&["limits", "--own-netns"]));
        for words in ["127.0.0.1 → 127.0.0.1:7000", "net.ipv4.ip_local_port_range", "2^96", "40000-40099", "fs.nr_open"]
        {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        // Tables are as wide as what they show; sentences are broken.
        let row = text.lines().find(|line| line.contains("127.0.0.1 → 127.0.0.1:7000")).unwrap();
        assert_eq!(row.split_whitespace().rev().take(6).collect::<Vec<_>>(), ["–", "%", "81", "ports", "100", "81"]);
        assert!(!text.contains('…'), "something is cut in\n{text}");
        for line in text.lines().filter(|line| line.ends_with('.')) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        drop(held);
    });
}

/// What stands behind the `|`, by label.
fn performance_data(line: &str) -> BTreeMap<String, String> {
    let (_, data) = line.trim_end().split_once(" | ").unwrap_or_else(|| panic!("no performance data: {line}"));
    let parts = data.split(' ').map(|part| part.split_once('=').unwrap());
    parts.map(|(label, data)| (label.trim_matches('\'').to_owned(), data.to_owned())).collect()
}

/// The numbers of what has a maximum, by label.
fn performance(line: &str) -> BTreeMap<String, Vec<u64>> {
    let is_limited = |(_, data): &(String, String)| data.contains(';') && !data.ends_with(';');
    let numbers = |data: &str| data.split(';').map(|number| number.parse().unwrap()).collect();
    performance_data(line).into_iter().filter(is_limited).map(|(label, data)| (label, numbers(&data))).collect()
}

/// The counters (unit `c`), by label.
fn counters(line: &str) -> BTreeMap<String, u64> {
    let counter = |(label, data): (String, String)| Some((label, data.strip_suffix('c')?.parse().unwrap()));
    performance_data(line).into_iter().filter_map(counter).collect()
}

/// A counter of the group TcpExt of /proc/net/netstat, in this thread's namespace.
fn netstat(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let column = names.split(' ').position(|other| other == name).unwrap_or_else(|| panic!("no {name}"));
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

#[test]
fn check_is_ok_warning_or_critical_by_its_thresholds() {
    in_private_netns(|| {
        let held = take_ports(90);
        // Other limits of this machine are far from 89 %.
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

#[test]
fn check_distinguishes_a_subcommand_and_a_word() {
    for (args, code) in [
        (&["record", "check", "--bogus"][..], 2),
        (&["--log-file", "check", "snapshot", "--bogus"], 2),
        (&["explain", "check"], 2),
        (&["--own-netns", "check", "--bogus"], 3),
        (&["--bogus", "check"], 3),
    ] {
        let output = observer(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert_eq!(printed(&output).starts_with("OBSERVER UNKNOWN - "), code == 3, "{args:?}: {output:?}");
    }
}

/// An accept queue of two places, and more clients than that; TIME_WAIT sockets beyond their limit.
fn hit_limits() -> (socket2::Socket, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};
    let address: std::net::SocketAddr = "127.0.0.1:7100".parse().unwrap();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(1).unwrap();
    let clients = (0..8).map(|_| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.connect(&address.into()).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
        client
    });
    let clients = clients.collect();
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "3").unwrap();
    let closing = TcpListener::bind("127.0.0.1:7101").unwrap();
    for _ in 0..9 {
        let client = TcpStream::connect("127.0.0.1:7101").unwrap();
        let (accepted, _) = closing.accept().unwrap();
        drop(client);
        drop(accepted);
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    while netstat("ListenOverflows") == 0 || netstat("TCPTimeWaitOverflow") == 0 {
        assert!(Instant::now() < deadline, "no limit was hit");
        thread::yield_now();
    }
    (listener, clients)
}

#[test]
fn hits_since_boot_are_those_of_netstat_and_only_grow() {
    const COUNTERS: [(&str, &[&str]); 4] = [
        ("accept_queue", &["ListenOverflows"]),
        ("syn_queue", &["TCPReqQFullDrop", "TCPReqQFullDoCookies"]),
        ("time_wait", &["TCPTimeWaitOverflow"]),
        ("tcp_memory", &["TCPAbortOnMemory"]),
    ];
    in_private_netns(|| {
        let truth = || COUNTERS.map(|(_, names)| names.iter().map(|name| netstat(name)).sum::<u64>());
        let counted = |args: &[&str]| {
            let line = printed(&observer(args));
            let counters = counters(&line);
            COUNTERS.map(|(kind, _)| *counters.get(&format!("{kind}_hits")).unwrap_or_else(|| panic!("{kind}: {line}")))
        };
        assert_eq!(counted(&["check", "--own-netns"]), [0; 4]);
        let held = hit_limits();
        // Clients try again: what was counted in between lies in between.
        let (before, check, after) = (truth(), counted(&["check", "--own-netns"]), truth());
        let lies_between = |counted: [u64; 4], before: [u64; 4], after: [u64; 4]| {
            (0..4).all(|i| (before[i]..=after[i]).contains(&counted[i]))
        };
        assert!(check[0] > 0 && check[2] > 0 && lies_between(check, before, after), "{before:?} {check:?} {after:?}");
        // Another namespace that comes and goes with its own hits changes nothing here.
        let other = thread::spawn(|| {
            // SAFETY: only this thread's network namespace is split off; no file table is.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
            assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            hit_limits()
        });
        let other = other.join().unwrap();
        let with_other = counted(&["check"]);
        drop(other);
        let without_other = counted(&["check"]);
        assert!(lies_between(with_other, check, without_other) && lies_between(without_other, check, truth()));

        let before = truth();
        let json: Value = serde_json::from_slice(&observer(&["limits", "--own-netns", "--json"]).stdout).unwrap();
        let text = printed(&observer(&["limits", "--own-netns"]));
        let snapshot = printed(&observer(&["snapshot", "--own-netns"]));
        let after = truth();
        for (i, (kind, names)) in COUNTERS.into_iter().enumerate() {
            let hits = json["hits"].as_array().unwrap().iter().find(|hits| hits["kind"] == kind).unwrap();
            let count = hits["hits_total"].as_u64().unwrap();
            assert!((before[i]..=after[i]).contains(&count), "{hits}");
            assert_eq!(hits["since"], "namespace");
            assert!(text.contains(names[0]), "{text}");
        }
        assert!(snapshot.contains("limits hit since namespace"), "{snapshot}");
        let time_wait = format!("TIME_WAIT {}", before[2]);
        assert!(before[2] == after[2] && snapshot.contains(&time_wait), "{snapshot}");
        drop(held);
    });
}

/// What is no limit in practice has no number anywhere.
#[test]
fn an_astronomical_maximum_is_absent() {
    // The sysctl belongs to the whole host: another file is laid over it, for observer's eyes only.
    let folder = tempfile::tempdir().unwrap();
    let file_nr = folder.path().join("file-nr");
    let seen = |args: &str| {
        let script = format!("mount --bind {} /proc/sys/fs/file-nr && exec {OBSERVER} {args}", file_nr.display());
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        printed(&output)
    };
    for (maximum, is_unlimited) in [("9223372036854775807", true), ("18446744073709551615", true), ("2466170", false)] {
        fs::write(&file_nr, format!("1952\t0\t{maximum}\n")).unwrap();
        let [snapshot, limits] = ["snapshot", "limits"].map(|command| seen(&format!("{command} --own-netns --json")));
        let [line, text] = ["check", "limits"].map(|command| seen(&format!("{command} --own-netns")));
        let [snapshot_json, limits_json] =
            [&snapshot, &limits].map(|text| serde_json::from_str::<Value>(text).unwrap());
        let find = |json: &Value, list: &str, field: &str, id: &str| {
            json[list].as_array().unwrap().iter().find(|it| it[field] == id).cloned().unwrap()
        };
        for object in [&snapshot_json, &limits_json].map(|json| find(json, "limits", "kind", "host_files")) {
            let number = object.get("maximum").map(|number| number.as_u64().unwrap().to_string());
            assert_eq!(number.as_deref(), (!is_unlimited).then_some(maximum), "{object}");
            assert_eq!(object.get("unlimited"), is_unlimited.then_some(&Value::Bool(true)), "{object}");
            assert_eq!(object.get("ratio").is_none(), is_unlimited, "{object}");
        }
        let arithmetic = &limits_json["arithmetic"];
        assert_eq!(arithmetic.get("file_max").is_none(), is_unlimited, "{arithmetic}");
        assert_eq!(arithmetic.get("file_max_unlimited").is_some(), is_unlimited, "{arithmetic}");
        assert_eq!(
            performance_data(&line)["host_files"],
            if is_unlimited {
                "1952;;;0;".to_owned()
            } else {
                // 80 % are 1,972,936, 95 % are 2,342,861.5: the highest numbers below.
                format!("1952;1972935;2342861;0;{maximum}")
            }
        );
        for printed in [snapshot, limits, line, text] {
            assert_eq!(printed.replace(',', "").contains(maximum), !is_unlimited, "{printed}");
        }
    }
}
