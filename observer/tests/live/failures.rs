//! connect() that does not get through.

use std::{io::ErrorKind, net::TcpStream, thread};

use observer::model::units::TcpState;

use crate::support::{
    assert_equals_ss, events_reach_ss, eventually, in_private_netns, listen, observe, outbound, set_sysctl, wait_until,
};

#[test]
fn refused_connections_are_failures() {
    in_private_netns(|| {
        let mut engine = observe();
        for _ in 0..10 {
            let error = TcpStream::connect("127.0.0.1:7000").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        eventually(&mut engine, "ten failures", |snapshot| (snapshot.totals.failed_total == 10).then_some(()));
        let snapshot = engine.snapshot(0);
        assert_eq!((snapshot.totals.opened_total, snapshot.failures_total), (0, 0));
        assert_equals_ss(&mut engine);
    });
}

#[test]
fn a_connection_that_times_out_is_seen_waiting_and_then_failing() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_syn_retries", "1");
        let mut engine = observe();
        // One connection fills the accept queue of backlog 0; what comes after it gets no answer.
        let full = listen("127.0.0.1:7000", 0);
        let first = TcpStream::connect("127.0.0.1:7000").unwrap();
        let waiting = thread::spawn(|| TcpStream::connect("127.0.0.1:7000").unwrap_err().kind());
        eventually(&mut engine, "one in SYN_SENT", |snapshot| {
            outbound(snapshot, "127.0.0.1").filter(|row| row.states.get(TcpState::SynSent) == 1).map(drop)
        });
        assert_equals_ss(&mut engine);
        wait_until("the timeout", || waiting.is_finished());
        assert_eq!(waiting.join().unwrap(), ErrorKind::TimedOut);
        eventually(&mut engine, "one failure", |snapshot| (snapshot.totals.failed_total == 1).then_some(()));
        let refused = engine.snapshot(0).failures.into_iter().find(|row| row.key.call.is_some());
        assert_eq!(refused, None, "connect() got all that it needed");
        events_reach_ss(&mut engine);
        assert_equals_ss(&mut engine);
        drop((full, first));
    });
}

#[test]
fn running_out_of_ports_is_a_failure() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40009");
        let mut engine = observe();
        let listener = listen("127.0.0.1:7000", 128);
        let clients: Vec<_> = (0..10).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
        let error = TcpStream::connect("127.0.0.1:7000").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        eventually(&mut engine, "ten open, one failed", |snapshot| {
            (snapshot.totals.failed_total == 1 && snapshot.totals.connections == 10).then_some(())
        });
        assert_equals_ss(&mut engine);
        drop((listener, clients));
    });
}
