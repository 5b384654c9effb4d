//! How connections end: killed, reset, shut down, closed over, and every state on the way.

use super::*;

#[test]
fn a_client_process_is_killed() {
    if let Some((target, channel)) = role() {
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(&target).unwrap()).collect();
        keep_open(&channel);
        return drop(clients);
    }
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen(V4, 128);
        let mut client = TestProcess::start(&a_client_process_is_killed, V4);
        client.wait_until_ready();
        let accepted: Vec<_> = (0..20).map(|_| listener.accept().unwrap().0).collect();
        let snapshot = settle(&mut engine, (40, (40, 0, 0)));
        assert_eq!(snapshot.totals.connections, 20);
        client.kill();
        assert!(accepted.iter().all(has_ended));
        let snapshot = settle(&mut engine, (20, (40, 20, 0)));
        // The clients' ends have no socket any more, only what is left of it.
        assert_eq!(outbound(&snapshot, "127.0.0.1").unwrap().states.get(TcpState::FinWait2), 20);
        drop(accepted);
        assert_eq!(flows(&settle(&mut engine, (0, (40, 40, 0)))), (40, 40, 0));
    });
}

#[test]
fn a_server_process_is_killed() {
    if let Some((address, channel)) = role() {
        let listener = listen(&address, 128);
        (&channel).write_all(b".").unwrap();
        let accepted: Vec<_> = (0..20).map(|_| listener.accept().unwrap().0).collect();
        keep_open(&channel);
        return drop(accepted);
    }
    in_private_netns(|| {
        let mut engine = observe();
        let mut server = TestProcess::start(&a_server_process_is_killed, V4);
        server.wait_until_ready();
        // Ten more than it accepts, and one that has sent what it never read.
        let clients: Vec<_> = (0..30).map(|_| TcpStream::connect(V4).unwrap()).collect();
        server.wait_until_ready();
        (&clients[0]).write_all(b"unread").unwrap();
        let snapshot = settle(&mut engine, (60, (60, 0, 0)));
        assert_eq!(snapshot.totals.connections, 30);
        assert!(inbound(&snapshot, V4).unwrap().listening);
        server.kill();
        assert!(clients.iter().all(has_ended));
        let snapshot = settle(&mut engine, (19, (60, 41, 0)));
        // 1 with unread data and 10 never accepted were reset; 19 were closed.
        assert_eq!(outbound(&snapshot, "127.0.0.1").unwrap().states.get(TcpState::CloseWait), 19);
        drop(clients);
        assert_eq!(flows(&settle(&mut engine, (0, (60, 60, 0)))), (60, 60, 0));
    });
}

#[test]
fn resets_from_either_side_in_both_families() {
    in_private_netns(|| {
        let mut engine = observe();
        let mut pairs = Pairs::open("[::]:7000", V4, 8);
        pairs.more(V6, 8);
        pairs.more(MAPPED, 8);
        for (index, (client, server)) in pairs.clients.drain(..).zip(pairs.accepted.drain(..)).enumerate() {
            let (closes, other) = if index % 2 == 0 { (client, server) } else { (server, client) };
            reset(closes.into());
            assert!(has_ended(&other));
        }
        settle(&mut engine, (0, (48, 48, 0)));
        assert_eq!(truth().len(), 1, "only the listener is left");
    });
}

#[test]
fn ss_kills_connections_and_a_listener() {
    in_private_netns(|| {
        let mut engine = observe();
        let pairs = Pairs::open(V4, V4, 10);
        let other = Pairs::open("127.0.0.1:7001", "127.0.0.1:7001", 3);
        run("ss", &["-K", "-tn", "state", "established", "dport", "=", "7000"]);
        assert!(pairs.accepted.iter().all(has_ended));
        let snapshot = settle(&mut engine, (6, (26, 20, 0)));
        assert_eq!(snapshot.totals.connections, 3);
        run("ss", &["-K", "-tnl", "sport", "=", "7000"]);
        let snapshot = settle(&mut engine, (6, (26, 20, 0)));
        assert!(!inbound(&snapshot, V4).unwrap().listening);
        // Their owners keep the fds: their ends are counted already, and must not be counted again.
        drop(pairs);
        assert_eq!(flows(&settle(&mut engine, (6, (26, 20, 0)))), (26, 20, 0));
        drop(other);
    });
}

#[test]
fn one_side_is_shut_down_and_data_flows_on() {
    in_private_netns(|| {
        let mut engine = observe();
        let pairs = Pairs::open(V4, V4, 5);
        for (mut client, mut server) in pairs.clients.iter().zip(&pairs.accepted) {
            client.shutdown(Shutdown::Write).unwrap();
            assert!(has_ended(server));
            server.write_all(b"still").unwrap();
            client.read_exact(&mut [0; 5]).unwrap();
        }
        let snapshot = settle(&mut engine, (10, (10, 0, 0)));
        let states = |local: &str, state| match inbound(&snapshot, local).or(outbound(&snapshot, "127.0.0.1")) {
            Some(row) => row.states.get(state),
            None => 0,
        };
        assert_eq!(states(V4, TcpState::CloseWait), 5);
        assert_eq!(outbound(&snapshot, "127.0.0.1").unwrap().states.get(TcpState::FinWait2), 5);
        // Both ends keep their sockets: nothing has ended.
        drop(pairs);
        assert_eq!(flows(&settle(&mut engine, (0, (10, 10, 0)))), (10, 10, 0));
    });
}

#[test]
fn closed_clients_of_a_server_that_stays_open_are_in_fin_wait_2_without_a_socket() {
    in_private_netns(|| {
        let mut engine = observe();
        let mut pairs = Pairs::open("[::]:7000", V4, 6);
        pairs.more(V6, 4);
        pairs.clients.clear();
        assert!(pairs.accepted.iter().all(has_ended));
        let snapshot = settle(&mut engine, (10, (20, 10, 0)));
        let left = |ip: &str| outbound(&snapshot, ip).map(|row| (row.sockets, row.states.get(TcpState::FinWait2)));
        assert_eq!((left("127.0.0.1"), left("::1")), (Some((0, 6)), Some((0, 4))));
        pairs.accepted.clear();
        let snapshot = settle(&mut engine, (0, (20, 20, 0)));
        let left = |ip: &str| outbound(&snapshot, ip).map(|row| (row.sockets, row.states.get(TcpState::TimeWait)));
        assert_eq!((left("127.0.0.1"), left("::1")), (Some((0, 6)), Some((0, 4))));
    });
}

#[test]
fn a_listener_closes_over_children_that_were_never_accepted() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen(V4, 128);
        let clients: Vec<_> = (0..15).map(|_| TcpStream::connect(V4).unwrap()).collect();
        let snapshot = settle(&mut engine, (30, (30, 0, 0)));
        assert_eq!(snapshot.totals.connections, 15);
        drop(listener);
        assert!(clients.iter().all(has_ended));
        settle(&mut engine, (0, (30, 30, 0)));
    });
}

/// One connection in each state. Lost packets keep each of them in its state.
#[test]
fn every_state_is_counted_in_every_family() {
    for target in [V4, V6, MAPPED] {
        in_private_netns(move || {
            let mut engine = observe();
            let listener: Socket = listen("[::]:7000", 128).into();
            let open = || {
                let client = socket(addr(target));
                client.connect(&addr(target).into()).unwrap();
                (client, accept(&listener))
            };
            let settled = |socket: &Socket| {
                wait_until("the peer's end", || TcpStream::from(socket.try_clone().unwrap()).peek(&mut [0]).is_ok());
            };
            let established = open();
            // FIN_WAIT2 and CLOSE_WAIT
            let half = open();
            half.0.shutdown(Shutdown::Write).unwrap();
            settled(&half.1);
            // FIN_WAIT1: the peer does not hear of it.
            let unheard = open();
            drop_incoming_packets(&unheard.1).unwrap();
            unheard.0.shutdown(Shutdown::Write).unwrap();
            // LAST_ACK: the peer has closed and does not hear the answer.
            let last = open();
            last.0.shutdown(Shutdown::Write).unwrap();
            settled(&last.1);
            drop_incoming_packets(&last.0).unwrap();
            last.1.shutdown(Shutdown::Write).unwrap();
            // CLOSING: both closed, and one of them hears nothing.
            let closing = open();
            drop_incoming_packets(&closing.1).unwrap();
            closing.0.shutdown(Shutdown::Write).unwrap();
            closing.1.shutdown(Shutdown::Write).unwrap();
            // TIME_WAIT
            let (client, server) = open();
            drop(client);
            settled(&server);
            drop(server);
            // SYN_SENT and a request socket: the answer does not arrive.
            let request = socket(addr(target));
            drop_incoming_packets(&request).unwrap();
            start_connect(&request, addr(target)).unwrap();

            let snapshot = settle(&mut engine, (11, (12, 2, 0)));
            let (v4, v6) = ("127.0.0.1", "::1");
            let (ip, at) = if target == V6 { (v6, V6) } else { (v4, V4) };
            let (out, inb) = (outbound(&snapshot, ip).unwrap().states, inbound(&snapshot, at).unwrap().states);
            let states: Vec<TcpState> = (out + inb).iter().map(|(state, _)| state).collect();
            let missing: Vec<_> = TcpState::ALL
                .into_iter()
                .filter(|state| !states.contains(state) && !matches!(state, TcpState::Closed | TcpState::Listen))
                .collect();
            assert_eq!(missing, [], "{out:?} {inb:?}");
            drop((established, half, request));
            settle(&mut engine, (6, (12, 6, 1)));
            [unheard, last, closing].into_iter().flat_map(|(client, server)| [client, server]).for_each(reset);
            settle(&mut engine, (0, (12, 12, 1)));
        });
    }
}
