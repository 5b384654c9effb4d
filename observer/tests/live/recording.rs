//! Recordings of real traffic: a replay shows what observer saw, and a damaged file never makes the reader panic.

use std::{
    fs::{self, File},
    time::Duration,
};

use observer::{
    engine::Engine,
    model::{snapshot::Snapshot, units::TcpState},
    recording::{Next, ReadError, Reader},
    replay::Replay,
};
use proptest::prelude::*;

use crate::support::{Pairs, eventually, in_private_netns, inbound, options};

/// Connections that come and go, with an engine that records them; what it saw last, and the recording.
fn recorded() -> (Snapshot, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let mut engine = Engine::start_recording(options(), || Ok(File::create_new(&path)?)).unwrap();
    let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 20);
    pairs.clients.truncate(15);
    eventually(&mut engine, "connections that their clients closed", |snapshot| {
        let server = inbound(snapshot, "127.0.0.1:7000")?;
        (server.states.get(TcpState::CloseWait) == 5 && snapshot.totals.opened_total == 40).then_some(())
    });
    engine.scan().unwrap();
    let seen = engine.snapshot(usize::MAX);
    let tally = engine.finish().unwrap().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(tally.bytes, bytes.len() as u64);
    assert!(tally.records >= 40 && tally.last_at > seen.uptime, "{tally:?}");
    (seen, bytes)
}

/// Reads all it can: every input as text, and the error that stopped the reader.
fn read(bytes: &[u8]) -> (Vec<String>, Option<ReadError>) {
    let mut inputs = Vec::new();
    let mut reader = match Reader::start(bytes) {
        Ok(reader) => reader,
        Err(error) => return (inputs, Some(error)),
    };
    loop {
        match reader.next(Duration::MAX) {
            Ok(Next::Input(at, input)) => inputs.push(format!("{at:?} {input:?}")),
            Ok(Next::Later | Next::End) => return (inputs, None),
            Err(error) => return (inputs, Some(error)),
        }
    }
}

#[test]
fn a_replay_shows_what_was_seen_at_the_same_moment() {
    in_private_netns(|| {
        let (seen, bytes) = recorded();
        let mut replay = Replay::start(bytes.as_slice()).unwrap();
        replay.advance(seen.uptime).unwrap();
        let mut replayed = replay.snapshot(usize::MAX);
        // A recording knows the wall clock of its start: what it says of later is reckoned.
        let off = replayed.taken_at.duration_since(seen.taken_at).unwrap_or_else(|error| error.duration());
        assert!(off < Duration::from_secs(5), "{off:?}");
        replayed.taken_at = seen.taken_at;
        assert_eq!(format!("{replayed:#?}"), format!("{seen:#?}"));
        // In steps it is the same.
        let mut replay = Replay::start(bytes.as_slice()).unwrap();
        for step in 0..=100 {
            replay.advance(seen.uptime * step / 100).unwrap();
            replay.snapshot(1);
        }
        let stepped = replay.snapshot(usize::MAX);
        assert_eq!(format!("{:#?}", stepped.endpoints), format!("{:#?}", seen.endpoints));
    });
}

#[test]
fn a_recording_that_was_cut_off_at_any_byte_replays_up_to_there() {
    in_private_netns(|| {
        let (_, bytes) = recorded();
        let (whole, error) = read(&bytes);
        assert!(error.is_none() && whole.len() >= 40, "{error:?}");
        let mut before = 0;
        for length in 0..bytes.len() {
            let (inputs, error) = read(&bytes[..length]);
            assert_eq!(inputs, whole[..inputs.len()], "{length} of {} bytes", bytes.len());
            assert!(inputs.len() >= before);
            if inputs.len() > before {
                let mut replay = Replay::start(&bytes[..length]).unwrap();
                replay.finish().unwrap();
                replay.snapshot(1);
            }
            before = inputs.len();
            // Without its header it is no recording; with it, a cut is no error.
            assert!(
                matches!(error, None | Some(ReadError::NotARecording | ReadError::NoHeader)),
                "{length} bytes: {error:?}"
            );
            assert!(error.is_none() || inputs.is_empty());
        }
        assert!(before < whole.len(), "the last byte counts");
    });
}

#[test]
fn a_damaged_recording_gives_an_error_or_what_came_before_the_damage() {
    in_private_netns(|| {
        let (_, bytes) = recorded();
        let (whole, _) = read(&bytes);
        let places = prop::collection::vec((0..bytes.len(), 1_u8..), 1..4);
        proptest!(ProptestConfig::with_cases(2_000), |(places in places)| {
            let mut damaged = bytes.clone();
            for (at, bits) in places {
                damaged[at] ^= bits;
            }
            let (inputs, error) = read(&damaged);
            prop_assert!(inputs.len() <= whole.len());
            prop_assert_eq!(&inputs, &whole[..inputs.len()]);
            prop_assert!(damaged == bytes || error.is_some() || inputs.len() < whole.len());
        });
    });
}
