//! What the protocol adds: data in the SYN, cookies, several paths, deferred accepts.

use super::*;

#[test]
fn data_in_the_syn() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_fastopen", "3");
        let mut engine = observe();
        let listener = fast_open_listener(addr(V4)).unwrap();
        let open = || {
            let client = socket(addr(V4));
            fast_open(&client, addr(V4)).unwrap();
            (client, accept(&listener))
        };
        // The first connection asks for the cookie that the others use.
        let mut pairs: Vec<_> = (0..5).map(|_| open()).collect();
        // connect() that waits for the first write.
        let lazy = socket(addr(V4));
        set_option(&lazy, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1).unwrap();
        lazy.connect(&addr(V4).into()).unwrap();
        lazy.send(b"x").unwrap();
        pairs.push((lazy, accept(&listener)));
        assert!(mib("TcpExt", "TCPFastOpenPassive") >= 5, "no data went with a SYN: this test would show nothing");
        let snapshot = settle(&mut engine, (12, (12, 0, 0)));
        assert_eq!(snapshot.totals.connections, 6);

        // Accepted, and the client never learns of it: a full socket in SYN_RECV.
        let unaware = socket(addr(V4));
        drop_incoming_packets(&unaware).unwrap();
        unaware.set_nonblocking(true).unwrap();
        // With a cookie it sends at once.
        fast_open(&unaware, addr(V4)).unwrap();
        let early = accept(&listener);
        let snapshot = settle(&mut engine, (14, (12, 0, 0)));
        assert_eq!(inbound(&snapshot, V4).unwrap().states.get(TcpState::SynReceived), 1);
        assert_eq!(outbound(&snapshot, "127.0.0.1").unwrap().states.get(TcpState::SynSent), 1);
        reset(early);
        drop(unaware);
        drop(pairs);
        drop(listener);
        settle(&mut engine, (0, (12, 12, 2)));
    });
}

/// A counter of `/proc/net/netstat` of the calling thread's namespace.
fn mib(group: &str, name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let found = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("{group} has no {name}")).1.parse().unwrap()
}

#[test]
fn syn_cookies() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_syncookies", "2");
        let mut engine = observe();
        let mut pairs = Pairs::open("[::]:7000", V4, 10);
        pairs.more(V6, 10);
        pairs.more(MAPPED, 10);
        assert!(mib("TcpExt", "SyncookiesRecv") >= 30, "no cookie was used: this test would show nothing");
        let snapshot = settle(&mut engine, (60, (60, 0, 0)));
        assert_eq!(snapshot.totals.connections, 30);
        drop(pairs);
        assert_eq!(flows(&settle(&mut engine, (0, (60, 60, 0)))), (60, 60, 0));
    });
}

#[test]
fn multipath_connections_are_counted_by_their_subflows() {
    in_private_netns(|| {
        if multipath(addr(V4)).is_none() {
            return skip(&multipath_connections_are_counted_by_their_subflows, "this kernel has no MPTCP");
        }
        let mut engine = observe();
        let listener = multipath(addr(V4)).unwrap();
        listener.bind(&addr(V4).into()).unwrap();
        listener.listen(64).unwrap();
        let mut clients = Vec::new();
        let mut accepted = Vec::new();
        for plain in [false, false, false, true, true] {
            // A client without MPTCP falls back to TCP.
            let client = if plain { socket(addr(V4)) } else { multipath(addr(V4)).unwrap() };
            client.connect(&addr(V4).into()).unwrap();
            accepted.push(accept(&listener));
            client.send(b"x").unwrap();
            assert_eq!(TcpStream::from(accepted.last().unwrap().try_clone().unwrap()).read(&mut [0]).unwrap(), 1);
            clients.push(client);
        }
        let snapshot = settle(&mut engine, (10, (10, 0, 0)));
        assert_eq!(snapshot.totals.connections, 5);
        let refused = multipath(addr(V4)).unwrap();
        assert!(refused.connect(&addr("127.0.0.1:1").into()).is_err());
        drop(refused);
        drop((clients, accepted, listener));
        settle(&mut engine, (0, (10, 10, 1)));
    });
}

#[test]
fn a_server_with_deferred_accept_has_request_sockets() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener: Socket = listen(V4, 128).into();
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60).unwrap();
        let mut clients: Vec<_> = (0..6).map(|_| TcpStream::connect(V4).unwrap()).collect();
        let snapshot = settle(&mut engine, (6, (6, 0, 0)));
        assert_eq!(inbound(&snapshot, V4).unwrap().states.get(TcpState::SynReceived), 6);
        for client in &mut clients[..4] {
            client.write_all(b"x").unwrap();
        }
        let accepted: Vec<_> = (0..4).map(|_| accept(&listener)).collect();
        let snapshot = settle(&mut engine, (10, (10, 0, 0)));
        assert_eq!(inbound(&snapshot, V4).unwrap().states.get(TcpState::SynReceived), 2);
        for client in clients {
            reset(client.into());
        }
        drop((accepted, listener));
        settle(&mut engine, (0, (10, 10, 0)));
    });
}
