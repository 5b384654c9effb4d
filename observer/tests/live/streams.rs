//! A stream that begins in the middle of a running engine: its reader comes to the same numbers, which are those of `ss`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use observer::{
    decode,
    input::Input,
    model::{event::Event, limit::LimitKind, snapshot::Snapshot, units::NetnsId},
    recording::{Next, Reader, Sink},
    replay::Replay,
};

use crate::support::{Pairs, counted, in_private_netns, listen, scanning, truth, wait_until};

#[derive(Clone, Default)]
pub(crate) struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a reader of these bytes shows; `None` before its first scan.
pub(crate) fn replayed(bytes: &Bytes) -> Option<Snapshot> {
    let bytes = bytes.0.lock().unwrap().clone();
    let mut replay = Replay::start(bytes.as_slice()).ok()?;
    replay.finish().unwrap();
    Some(replay.snapshot(usize::MAX)).filter(|snapshot| snapshot.quality.scans_total > 0)
}

/// The namespaces that this stream says are unchanged.
pub(crate) fn unchanged(bytes: &Bytes) -> BTreeSet<NetnsId> {
    let bytes = bytes.0.lock().unwrap().clone();
    let Ok(mut reader) = Reader::start(bytes.as_slice()) else { return BTreeSet::new() };
    let mut unchanged = BTreeSet::new();
    while let Next::Input(_, input) = reader.next(Duration::MAX).unwrap() {
        if let Input::Unchanged(netns) = input {
            unchanged.insert(netns);
        }
    }
    unchanged
}

/// How the scans of a namespace came about, by a stream of an engine that watches no other.
#[derive(Default)]
pub(crate) struct ScansOf {
    /// Walks of its table.
    pub(crate) walks: usize,
    /// An event came after the last walk, and no scan since.
    pub(crate) has_event: bool,
    /// Scans after such an event that were no walks.
    pub(crate) spared: usize,
}

pub(crate) fn scans_of(bytes: &Bytes, netns: NetnsId) -> ScansOf {
    let bytes = bytes.0.lock().unwrap().clone();
    let mut scans = ScansOf::default();
    let Ok(mut reader) = Reader::start(bytes.as_slice()) else { return scans };
    while let Next::Input(_, input) = reader.next(Duration::MAX).unwrap() {
        match input {
            Input::BeginScan(_) => {
                scans.walks += 1;
                scans.has_event = false;
            }
            Input::EndRound(_) => scans.spared += usize::from(std::mem::take(&mut scans.has_event)),
            Input::Record(record) => {
                let is_change = |event: Event| matches!(event, Event::State { socket, .. } if socket.netns == netns);
                scans.has_event |= decode::event(record).is_ok_and(is_change);
            }
            _ => {}
        }
    }
    scans
}

/// Ports left towards each destination, and every limit, with what a limit of this process hides.
fn ports_and_limits(snapshot: &Snapshot) -> Vec<String> {
    // A row without a socket stays for a while where there was one.
    let destinations = snapshot.endpoints.iter().flat_map(|row| &row.destinations);
    let destinations = destinations.filter(|row| row.sockets + row.time_wait > 0);
    let ports = destinations.map(|row| format!("{} {} {:?} {}", row.local_ip, row.remote, row.ports, row.time_wait));
    // Descriptors and memory of the host move by themselves.
    let is_steady = |kind| matches!(kind, LimitKind::Ports | LimitKind::AcceptQueue | LimitKind::SynQueue);
    let limits = snapshot.limits.iter().filter(|limit| is_steady(limit.kind) && limit.used > 0);
    let limits = limits.map(|limit| format!("{:?} {:?} {} of {}", limit.kind, limit.scope, limit.used, limit.maximum));
    let mut all: Vec<String> = ports.chain(limits).collect();
    all.sort();
    all
}

#[test]
fn a_reader_that_begins_in_the_middle_sees_what_the_engine_and_ss_see() {
    in_private_netns(|| {
        let mut engine = scanning();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 20);
        pairs.clients.truncate(15);
        let crowded = listen("127.0.0.1:7001", 5);
        let waiting: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect("127.0.0.1:7001").unwrap()).collect();
        for _ in 0..10 {
            engine.poll().unwrap();
        }
        let bytes = Bytes::default();
        engine.stream_to(Sink::Viewer(Box::new(bytes.clone()))).unwrap();
        let mut polled = || engine.poll().unwrap();
        wait_until("the first scan of the stream", || {
            polled();
            replayed(&bytes).is_some()
        });
        // What comes after it is in the stream as well.
        let later = Pairs::open("127.0.0.1:7002", "127.0.0.1:7002", 7);
        pairs.accepted.truncate(10);
        wait_until("the numbers of ss", || {
            polled();
            replayed(&bytes).is_some_and(|snapshot| counted(&snapshot) == truth())
        });
        wait_until("the numbers of the engine", || {
            engine.poll().unwrap();
            let (seen, streamed) = (engine.snapshot(usize::MAX), replayed(&bytes).unwrap());
            counted(&seen) == truth() && ports_and_limits(&seen) == ports_and_limits(&streamed)
        });
        let (seen, streamed) = (engine.snapshot(usize::MAX), replayed(&bytes).unwrap());
        assert!(ports_and_limits(&streamed).len() > 5, "{streamed:#?}");
        assert!(streamed.uptime < seen.uptime && streamed.quality.events_total < seen.quality.events_total);
        drop((waiting, crowded, later, pairs));
    });
}
