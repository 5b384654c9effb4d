//! The ports towards a destination, against the sysctls and against what connect() takes.

use std::net::TcpStream;

use crate::support::{Pairs, eventually, in_private_netns, listen, observe, outbound, run, set_sysctl};

#[test]
fn ports_in_use_are_counted_by_destination() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        set_sysctl("ipv4/ip_local_reserved_ports", "40000-40009,41000");
        let before = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 30);
        let mut engine = observe();
        let other = listen("127.0.0.1:7001", 128);
        let after: Vec<_> = (0..20).map(|_| TcpStream::connect("127.0.0.1:7001").unwrap()).collect();
        eventually(&mut engine, "30 and 20 ports in use", |snapshot| {
            let row = outbound(snapshot, "127.0.0.1")?;
            let ports: Vec<_> =
                row.destinations.iter().filter_map(|it| Some((it.remote.port(), it.ports?.used))).collect();
            (ports == [(7000, 30), (7001, 20)]).then_some(())
        });
        let snapshot = engine.snapshot(usize::MAX);
        let ports = outbound(&snapshot, "127.0.0.1").unwrap().destinations[0].ports.unwrap();
        assert_eq!((ports.range, ports.reserved, ports.usable()), (100, 10, 90));
        // As many connects succeed, and no more.
        let left = ports.left().unwrap();
        let more: Vec<_> = (0..left).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
        assert_eq!(TcpStream::connect("127.0.0.1:7000").unwrap_err().kind(), std::io::ErrorKind::AddrNotAvailable);
        drop((before, other, after, more));
    });
}

#[test]
fn the_namespace_is_read_as_it_is() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "20000 20999");
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 9);
        pairs.clients.clear();
        pairs.accepted.clear();
        let snapshot = observe().snapshot(0);
        let row = &snapshot.namespaces[0];
        assert_eq!(row.port_range.map(|range| (range.low, range.high)), Some((20_000, 20_999)));
        assert_eq!((row.tcp_tw_reuse, row.time_wait, row.reserved_ports), (Some(1), 9, 0));
    });
}

/// Since 7.2.
#[test]
fn the_step_width_is_explained_where_the_kernel_has_it() {
    in_private_netns(|| {
        let explained = || run(env!("CARGO_BIN_EXE_observer"), &["explain", "ports"]);
        let file = "/proc/sys/net/ipv4/ip_local_port_step_width";
        let Ok(width) = std::fs::read_to_string(file) else {
            assert!(!explained().contains("step_width"), "{}", explained());
            return;
        };
        let has = |text: &str, width: &str, words: &str| {
            let line = text.lines().find(|line| line.contains("ip_local_port_step_width")).map(str::trim_start);
            line.is_some_and(|line| line.starts_with(&format!("{width}  "))) && text.contains(words)
        };
        assert!(has(&explained(), width.trim(), if width.trim() == "0" { "off" } else { "random step" }));
        set_sysctl("ipv4/ip_local_port_step_width", "7");
        assert!(has(&explained(), "7", "random step"), "{}", explained());
        set_sysctl("ipv4/ip_local_port_step_width", "0");
        assert!(has(&explained(), "0", "off"), "{}", explained());
    });
}
