//! `observer record -` into a pipe that nobody reads while connections come and go: what does not fit is counted as lost, the
//! engine goes on, and the next round of scans corrects the reader's numbers, which are those of `ss`.

use std::{
    collections::VecDeque,
    io::{self, Read},
    net::{TcpListener, TcpStream},
    process::{ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use observer::replay::Replay;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PATIENCE, Pairs, counted, in_private_netns, truth};

/// What came through the pipe and was not replayed yet.
#[derive(Clone, Default)]
struct Arrived(Arc<Mutex<VecDeque<u8>>>);

impl Read for Arrived {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.0.lock().unwrap().read(bytes)?;
        // More may come.
        if read == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(read) }
    }
}

impl Arrived {
    /// Takes in what comes next; false at the pipe's end.
    fn receive(&self, pipe: &mut ChildStdout) -> bool {
        let mut bytes = vec![0; 1 << 16];
        let read = pipe.read(&mut bytes).unwrap();
        self.0.lock().unwrap().extend(&bytes[..read]);
        read > 0
    }
}

/// Connections that are opened and reset, one after the other: no TIME_WAIT keeps a port.
fn churn(listener: &TcpListener, count: usize) {
    let address = listener.local_addr().unwrap();
    for _ in 0..count {
        let client = TcpStream::connect(address).unwrap();
        let accepted = listener.accept().unwrap();
        crate::sockets::reset(client.into());
        drop(accepted);
    }
}

/// The number before these words.
fn number(text: &str, words: &str) -> u64 {
    let before = text.split(words).next().unwrap();
    let digits = before.rsplit(' ').find(|word| !word.is_empty()).unwrap();
    digits.replace(',', "").parse().unwrap_or_else(|_| panic!("no number before {words:?} in {text}"))
}

#[test]
fn what_a_slow_reader_does_not_take_is_counted_and_corrected_and_delays_nothing() {
    in_private_netns(|| {
        let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_observer"))
            .args(["--own-netns", "record", "-", "--max-waiting", "64K"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let arrived = Arrived::default();
        // Its hooks are attached.
        arrived.receive(&mut pipe);
        let mut replay = Replay::start(arrived.clone()).unwrap();
        let deadline = Instant::now() + 3 * PATIENCE;
        let (mut made, mut connections) = (0, 4_000);
        let pairs = loop {
            // Nobody reads meanwhile. Where the engine waits for a CPU the ring overflows in place of the queue: then there are more.
            churn(&listener, connections);
            made += connections;
            connections *= 2;
            // What the reader has to learn after that, of a scan if their beginnings and ends are lost.
            let mut pairs = Pairs::open("127.0.0.1:7002", "127.0.0.1:7002", 20);
            pairs.clients.truncate(15);
            loop {
                replay.finish().unwrap();
                let seen = replay.snapshot(usize::MAX);
                if counted(&seen) == truth() {
                    break;
                }
                let quality = &seen.quality;
                assert!(Instant::now() < deadline, "not the numbers of ss: {:?}, {quality:?}", counted(&seen));
                // Something comes each second.
                assert!(arrived.receive(&mut pipe), "the recording has ended");
            }
            if replay.snapshot(0).quality.stream_lost > 0 {
                break pairs;
            }
        };
        let reading = arrived.clone();
        let reader = thread::spawn(move || while reading.receive(&mut pipe) {});
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        reader.join().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
        replay.finish().unwrap();
        let quality = replay.snapshot(0).quality;
        let (lost, records) = (number(&said, " inputs lost"), number(&said, " records"));
        assert_eq!(lost, quality.stream_lost, "{said}");
        // The engine went on to take records off the ring: a connection makes six and more.
        let unseen = quality.losses.total();
        assert!(records + lost + unseen >= 6 * made as u64, "{said}; {made} made, {unseen} lost in the kernel");
        drop(pairs);
    });
}
