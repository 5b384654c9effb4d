//! connect(), bind() and listen() that fail: by the errno they returned, with the limit that caused it. What fails for
//! another reason, or does not fail at all, is not reported.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    process::Command,
};

use observer::{
    engine::Engine,
    model::{
        failure::{Failed, FailureKind, FailureRow},
        finding::FindingKind,
        snapshot::Snapshot,
    },
};
use socket2::{Domain, Socket, Type};

use crate::{
    processes::output,
    refused::{address, errno, refused, tcp},
    sockets::{disconnect, set_option},
    support::{eventually, in_private_netns, listen, observe, options, run, set_sysctl, start},
};

fn tcp6() -> Socket {
    Socket::new(Domain::IPV6, Type::STREAM, None).unwrap()
}

/// Waits until so many connections have ended before their handshake; what failed was reported by then.
fn ended_early(engine: &mut Engine, count: u64) -> Snapshot {
    eventually(engine, &format!("{count} ended early"), |snapshot| {
        (snapshot.totals.failed_total == count).then(|| snapshot.clone())
    })
}

/// The one row of a kind.
fn row(snapshot: &Snapshot, kind: FailureKind) -> Option<&FailureRow> {
    let mut rows = snapshot.failures.iter().filter(|row| row.key.kind == kind);
    rows.next().filter(|_| rows.next().is_none())
}

#[test]
fn a_deferred_fast_open_that_is_closed_is_no_failure() {
    /// `TCP_FASTOPEN_CONNECT` of include/uapi/linux/tcp.h.
    const TCP_FASTOPEN_CONNECT: libc::c_int = 30;
    in_private_netns(|| {
        // As a client, and without a cookie: so connect() is put off until there are data.
        set_sysctl("ipv4/tcp_fastopen", "5");
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 128);
        let socket = tcp();
        set_option(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1).unwrap();
        socket.connect(&address("127.0.0.1:7000").into()).unwrap();
        assert!(run("ss", &["-Htan", "state", "syn-sent"]).contains("127.0.0.1:7000"), "nothing was sent yet");
        drop(socket);
        ended_early(&mut engine, 1);
        // The engine waits a second at most for connect() to return.
        let uptime = engine.snapshot(0).uptime;
        let later = eventually(&mut engine, "three seconds later", |snapshot| {
            (snapshot.uptime.as_secs() >= uptime.as_secs() + 3).then(|| snapshot.clone())
        });
        assert_eq!((later.failures, later.failures_total), (vec![], 0));
    });
}

#[test]
fn a_connect_that_fails_for_other_reasons_is_not_reported() {
    in_private_netns(|| {
        for (kind, network) in [("unreachable", "192.0.2.0/24"), ("prohibit", "198.51.100.0/24")] {
            run("ip", &["route", "add", kind, network]);
        }
        let mut engine = observe();
        let connect = |text: &str| errno(TcpStream::connect(text));
        assert_eq!(connect("127.0.0.1:7001"), libc::ECONNREFUSED);
        assert_eq!(connect("192.0.2.1:80"), libc::EHOSTUNREACH);
        assert_eq!(connect("198.51.100.1:80"), libc::EACCES);
        assert_eq!(connect("203.0.113.1:80"), libc::ENETUNREACH);
        // A socket whose connect() was refused may try again.
        let again = tcp();
        for _ in 0..2 {
            assert_eq!(errno(again.connect(&address("127.0.0.1:7001").into())), libc::ECONNREFUSED);
        }
        // One that is reported: it shows that the hooks work.
        assert_eq!(errno(tcp().bind(&address("192.0.2.1:0").into())), libc::EADDRNOTAVAIL);
        ended_early(&mut engine, 3);
        let rows = refused(&mut engine, FailureKind::AddressNotLocal, 1);
        assert_eq!(rows[0].reason(), "192.0.2.1 is no address of this host");
        assert_eq!(rows[0].what(), "bind() EADDRNOTAVAIL");
        assert_eq!(engine.snapshot(0).failures_total, 1);
    });
}

#[test]
fn without_ipv6_a_connect_does_not_lack_ports() {
    in_private_netns(|| {
        let mut engine = observe();
        let connect = || errno(tcp6().connect(&address("[::1]:7001").into()));
        let bind = || tcp6().bind(&address("[::1]:0").into());
        assert_eq!(connect(), libc::ECONNREFUSED);
        bind().unwrap();
        ended_early(&mut engine, 1);
        assert_eq!(engine.snapshot(0).failures_total, 0);
        set_sysctl("ipv6/conf/all/disable_ipv6", "1");
        assert_eq!(errno(bind()), libc::EADDRNOTAVAIL);
        assert_eq!(connect(), libc::EADDRNOTAVAIL);
        let rows = refused(&mut engine, FailureKind::NoSourceAddress, 1);
        assert_eq!(
            rows[0].reason(),
            "no source address towards [::1]:7001: IPv6 is disabled (net.ipv6.conf.*.disable_ipv6)"
        );
        let rows = refused(&mut engine, FailureKind::AddressNotLocal, 1);
        assert_eq!(rows[0].reason(), "::1 cannot be bound: IPv6 is disabled (net.ipv6.conf.*.disable_ipv6)");
        let snapshot = engine.snapshot(0);
        assert_eq!((snapshot.failures_total, snapshot.totals.failed_total), (2, 1));
    });
}

#[test]
fn a_socket_that_was_connected_before_lacks_a_port_too() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40003");
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 128);
        let server = address("127.0.0.1:7000");
        let (connected, refused_once) = (tcp(), tcp());
        connected.connect(&address("127.0.0.1:7000").into()).unwrap();
        connected.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        disconnect(&connected).unwrap();
        assert_eq!(errno(refused_once.connect(&address("127.0.0.1:7001").into())), libc::ECONNREFUSED);
        let _clients: Vec<_> = (0..4).map(|_| TcpStream::connect(server).unwrap()).collect();
        for socket in [&connected, &refused_once] {
            assert_eq!(errno(socket.connect(&server.into())), libc::EADDRNOTAVAIL);
        }
        let rows = refused(&mut engine, FailureKind::PortsExhausted, 2);
        assert_eq!(rows[0].reason(), "4 of 4 ports 127.0.0.1 → 127.0.0.1:7000 in use");
        assert_eq!(engine.snapshot(0).failures_total, 2);
    });
}

/// `IP_LOCAL_PORT_RANGE` of include/uapi/linux/in.h.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

/// A socket with its own port range, which older kernels refuse.
fn with_range(low: i32, high: i32) -> Option<Socket> {
    let socket = tcp();
    match set_option(&socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, high << 16 | low) {
        Ok(()) => Some(socket),
        Err(error) => {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            // 6.1 has it by its stable updates.
            let is_older = release.starts_with("5.10.");
            assert!(is_older && error.raw_os_error() == Some(libc::ENOPROTOOPT), "{release}: {error}");
            None
        }
    }
}

#[test]
fn a_failure_within_a_sockets_own_range_is_of_that_range() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40099");
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 1_024);
        let server = address("127.0.0.1:7000");
        let connect = || with_range(40_010, 40_013).map(|socket| socket.connect(&server.into()).map(|()| socket));
        let Some(first) = connect() else { return };
        // As many ports as an even range has: of an odd one, one call passes over an end.
        let held =
            [first.unwrap(), connect().unwrap().unwrap(), connect().unwrap().unwrap(), connect().unwrap().unwrap()];
        for _ in 0..2 {
            assert_eq!(errno(connect().unwrap()), libc::EADDRNOTAVAIL);
        }
        let rows = refused(&mut engine, FailureKind::PortsExhausted, 2);
        let [row] = &rows[..] else { panic!("{rows:#?}") };
        assert_eq!(
            row.reason(),
            "4 of 4 ports of the socket's own range 40010-40013 127.0.0.1 → 127.0.0.1:7000 in use"
        );
        // bind() has the same range, and finds its ports in use.
        assert_eq!(errno(with_range(40_010, 40_013).unwrap().bind(&address("127.0.0.1:0").into())), libc::EADDRINUSE);
        let bind = refused(&mut engine, FailureKind::BindPorts, 1);
        let taken = "4 of 4 ports of the socket's own range 40010-40013 have a socket";
        assert!(bind[0].reason().contains(taken), "{}", bind[0].reason());
        // Others have the rest of the namespace's range.
        let _others: Vec<_> = (0..5).map(|_| TcpStream::connect(server).unwrap()).collect();
        // A retry loop claims no more than that range.
        let evidence = eventually(&mut engine, "the retry loop", |snapshot| {
            assert_eq!(errno(connect().unwrap()), libc::EADDRNOTAVAIL);
            snapshot.findings.iter().find(|it| it.kind == FindingKind::RetryLoop).map(|it| it.evidence.clone())
        });
        assert!(evidence.contains("4 of 4 ports") && evidence.contains("own range 40010-40013"), "{evidence}");
        assert!(!evidence.contains("whole range"), "{evidence}");
        drop(held);
    });
}

#[test]
fn a_bind_without_a_port_left_says_so_and_what_to_do() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40009");
        let mut engine = observe();
        let any_port = address("127.0.0.1:0");
        let bound: Vec<_> = (0..10)
            .map(|_| {
                let socket = tcp();
                socket.bind(&any_port.into()).unwrap();
                socket
            })
            .collect();
        assert_eq!(errno(tcp().bind(&any_port.into())), libc::EADDRINUSE);
        // listen() binds what is not bound.
        assert_eq!(errno(tcp().listen(1)), libc::EADDRINUSE);
        engine.scan().unwrap();
        let rows = eventually(&mut engine, "both", |snapshot| {
            let rows: Vec<_> =
                snapshot.failures.iter().filter(|row| row.key.kind == FailureKind::BindPorts).cloned().collect();
            (rows.len() == 2).then_some(rows)
        });
        for (row, call, local) in [(&rows[0], "listen", "0.0.0.0"), (&rows[1], "bind", "127.0.0.1")] {
            assert_eq!(row.what(), format!("{call}() EADDRINUSE"));
            assert_eq!(
                row.reason(),
                format!(
                    "no port left for {call}() of {local}: 10 of 10 ports of ip_local_port_range have a socket, and \
                     {call}() needs one that is free for every destination"
                )
            );
            assert!(row.remedy().unwrap().contains("IP_BIND_ADDRESS_NO_PORT"));
        }
        // A bind() that leaves the port to connect() takes none.
        let socket = tcp();
        set_option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1).unwrap();
        socket.bind(&any_port.into()).unwrap();
        drop(bound);
        tcp().bind(&any_port.into()).unwrap();
        engine.poll().unwrap();
        assert_eq!(engine.snapshot(0).failures_total, 2);
    });
}

#[test]
fn a_second_listen_on_a_shared_address_is_reported_with_the_first() {
    in_private_netns(|| {
        let mut engine = observe();
        let shared = || {
            let socket = tcp();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address("127.0.0.1:7000").into()).unwrap();
            socket
        };
        let (first, second) = (shared(), shared());
        first.listen(1).unwrap();
        assert_eq!(errno(second.listen(1)), libc::EADDRINUSE);
        let rows = refused(&mut engine, FailureKind::AddressInUse, 1);
        assert_eq!(rows[0].what(), "listen() EADDRINUSE");
        let process = rows[0].key.process.unwrap();
        assert_eq!(
            rows[0].reason(),
            format!("127.0.0.1:7000 is in use: {} ({}) listens on it", process.comm, process.pid.0)
        );
    });
}

fn connect_by_io_uring(socket: &Socket, to: SocketAddr) -> i32 {
    let mut ring = io_uring::IoUring::new(2).expect("io_uring");
    let address: socket2::SockAddr = to.into();
    let fd = io_uring::types::Fd(socket.as_raw_fd());
    let connect = io_uring::opcode::Connect::new(fd, address.as_ptr().cast(), address.len());
    // SAFETY: descriptor and address live until the call has been waited for.
    unsafe { ring.submission().push(&connect.build()).unwrap() };
    ring.submit_and_wait(1).unwrap();
    ring.completion().next().unwrap().result()
}

#[test]
fn a_connect_by_io_uring_that_finds_no_port_is_reported_once() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40003");
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 128);
        let server = address("127.0.0.1:7000");
        let _clients: Vec<_> = (0..4).map(|_| TcpStream::connect(server).unwrap()).collect();
        // A refused one is none.
        assert_eq!(connect_by_io_uring(&tcp(), address("127.0.0.2:7001")), -libc::ECONNREFUSED);
        let kept = tcp();
        assert_eq!(connect_by_io_uring(&kept, server), -libc::EADDRNOTAVAIL);
        let rows = refused(&mut engine, FailureKind::PortsExhausted, 1);
        assert_eq!(rows[0].reason(), "4 of 4 ports 127.0.0.1 → 127.0.0.1:7000 in use");
        // Its end says nothing more.
        drop(kept);
        ended_early(&mut engine, 2);
        assert_eq!(engine.snapshot(0).failures_total, 1);
    });
}

const INSTANCES: &str = "OBSERVER_TEST_INOTIFY_INSTANCES";

#[test]
fn a_limit_of_inotify_instances_is_not_reported_as_an_fd_limit() {
    let test = "calls::a_limit_of_inotify_instances_is_not_reported_as_an_fd_limit";
    if let Ok(instances) = std::env::var(INSTANCES) {
        return take_inotify_instances(instances.parse().unwrap());
    }
    in_private_netns(move || {
        let mut engine = start(observer::engine::EngineOptions { trace_all_fd_syscalls: true, ..options() });
        // A user namespace has its own limit. The host's limit affects every program.
        let script = format!(
            "echo 2 > /proc/sys/user/max_inotify_instances && exec {} --exact {test} --nocapture",
            std::env::current_exe().unwrap().display()
        );
        let output = output(Command::new("unshare").args(["-Ur", "bash", "-c", &script]).env(INSTANCES, "2")).unwrap();
        assert!(output.status.success(), "{output:?}");
        let row = eventually(&mut engine, "the EMFILE", |snapshot| row(snapshot, FailureKind::OtherFdLimit).cloned());
        assert_eq!((row.what().as_str(), row.count), ("inotify_init1() EMFILE", 1));
        assert!(matches!(row.failed, Failed::FreeDescriptor(free, limit) if free < limit), "{row:?}");
        let reason = row.reason();
        assert!(
            reason.starts_with("not RLIMIT_NOFILE: ") && reason.contains("fs.inotify.max_user_instances"),
            "{reason}"
        );
        assert_eq!(engine.snapshot(0).failures_total, 1);
    });
}

fn take_inotify_instances(count: usize) {
    // SAFETY: takes no memory; the descriptors are left to the end of the process.
    let take = || unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    for _ in 0..count {
        assert!(take() >= 0);
    }
    assert_eq!((take(), io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EMFILE)));
}
