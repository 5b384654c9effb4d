//! Unusual connect()s: to itself, to each other, with a chosen port, refused, and repeated.

use super::*;

#[test]
fn a_socket_connected_to_itself_is_one_connection() {
    in_private_netns(|| {
        let mut engine = observe();
        let sockets: Vec<_> =
            [V4, V4, V6].into_iter().map(|at| self_connected(any_port(at)).expect("self-connect")).collect();
        let snapshot = settle(&mut engine, (3, (3, 0, 0)));
        assert_eq!(snapshot.totals.connections, 3);
        assert_eq!(outbound(&snapshot, "127.0.0.1").map(|row| row.sockets), Some(2));
        drop(sockets);
        settle(&mut engine, (0, (3, 3, 0)));
    });
}

#[test]
fn two_sockets_that_connect_to_each_other_are_one_connection_with_no_inbound_end() {
    in_private_netns(|| {
        let mut engine = observe();
        let pairs: Vec<_> =
            [V4, V6].into_iter().map(|at| simultaneous_open(any_port(at)).expect("simultaneous open")).collect();
        let snapshot = settle(&mut engine, (4, (4, 0, 0)));
        assert_eq!(snapshot.totals.connections, 2);
        assert_eq!(outbound(&snapshot, "127.0.0.1").map(|row| row.states.get(TcpState::Established)), Some(2));
        drop(pairs);
        settle(&mut engine, (0, (4, 4, 0)));
    });
}

#[test]
fn clients_that_bound_their_port_are_outbound() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen(V4, 128);
        let clients: Vec<_> = [5000, 5001, 40_000]
            .into_iter()
            .map(|port| {
                let client = socket(addr(V4));
                client.bind(&SocketAddr::new(addr(V4).ip(), port).into()).unwrap();
                client.connect(&addr(V4).into()).unwrap();
                client
            })
            .collect();
        let snapshot = settle(&mut engine, (6, (6, 0, 0)));
        assert_eq!(outbound(&snapshot, "127.0.0.1").map(|row| row.sockets), Some(3));
        drop((listener, clients));
        assert_eq!(flows(&settle(&mut engine, (0, (6, 6, 0)))), (6, 6, 0));
    });
}

#[test]
fn refused_timed_out_and_port_exhausted_connects_are_failures_and_nothing_else() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40009");
        let mut engine = observe();
        let error = |at: &str| TcpStream::connect(at).unwrap_err().kind();
        assert_eq!(
            (error("127.0.0.1:1"), error("[::1]:1")),
            (ErrorKind::ConnectionRefused, ErrorKind::ConnectionRefused)
        );
        assert_eq!(flows(&settle(&mut engine, (0, (0, 0, 2)))), (0, 0, 2));

        let listener = listen("[::]:7000", 128);
        let mut clients: Vec<_> = (0..10).map(|_| TcpStream::connect(V4).unwrap()).collect();
        assert_eq!(error(V4), ErrorKind::AddrNotAvailable);
        // The same socket fails once, and connects once there is a port.
        let again = socket(addr(V4));
        let in_vain = again.connect(&addr(V4).into()).unwrap_err();
        assert_eq!(in_vain.kind(), ErrorKind::AddrNotAvailable);
        assert_eq!(flows(&settle(&mut engine, (20, (20, 0, 4)))), (20, 0, 4));
        reset(clients.remove(0).into());
        settle(&mut engine, (18, (20, 2, 4)));
        again.connect(&addr(V4).into()).unwrap();
        settle(&mut engine, (20, (22, 2, 4)));
        drop((listener, clients, again));
        settle(&mut engine, (0, (22, 22, 4)));

        set_sysctl("ipv4/ip_local_port_range", "41000 41099");
        let silent = silent_listener(addr(V4)).unwrap();
        let waiting: Vec<Socket> = (0..3)
            .map(|_| {
                let client = socket(addr(V4));
                client.set_tcp_user_timeout(Some(Duration::from_millis(1))).unwrap();
                start_connect(&client, addr(V4)).unwrap();
                client
            })
            .collect();
        let closed_while_waiting = socket(addr(V4));
        start_connect(&closed_while_waiting, addr(V4)).unwrap();
        eventually(&mut engine, "SYN_SENT", |snapshot| {
            outbound(snapshot, "127.0.0.1").filter(|row| row.states.get(TcpState::SynSent) > 0).map(drop)
        });
        drop(closed_while_waiting);
        wait_until("the timeouts", || !ss().iter().any(|(state, _)| *state == TcpState::SynSent));
        settle(&mut engine, (0, (22, 22, 8)));
        drop((silent, waiting));
    });
}

#[test]
fn a_socket_whose_connect_failed_connects_elsewhere() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen("[::]:7000", 128);
        let clients: Vec<_> = [V4, V6, MAPPED]
            .into_iter()
            .map(|target| {
                let mut nobody = addr(target);
                nobody.set_port(1);
                let client = socket(nobody);
                for _ in 0..3 {
                    assert_eq!(client.connect(&nobody.into()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
                }
                client.connect(&addr(target).into()).unwrap();
                client
            })
            .collect();
        let snapshot = settle(&mut engine, (6, (6, 0, 9)));
        assert_eq!(snapshot.totals.connections, 3);
        let to_nobody = |row: &observer::model::snapshot::DestinationRow| row.remote.port() == 1 && row.sockets > 0;
        assert!(!outbound(&snapshot, "127.0.0.1").unwrap().destinations.iter().any(to_nobody));
        drop((clients, listener));
        assert_eq!(flows(&settle(&mut engine, (0, (6, 6, 9)))), (6, 6, 9));
    });
}

#[test]
fn a_disconnected_socket_connects_elsewhere() {
    in_private_netns(|| {
        let mut engine = observe();
        let pairs = Pairs::open(V4, V4, 4);
        let other = listen("127.0.0.2:7001", 128);
        for client in &pairs.clients {
            disconnect(client).unwrap();
        }
        assert!(pairs.accepted.iter().all(has_ended));
        settle(&mut engine, (0, (8, 8, 0)));
        for client in &pairs.clients {
            SockRef::from(client).connect(&addr("127.0.0.2:7001").into()).unwrap();
        }
        let snapshot = settle(&mut engine, (8, (16, 8, 0)));
        assert_eq!(snapshot.totals.connections, 4);
        assert_eq!(inbound(&snapshot, "127.0.0.2:7001").map(|row| row.sockets), Some(4));
        // Disconnected while it waits for an answer, too.
        let silent = silent_listener(addr("127.0.0.1:7002")).unwrap();
        let waiting = socket(addr(V4));
        start_connect(&waiting, local(&silent)).unwrap();
        disconnect(&waiting).unwrap();
        assert_eq!(flows(&settle(&mut engine, (8, (16, 8, 1)))), (16, 8, 1));
        drop((pairs, other));
        assert_eq!(flows(&settle(&mut engine, (0, (16, 16, 1)))), (16, 16, 1));
    });
}

#[test]
fn a_socket_listens_that_was_a_client() {
    in_private_netns(|| {
        let mut engine = observe();
        let pairs = Pairs::open(V4, V4, 1);
        let client = SockRef::from(&pairs.clients[0]);
        disconnect(&pairs.clients[0]).unwrap();
        client.set_reuse_address(true).unwrap();
        client.bind(&addr("127.0.0.1:7001").into()).unwrap();
        client.listen(8).unwrap();
        let others: Vec<_> = (0..3).map(|_| TcpStream::connect("127.0.0.1:7001").unwrap()).collect();
        let snapshot = settle(&mut engine, (6, (8, 2, 0)));
        assert_eq!(inbound(&snapshot, "127.0.0.1:7001").map(|row| (row.listening, row.sockets)), Some((true, 3)));
        // And back: it ends its listening, and is a client again, on the port that it listened on.
        disconnect(&pairs.clients[0]).unwrap();
        assert!(others.iter().all(has_ended));
        settle(&mut engine, (0, (8, 8, 0)));
        client.connect(&addr(V4).into()).unwrap();
        for mut engine in [engine, observe()] {
            eventually(&mut engine, "one outbound connection", |snapshot| {
                let is_alone = inbound(snapshot, "127.0.0.1:7001").is_none_or(|row| !row.listening && row.sockets == 0);
                outbound(snapshot, "127.0.0.1").filter(|row| row.sockets == 1 && is_alone).map(drop)
            });
        }
    });
}
