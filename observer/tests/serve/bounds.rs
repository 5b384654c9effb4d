//! Slow clients, and many of them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    server::{Server, read_to_end, status},
};

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// Whether the server has closed this connection, without waiting.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 1024]) {
        Ok(0) => true,
        Ok(_) => panic!("it sent something"),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn a_client_that_sends_its_header_slowly_is_closed_and_delays_nobody() {
    let server = Server::start();
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n").unwrap();
    let started = Instant::now();
    let mut scrapes = 0;
    while !is_closed(&slow) {
        assert!(started.elapsed() < PATIENCE, "a client without an end of its header is never closed");
        slow.set_nonblocking(false).unwrap();
        // A byte now and then does not move the deadline. The last one can meet a connection that is closed.
        let _ = slow.write_all(b"X");
        server.assert_serves();
        scrapes += 1;
    }
    assert!(scrapes > 1, "{scrapes}");
}

#[test]
fn idle_connections_end_and_make_room_for_a_scrape() {
    let server = Server::start();
    let idle: Vec<TcpStream> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    // These hold all places: this one waits in the accept queue until one of them ends.
    server.assert_serves();
    let closed = idle.iter().filter(|stream| is_closed(stream)).count();
    assert!(closed >= 1, "nobody made room");
    // The others follow.
    super::eventually("the end of idle connections", || idle.iter().all(is_closed).then_some(()));
    server.assert_serves();
}

#[test]
fn a_connection_is_used_again_within_its_idle_time() {
    let server = Server::start();
    let mut stream = server.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"healthy\n") {
            let mut bytes = [0; 1024];
            let got = stream.read(&mut bytes).unwrap();
            assert!(got > 0, "closed");
            response.extend_from_slice(&bytes[..got]);
        }
        assert_eq!(status(&response), Some(200));
    }
    assert_eq!(read_to_end(&mut stream), b"", "then it is closed without a word");
}

#[test]
fn a_client_that_takes_nothing_is_closed() {
    let server = Server::start();
    let stream = server.connect();
    // Requests without end, and no response read: both directions fill up.
    rustix::net::sockopt::set_socket_recv_buffer_size(stream.as_fd(), 4096).unwrap();
    let mut stream = stream;
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let started = Instant::now();
    loop {
        match stream.write(&requests) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
                break;
            }
        }
        assert!(started.elapsed() < PATIENCE, "a client that takes nothing is never closed");
    }
    server.assert_serves();
}
