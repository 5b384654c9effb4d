//! Each finding, provoked for real; and its absence where all is well.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
};

use observer::model::{
    finding::{Finding, FindingKind},
    snapshot::Snapshot,
};
use socket2::{Domain, Socket, Type};

use crate::{
    limits::start_connecting,
    processes::start_program,
    sockets::set_option,
    support::{Pairs, eventually, in_private_netns, listen, observe, run, set_sysctl, wait_for_sockets, wait_until},
};

fn found(snapshot: &Snapshot, kind: FindingKind) -> Option<&Finding> {
    snapshot.findings.iter().find(|finding| finding.kind == kind)
}

/// What a finding of this kind rests on.
#[track_caller]
fn evidence(snapshot: &Snapshot, kind: FindingKind) -> &str {
    &found(snapshot, kind).unwrap_or_else(|| panic!("{kind:?} was not found: {:?}", snapshot.findings)).evidence
}

/// A client that calls bind() with port 0 before connect().
fn bound(ip: &str, target: &str, address_without_port: bool) -> Socket {
    let (ip, target): (IpAddr, SocketAddr) = (ip.parse().unwrap(), target.parse().unwrap());
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).unwrap();
    if address_without_port {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1).unwrap();
    }
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect(&target.into()).unwrap();
    socket
}

#[test]
fn bind_before_connect_takes_ports_from_every_destination() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        let listeners = ["127.0.0.1:7000", "127.0.0.1:7001"].map(|at| listen(at, 128));
        let bound: Vec<_> = (0..30).map(|_| bound("127.0.0.2", "127.0.0.1:7000", false)).collect();
        let snapshot = observe().snapshot(1);
        let found = found(&snapshot, FindingKind::BindBeforeConnect).expect("a finding");
        assert!(found.sentence.ends_with("were bound before connect() from 127.0.0.2."), "{found:?}");
        assert!(found.evidence.starts_with("30 of 100 ports"), "{found:?}");
        // That is so: another local ip gets 70 ports towards another destination.
        let others: Vec<_> = (0..70).map(|_| TcpStream::connect("127.0.0.1:7001").unwrap()).collect();
        assert_eq!(TcpStream::connect("127.0.0.1:7001").unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        drop((listeners, bound, others));
    });
}

const BINDER: &str = "OBSERVER_TEST_BINDER";

/// This test again, in another process that binds, connects, and keeps its sockets open.
fn be_the_binder() {
    let bound: Vec<_> = (0..30).map(|_| bound("127.0.0.1", "127.0.0.1:7000", false)).collect();
    // SAFETY: the line of the test that started this process is open as long as it runs, and nobody else reads it.
    let mut line = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    line.write_all(b"held").unwrap();
    // Until the other end is closed.
    let _ = line.read(&mut [0]);
    drop(bound);
}

#[test]
fn bind_before_connect_accuses_who_binds_and_not_who_connected_last() {
    const NAME: &str = "findings::bind_before_connect_accuses_who_binds_and_not_who_connected_last";
    if std::env::var_os(BINDER).is_some() {
        return be_the_binder();
    }
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        let listener = listen("127.0.0.1:7000", 128);
        let mut engine = observe();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]).env(BINDER, "1").stdout(Stdio::null());
        let (mut child, mut line) = start_program(&mut command).unwrap();
        line.read_exact(&mut [0; 4]).unwrap();
        // From the same local ip, without a bind, and after the other.
        let plain: Vec<_> = (0..40).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
        engine.scan().unwrap();
        let found = found(&engine.snapshot(1), FindingKind::BindBeforeConnect).expect("a finding").clone();
        let (binder, own) = (format!("({})", child.id()), format!("({})", std::process::id()));
        assert!(found.sentence.contains(&binder) && !found.sentence.contains(&own), "{found:?}");
        assert!(found.evidence.starts_with("30 of 100 ports"), "{found:?}");
        drop(line);
        assert!(child.wait().unwrap().success());
        drop((listener, plain));
    });
}

#[test]
fn with_ip_bind_address_no_port_all_is_well() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        let listeners = ["127.0.0.1:7000", "127.0.0.1:7001"].map(|at| listen(at, 128));
        let bound: Vec<_> = (0..30).map(|_| bound("127.0.0.2", "127.0.0.1:7000", true)).collect();
        let snapshot = observe().snapshot(1);
        assert_eq!(found(&snapshot, FindingKind::BindBeforeConnect), None);
        let others: Vec<_> = (0..100).map(|_| TcpStream::connect("127.0.0.1:7001").unwrap()).collect();
        drop((listeners, bound, others));
    });
}

#[test]
fn a_service_within_the_range_is_found_unless_its_port_is_reserved() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        // A listener that takes any port does not want the same one again.
        let services = (listen("127.0.0.1:40007", 8), listen("127.0.0.1:7000", 8), listen("127.0.0.1:0", 8));
        let snapshot = observe().snapshot(1);
        let evidence = evidence(&snapshot, FindingKind::ListenerInRange);
        assert!(evidence.starts_with("40007 ") && !evidence.contains("more"), "{evidence}");
        set_sysctl("ipv4/ip_local_reserved_ports", "40007");
        let snapshot = observe().snapshot(1);
        assert_eq!(found(&snapshot, FindingKind::ListenerInRange), None);
        assert_eq!(found(&snapshot, FindingKind::ReservedInRange), None, "one port is not much");
        drop(services);
    });
}

#[test]
fn a_range_that_is_mostly_reserved_is_found() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        set_sysctl("ipv4/ip_local_reserved_ports", "39990-40019");
        let snapshot = observe().snapshot(1);
        let evidence = evidence(&snapshot, FindingKind::ReservedInRange);
        assert!(evidence.contains("takes 20 of the 100 ports 40000-40099"), "{evidence}");
    });
}

#[test]
fn time_wait_at_one_destination_is_found() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        // On loopback connect() takes them over by default, once they are a second old.
        set_sysctl("ipv4/tcp_tw_reuse", "0");
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 40);
        assert_eq!(found(&observe().snapshot(1), FindingKind::TimeWaitAtOneDestination), None, "none is closed");
        pairs.clients.clear();
        // The end whose FIN is first is the one that waits.
        wait_for_sockets("fin-wait-2", 40);
        pairs.accepted.clear();
        wait_for_sockets("time-wait", 40);
        let snapshot = observe().snapshot(1);
        let evidence = evidence(&snapshot, FindingKind::TimeWaitAtOneDestination);
        assert!(evidence.starts_with("40 of 100 ports are in TIME_WAIT, of 40 "), "{evidence}");
        let remedy =
            |snapshot: &Snapshot| found(snapshot, FindingKind::TimeWaitAtOneDestination).unwrap().remedy.clone();
        assert!(remedy(&snapshot).contains("tcp_tw_reuse=1"), "{}", remedy(&snapshot));
        // It does help here: 40 of 100 ports wait, and all 100 connect once these are old enough.
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        let mut clients: Vec<TcpStream> = Vec::new();
        wait_until("all ports, those in TIME_WAIT too", || {
            clients.extend(TcpStream::connect("127.0.0.1:7000"));
            clients.len() == 100
        });
    });
}

#[test]
fn tcp_tw_reuse_is_not_proposed_without_timestamps() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        set_sysctl("ipv4/tcp_tw_reuse", "0");
        set_sysctl("ipv4/tcp_timestamps", "0");
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 40);
        pairs.clients.clear();
        wait_for_sockets("fin-wait-2", 40);
        pairs.accepted.clear();
        wait_for_sockets("time-wait", 40);
        let remedy =
            |snapshot: &Snapshot| found(snapshot, FindingKind::TimeWaitAtOneDestination).unwrap().remedy.clone();
        let words = remedy(&observe().snapshot(1));
        assert!(!words.contains("tcp_tw_reuse") && words.contains("keep connections open"), "{words}");
        // Switched on again: these sockets still have none.
        set_sysctl("ipv4/tcp_timestamps", "1");
        let words = remedy(&observe().snapshot(1));
        assert!(!words.contains("tcp_tw_reuse"), "{words}");
        // On, and it does not help.
        set_sysctl("ipv4/tcp_tw_reuse", "1");
        let words = remedy(&observe().snapshot(1));
        assert!(!words.contains("tcp_tw_reuse"), "{words}");
    });
}

#[test]
fn a_queue_that_somaxconn_holds_short_is_found() {
    in_private_netns(|| {
        set_sysctl("core/somaxconn", "4");
        let short = listen("127.0.0.1:7000", 128);
        let own_choice = listen("127.0.0.1:7001", 2);
        let clients = [start_connecting("127.0.0.1:7000", 8), start_connecting("127.0.0.1:7001", 8)];
        let queues = || run("ss", &["-Hltn"]).split_whitespace().nth(1).map(str::to_owned);
        wait_until("full queues", || {
            run("ss", &["-Hltn"]).lines().all(|line| !line.contains(" 0 ")) && queues().is_some()
        });
        let snapshot = observe().snapshot(1);
        let capped: Vec<_> =
            snapshot.findings.iter().filter(|finding| finding.kind == FindingKind::QueueAtSomaxconn).collect();
        assert_eq!(capped.len(), 1, "{capped:?}");
        assert!(capped[0].sentence.contains("127.0.0.1:7000 "), "{capped:?}");
        assert!(
            capped[0].evidence.starts_with("5 connections wait; the limit is net.core.somaxconn = 4"),
            "{capped:?}"
        );
        // The other is as short as its application made it, and somaxconn would not help.
        let own = found(&snapshot, FindingKind::QueueAtBacklog).expect("a finding");
        assert!(own.sentence.contains("127.0.0.1:7001 ") && own.sentence.contains("listen(fd, 2)"), "{own:?}");
        assert!(own.remedy.contains("listen(fd, N)") && !own.remedy.contains("somaxconn"), "{own:?}");
        drop((short, own_choice, clients));
    });
}

#[test]
fn a_retry_loop_is_found_while_it_runs() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40009");
        let listener = listen("127.0.0.1:7000", 128);
        let held: Vec<_> = (0..10).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
        let mut engine = observe();
        let retry = || {
            let refused = (0..50).all(|_| {
                TcpStream::connect("127.0.0.1:7000").is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
            });
            assert!(refused, "there was a port left");
        };
        let found = eventually(&mut engine, "the retry loop", |snapshot| {
            retry();
            found(snapshot, FindingKind::RetryLoop).cloned()
        });
        assert!(found.sentence.ends_with("retries connect() to 127.0.0.1:7000 without a port left."), "{found:?}");
        assert!(found.evidence.contains("fail with EADDRNOTAVAIL, 10 of 10 ports are in use"), "{found:?}");
        eventually(&mut engine, "its end", |snapshot| {
            snapshot.findings.iter().all(|finding| finding.kind != FindingKind::RetryLoop).then_some(())
        });
        drop((listener, held));
    });
}
