//! How long the engine's thread rests: a ring that fills wakes it.

use std::{
    future::pending,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, in_private_netns, listen, options, start};
use observer::engine::EngineOptions;

/// An eighth of it are some 90 records.
const RING: u32 = 64 << 10;
/// A connection that is made and closed writes ten and more.
const ENOUGH: u32 = 40;

#[test]
fn a_ring_that_fills_wakes_its_reader_and_one_that_does_not_lets_it_rest() {
    in_private_netns(|| {
        let listener = listen("127.0.0.1:7000", 128);
        let mut engine = start(EngineOptions { ring_bytes: RING, ..options() });
        let rest = engine.rest().unwrap();
        let connect = move |count| {
            for _ in 0..count {
                drop((TcpStream::connect("127.0.0.1:7000").unwrap(), listener.accept().unwrap()));
            }
        };
        // What the start has left in the ring may wake it once.
        engine.poll().unwrap();
        let _ = rest.wait(Duration::ZERO, pending::<()>());

        connect(1);
        let (began, pause) = (Instant::now(), Duration::from_millis(300));
        assert_eq!(rest.wait(pause, pending::<()>()), None);
        assert!(began.elapsed() >= pause, "woken by a few records");
        engine.poll().unwrap();

        let load = thread::spawn(move || connect(ENOUGH));
        let began = Instant::now();
        assert_eq!(rest.wait(2 * PATIENCE, pending::<()>()), None);
        assert!(began.elapsed() < PATIENCE, "nobody woke it");
        load.join().unwrap();
        engine.poll().unwrap();
        assert_eq!(engine.snapshot(0).quality.losses.ring_full, 0, "there was room for all");

        assert_eq!(rest.wait(2 * PATIENCE, async { 7 }), Some(7), "who asks for something wakes it too");
    });
}
