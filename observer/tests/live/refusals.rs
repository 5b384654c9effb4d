//! Refused calls: observer reports each one once, with the process, the addresses and the errno that the call returned.

use std::{collections::BTreeMap, fs::File, net::TcpStream, os::fd::AsRawFd as _, process::Command};

use observer::model::{
    device::Device,
    failure::{FailureKind, Local},
};
use socket2::{Domain, Socket, Type};

use crate::{
    processes::output,
    refused::{address, counted, errno, kernel_counter, refused, tcp},
    sockets::reset,
    support::{
        Pairs, eventually, in_private_netns, listen, observe, options, scanning, set_sysctl, start, wait_for_sockets,
        wait_until,
    },
};

#[test]
fn a_client_without_free_ports_is_reported_with_destination_and_numbers() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40009");
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 128);
        let clients: Vec<_> = (0..10).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
        for _ in 0..3 {
            assert_eq!(errno(TcpStream::connect("127.0.0.1:7000")), libc::EADDRNOTAVAIL);
        }
        let rows = refused(&mut engine, FailureKind::PortsExhausted, 3);
        let [row] = &rows[..] else { panic!("{rows:#?}") };
        assert_eq!((row.count, row.key.call, row.key.kind.errno()), (3, Some("connect"), Some("EADDRNOTAVAIL")));
        assert_eq!(row.key.remote, Some(address("127.0.0.1:7000")));
        assert_eq!(row.key.local, Some(Local { ip: "127.0.0.1".parse().unwrap(), port: 0, device: Device::NONE }));
        assert_eq!(row.reason(), "10 of 10 ports 127.0.0.1 → 127.0.0.1:7000 in use");
        // Other ends of connect() are not refusals.
        drop(clients);
        assert_eq!(errno(TcpStream::connect("127.0.0.1:7001")), libc::ECONNREFUSED);
        assert_eq!(engine.snapshot(0).failures_total, 3);
    });
}

#[test]
fn a_bound_client_whose_four_tuple_is_in_use_is_reported() {
    in_private_netns(|| {
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 128);
        let bound = || {
            let socket = tcp();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address("127.0.0.1:40000").into()).unwrap();
            socket
        };
        let (first, second) = (bound(), bound());
        first.connect(&address("127.0.0.1:7000").into()).unwrap();
        assert_eq!(errno(second.connect(&address("127.0.0.1:7000").into())), libc::EADDRNOTAVAIL);
        let rows = refused(&mut engine, FailureKind::TupleInUse, 1);
        assert_eq!(rows[0].reason(), "the four-tuple 127.0.0.1:40000 → 127.0.0.1:7000 is in use");
    });
}

#[test]
fn a_bind_to_an_address_in_use_is_reported_with_that_address() {
    in_private_netns(|| {
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 128);
        let _wildcard = listen("[::]:7001", 128);
        for _ in 0..2 {
            assert_eq!(errno(tcp().bind(&address("127.0.0.1:7000").into())), libc::EADDRINUSE);
        }
        let v6 = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        assert_eq!(errno(v6.bind(&address("[::1]:7001").into())), libc::EADDRINUSE);
        // A port of UDP is none of TCP.
        let udp = || Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let first = udp();
        first.bind(&address("127.0.0.1:7002").into()).unwrap();
        assert_eq!(errno(udp().bind(&address("127.0.0.1:7002").into())), libc::EADDRINUSE);
        let rows = refused(&mut engine, FailureKind::AddressInUse, 3);
        let counts: BTreeMap<String, u64> =
            rows.iter().map(|row| (row.key.local.unwrap().to_string(), row.count)).collect();
        assert_eq!(counts, [("127.0.0.1:7000".to_owned(), 2), ("[::1]:7001".to_owned(), 1)].into());
        for row in &rows {
            assert!(row.reason().ends_with(&format!("({}) listens on it", std::process::id())), "{}", row.reason());
        }
    });
}

/// Runs this test once more with as many descriptors as `ulimit -n` says.
fn with_few_descriptors(test: &str) {
    let script =
        format!("ulimit -n 128; exec {} --exact {test} --nocapture", std::env::current_exe().unwrap().display());
    let output = output(Command::new("bash").args(["-c", &script]).env(FEW, "1")).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const FEW: &str = "OBSERVER_TEST_FEW_DESCRIPTORS";

/// Opens files until the process has no descriptor left.
fn take_all_descriptors() -> Vec<File> {
    let mut files = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                return files;
            }
        }
    }
}

#[test]
fn socket_and_accept_of_a_process_at_its_fd_limit_are_reported() {
    if std::env::var_os(FEW).is_none() {
        return with_few_descriptors("refusals::socket_and_accept_of_a_process_at_its_fd_limit_are_reported");
    }
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen("127.0.0.1:7000", 128);
        let _client = TcpStream::connect("127.0.0.1:7000").unwrap();
        let mut files = take_all_descriptors();
        for _ in 0..3 {
            assert_eq!(errno(Socket::new(Domain::IPV4, Type::STREAM, None)), libc::EMFILE);
        }
        assert_eq!(errno(listener.accept()), libc::EMFILE);
        files.truncate(files.len() - 4);
        let rows = refused(&mut engine, FailureKind::ProcessFds, 4);
        let counts: BTreeMap<&str, u64> = rows.iter().map(|row| (row.key.call.unwrap(), row.count)).collect();
        // observer reports a refused open() on request only.
        assert_eq!(counts, [("socket", 3), ("accept4", 1)].into());
        for row in &rows {
            assert_eq!(row.reason(), "no descriptor below the limit 128 is free (ulimit -n)");
        }
    });
}

#[test]
fn every_call_that_makes_fds_is_reported_on_request() {
    if std::env::var_os(FEW).is_none() {
        return with_few_descriptors("refusals::every_call_that_makes_fds_is_reported_on_request");
    }
    in_private_netns(|| {
        let mut engine = start(observer::engine::EngineOptions { trace_all_fd_syscalls: true, ..options() });
        let mut files = take_all_descriptors();
        assert_eq!(errno(files[0].try_clone()), libc::EMFILE);
        // SAFETY: asks for a copy of a descriptor that is open.
        assert_eq!(unsafe { libc::dup(files[0].as_raw_fd()) }, -1);
        // The kernel takes the one that was closed for the lowest that may be free, although it is taken again.
        let again = files[0].as_raw_fd();
        // SAFETY: the file's owner still has that number, for another file by now.
        assert_eq!(unsafe { (libc::close(again), libc::dup2(files[1].as_raw_fd(), again)) }, (0, again));
        assert_eq!(errno(File::open("/dev/null")), libc::EMFILE);
        files.truncate(files.len() - 4);
        let rows = refused(&mut engine, FailureKind::ProcessFds, 4);
        let counts: BTreeMap<&str, u64> = rows.iter().map(|row| (row.key.call.unwrap(), row.count)).collect();
        assert_eq!(counts, [("openat", 2), ("fcntl", 1), ("dup", 1)].into());
        for row in &rows {
            assert_eq!(row.reason(), "no descriptor below the limit 128 is free (ulimit -n)");
        }
    });
}

#[test]
fn handshakes_dropped_by_a_full_accept_queue_are_reported_with_the_listener() {
    in_private_netns(|| {
        let mut engine = scanning();
        let listener = listen("127.0.0.1:7000", 2);
        let clients: Vec<Socket> = (0..8)
            .map(|_| {
                let client = tcp();
                client.set_nonblocking(true).unwrap();
                assert_eq!(errno(client.connect(&address("127.0.0.1:7000").into())), libc::EINPROGRESS);
                client
            })
            .collect();
        wait_until("the kernel drops", || kernel_counter("ListenOverflows") > 0);
        // What is sent again is dropped again: once the clients are reset little of it comes.
        clients.into_iter().for_each(reset);
        let row = eventually(&mut engine, "as many failures as the kernel counts", |snapshot| {
            let dropped = kernel_counter("ListenOverflows");
            snapshot
                .failures
                .iter()
                .find(|row| row.key.kind == FailureKind::AcceptQueue && row.count == dropped)
                .cloned()
        });
        assert_eq!(row.key.local, Some(Local { ip: "127.0.0.1".parse().unwrap(), port: 7000, device: Device::NONE }));
        assert_eq!(row.key.process.unwrap().pid.0, std::process::id());
        assert_eq!(row.what(), "handshake dropped");
        assert!(
            row.reason().starts_with("127.0.0.1:7000: ") && row.reason().ends_with("3 fit (backlog 2 + 1)"),
            "{}",
            row.reason()
        );
        drop(listener);
    });
}

#[test]
fn sockets_that_close_without_time_wait_are_reported() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_max_tw_buckets", "3");
        let mut engine = observe();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 10);
        pairs.clients.clear();
        pairs.accepted.clear();
        wait_for_sockets("connected exclude time-wait", 0);
        let overflows = kernel_counter("TCPTimeWaitOverflow");
        assert!(overflows >= 7, "ten connections, three TIME_WAITs, {overflows} overflows");
        let row = counted(&mut engine, FailureKind::TimeWait, overflows);
        assert_eq!(row.what(), "TIME_WAIT left out");
    });
}
