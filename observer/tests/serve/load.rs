//! Scrapes cost no event.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::server::Server;

/// Connections of the load.
const CONNECTIONS: u32 = 3000;
/// Scrapes at the same time, ten in a second.
const SCRAPES: u32 = 100;

/// One scrape on a connection that stays.
fn scrape(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn ten_scrapes_a_second_lose_no_event_and_counts_stay_right() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let opened_before = server.sum("observer_connections_opened_total");
    let load = thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            client.shutdown(Shutdown::Both).unwrap();
            drop((client, server));
        }
    });
    let started = Instant::now();
    for scraped in 1..=SCRAPES {
        let text = scrape(&mut server.connect());
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("\nobserver_events_total "), "{text}");
        // The pace: a read that gets nothing ends in time.
        while started.elapsed() < Duration::from_millis(100) * scraped {
            thread::yield_now();
        }
    }
    load.join().unwrap();
    // Both ends of each connection, and those of the scrapes.
    let least = opened_before + f64::from(2 * (CONNECTIONS + SCRAPES));
    super::eventually("every connection is counted", || {
        (server.sum("observer_connections_opened_total") >= least).then_some(())
    });
    assert!(server.sum("observer_events_lost_total") < 0.5, "lost: {}", server.get("/metrics"));
}
