//! Connections that were there, that come, and that go, from either side and in both families.

use std::{io::Read as _, net::TcpStream, process};

use socket2::SockRef;

use crate::support::{
    Pairs, assert_equals_ss, counted, events_reach_ss, eventually, in_private_netns, inbound, observe, outbound, truth,
    wait_for_sockets,
};

#[test]
fn connections_from_before_the_start_are_in_the_first_snapshot() {
    in_private_netns(|| {
        let _v4 = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 40);
        let _v6 = Pairs::open("[::1]:7001", "[::1]:7001", 30);
        let mut engine = observe();
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!(counted(&snapshot), truth());
        assert_eq!((snapshot.totals.sockets, snapshot.totals.connections), (140, 70));
        assert_eq!((snapshot.totals.opened_total, snapshot.quality.drift.total()), (0, 0));
        for row in &snapshot.endpoints {
            assert_eq!(row.process.map(|process| process.pid.0), Some(process::id()), "{:?}", row.key);
        }
    });
}

#[test]
fn new_connections_are_counted_as_they_come() {
    in_private_netns(|| {
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 5);
        let mut engine = observe();
        pairs.more("127.0.0.1:7000", 50);
        events_reach_ss(&mut engine);
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!((snapshot.totals.sockets, snapshot.totals.connections), (110, 55));
        assert_eq!(snapshot.totals.opened_total, 100, "both ends of 50 connections");
        assert_eq!(inbound(&snapshot, "127.0.0.1:7000").map(|row| row.opened_total), Some(50));
        assert_equals_ss(&mut engine);
    });
}

#[test]
fn a_listener_and_a_client_name_their_process_by_events_alone() {
    in_private_netns(|| {
        let mut engine = observe();
        let _pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 3);
        eventually(&mut engine, "the process of both rows", |snapshot| {
            let pid = |row: Option<&observer::model::snapshot::EndpointRow>| Some(row?.process?.pid.0);
            let this = Some(process::id());
            (pid(inbound(snapshot, "127.0.0.1:7000")) == this && pid(outbound(snapshot, "127.0.0.1")) == this)
                .then_some(())
        });
    });
}

#[test]
fn the_client_closes_first() {
    in_private_netns(|| {
        let mut engine = observe();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 20);
        pairs.clients.clear();
        // It passes: observer and ss would see different numbers.
        wait_for_sockets("fin-wait-1", 0);
        events_reach_ss(&mut engine);
        assert_eq!(truth().values().sum::<u32>(), 41, "20 CLOSE-WAIT, 20 FIN-WAIT-2, 1 LISTEN");
        assert_equals_ss(&mut engine);
        pairs.accepted.clear();
        events_reach_ss(&mut engine);
        assert_equals_ss(&mut engine);
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!((snapshot.totals.sockets, snapshot.totals.closed_total), (0, 40));
        assert_eq!(outbound(&snapshot, "127.0.0.1").unwrap().destinations[0].time_wait, 20);
        let kernel = std::fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
        assert!(kernel.contains(" tw 20 "), "{kernel}");
    });
}

#[test]
fn the_server_closes_first() {
    in_private_netns(|| {
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 20);
        let mut engine = observe();
        pairs.accepted.clear();
        wait_for_sockets("fin-wait-1", 0);
        events_reach_ss(&mut engine);
        pairs.clients.clear();
        events_reach_ss(&mut engine);
        assert_equals_ss(&mut engine);
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!((snapshot.totals.sockets, snapshot.totals.closed_total), (0, 40));
    });
}

#[test]
fn a_reset_ends_both_sides_at_once_and_leaves_no_time_wait() {
    in_private_netns(|| {
        let mut engine = observe();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 20);
        for mut server in pairs.accepted.drain(..) {
            let client = pairs.clients.remove(0);
            SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(server.read(&mut [0]).map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
        }
        events_reach_ss(&mut engine);
        assert_equals_ss(&mut engine);
        assert_eq!(truth().values().sum::<u32>(), 1, "only the listener is left");
        assert_eq!(engine.snapshot(0).totals.closed_total, 40);
    });
}

#[test]
fn v4_mapped_peers_are_counted_as_ipv4() {
    in_private_netns(|| {
        let mut engine = observe();
        // A listener on every address of both families, reached by IPv4, by IPv6, and by IPv6 with a mapped address.
        let mut pairs = Pairs::open("[::]:7000", "127.0.0.1:7000", 4);
        pairs.more("[::1]:7000", 3);
        pairs.more("[::ffff:127.0.0.1]:7000", 2);
        events_reach_ss(&mut engine);
        assert_equals_ss(&mut engine);
        let snapshot = engine.snapshot(usize::MAX);
        let sockets = |local: &str| inbound(&snapshot, local).map(|row| row.sockets);
        assert_eq!((sockets("127.0.0.1:7000"), sockets("[::1]:7000")), (Some(6), Some(3)));
        assert_eq!((snapshot.totals.sockets, snapshot.totals.connections), (18, 9));
        let late = observe().snapshot(usize::MAX);
        assert_eq!(counted(&late), counted(&snapshot), "found by a scan as by events");
    });
}

#[test]
fn a_listener_that_closes_leaves_its_accepted_connections() {
    in_private_netns(|| {
        let mut engine = observe();
        let Pairs { listener, clients, accepted } = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 6);
        drop(listener);
        eventually(&mut engine, "no listener", |snapshot| {
            inbound(snapshot, "127.0.0.1:7000").filter(|row| !row.listening && row.sockets == 6).map(drop)
        });
        // Found without their listener, they still are what they are: their port is outside of the range.
        let late = observe().snapshot(usize::MAX);
        assert_eq!(inbound(&late, "127.0.0.1:7000").map(|row| row.sockets), Some(6));
        drop((clients, accepted));
    });
}

#[test]
fn other_namespaces_are_left_alone() {
    in_private_netns(|| {
        let mut engine = observe();
        let here = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 2);
        in_private_netns(|| drop(Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 7)));
        let last = TcpStream::connect("127.0.0.1:7000").unwrap();
        events_reach_ss(&mut engine);
        assert_eq!(engine.snapshot(0).totals.opened_total, 6);
        drop((here, last));
    });
}
