//! Streams of a real engine's inputs: those of a recording.

use std::{
    io::Write,
    sync::{Condvar, Mutex},
};

use super::*;
use crate::{
    input,
    model::{
        Model,
        snapshot::{NamespaceRow, Snapshot},
    },
    recording::{MAX_WAITING, Next, Reader, Recorder, RecorderBounds, recorder::name::IncidentName},
    replay::{Replay, Trail},
};

const DEMO: &[u8] = include_bytes!("../../tests/data/demo.obs");

/// A reader that takes nothing while it is closed.
#[derive(Clone, Default)]
struct Gate(Arc<GateShared>);

#[derive(Default)]
struct GateShared {
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    taken: Vec<u8>,
}

impl Gate {
    fn open(&self) {
        self.0.state.lock().unwrap().is_open = true;
        self.0.opened.notify_all();
    }

    fn close(&self) {
        self.0.state.lock().unwrap().is_open = false;
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.state.lock().unwrap().taken.clone()
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let GateShared { state, opened } = &*self.0;
        let mut state = opened.wait_while(state.lock().unwrap(), |state| !state.is_open).unwrap();
        state.taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An engine that takes the inputs of a recording.
struct Engine {
    reader: Reader<&'static [u8]>,
    model: Model,
    streams: Streams,
    now: Duration,
    is_scanning: bool,
}

impl Engine {
    fn start(max_waiting: usize) -> Self {
        let reader = Reader::start(DEMO).unwrap();
        let about = reader.header().clone();
        let model = Model::new(about.hooks.clone(), about.basis);
        let streams = Streams::new(about, max_waiting);
        Self { reader, model, streams, now: Duration::ZERO, is_scanning: false }
    }

    /// False at the end.
    fn step(&mut self) -> bool {
        let Next::Input(at, input) = self.reader.next(Duration::MAX).unwrap() else { return false };
        if matches!(input, Input::BeginScan(_)) && !std::mem::replace(&mut self.is_scanning, true) {
            self.streams.begin_round(at, || input::readings(&self.model)).unwrap();
        }
        let is_end = matches!(input, Input::EndRound(_));
        let is_tick = matches!(input, Input::Tick);
        self.streams.write(at, &input).unwrap();
        input::apply(&mut self.model, at, input);
        self.now = at;
        if is_tick {
            self.streams.note_alarms(at, self.model.alarms());
        }
        if is_end {
            self.is_scanning = false;
            self.streams.end_round(at, || input::services(&self.model)).unwrap();
        }
        true
    }

    fn run_until(&mut self, at: Duration) {
        while self.now < at {
            assert!(self.step());
        }
    }

    fn run(&mut self) {
        while self.step() {}
    }

    fn snapshot(&mut self) -> Snapshot {
        self.model.snapshot(std::time::SystemTime::UNIX_EPOCH, self.now, usize::MAX)
    }

    /// Ends all streams, and waits for what they still write.
    fn end(self) {
        self.streams.flush_all().unwrap();
    }
}

/// What does not depend on when a model began. Rows without a socket stay for a while where there was one.
fn state(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for row in snapshot.endpoints.iter().filter(|row| row.listening || row.states.sum() > 0) {
        let (key, name, service) = (&row.key, &row.netns_name, &row.service);
        lines.push(format!("{key:?} {name:?} {service:?} {:?} {} {:?}", row.states, row.orphans, row.listeners));
        let used = row.destinations.iter().filter(|row| row.sockets + row.time_wait > 0);
        lines.extend(used.map(|row| format!("{row:?}")));
    }
    // Drops count from the beginning.
    let namespaces = snapshot.namespaces.iter().map(|row| NamespaceRow { listen_drops: None, ..row.clone() });
    lines.extend(namespaces.map(|row| format!("{row:?}")));
    let services = snapshot.services.iter().filter(|row| row.sockets + row.listeners > 0);
    lines.extend(services.map(|row| format!("{:?} {:?} {}", row.service, row.states, row.listeners)));
    let processes = snapshot.processes.iter().filter(|row| row.sockets > 0);
    lines.extend(processes.map(|row| format!("{:?} {} {:?}", row.process, row.sockets, row.files)));
    for limit in snapshot.limits.iter().filter(|limit| limit.used > 0) {
        lines.push(format!("{:?} {:?} {} of {}", limit.kind, limit.scope, limit.used, limit.maximum));
    }
    lines.push(format!("{:?} {}", snapshot.host, snapshot.totals.connections));
    lines.sort();
    lines
}

#[track_caller]
fn assert_same(seen: &Snapshot, streamed: &Snapshot) {
    let (seen, streamed) = (state(seen), state(streamed));
    let only = |these: &[String], others: &[String]| {
        these.iter().filter(|line| !others.contains(line)).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(seen == streamed, "only here:\n{}\nonly there:\n{}", only(&seen, &streamed), only(&streamed, &seen));
}

fn replayed(bytes: &[u8]) -> (Replay<&[u8]>, Snapshot) {
    let mut replay = Replay::start(bytes).unwrap();
    replay.finish().unwrap();
    let snapshot = replay.snapshot(usize::MAX);
    (replay, snapshot)
}

#[test]
fn a_reader_that_begins_in_the_middle_comes_to_the_model_of_the_engine() {
    for second in [0, 1, 2, 4] {
        let mut engine = Engine::start(MAX_WAITING);
        engine.run_until(Duration::from_secs(second));
        let gate = Gate::default();
        gate.open();
        engine.streams.add(Sink::Viewer(Box::new(gate.clone()))).unwrap();
        assert!(engine.streams.wants_scan());
        engine.run();
        assert!(!engine.streams.wants_scan());
        let (seen, now) = (engine.snapshot(), engine.now);
        engine.end();
        let bytes = gate.bytes();
        let (replay, streamed) = replayed(&bytes);
        assert_same(&seen, &streamed);
        // It counts from its own beginning.
        assert!(replay.now() + Duration::from_secs(second) <= now && streamed.quality.stream_lost == 0);
        assert!(second == 0 || streamed.quality.events_total < seen.quality.events_total);
    }
}

#[test]
fn what_a_slow_reader_does_not_take_is_counted_and_the_next_scan_corrects_it() {
    let mut engine = Engine::start(1 << 10);
    let gate = Gate::default();
    gate.open();
    engine.streams.add(Sink::Viewer(Box::new(gate.clone()))).unwrap();
    engine.run_until(Duration::from_millis(1_500));
    gate.close();
    engine.run_until(Duration::from_secs(3));
    let lost = engine.streams.readers[0].lost;
    assert!(lost > 100 && engine.streams.readers[0].phase == Phase::Waiting, "{lost}");
    gate.open();
    let is_drained = |engine: &Engine| engine.streams.readers[0].queue.has_room();
    while !is_drained(&engine) {
        std::thread::yield_now();
    }
    assert!(engine.streams.wants_to_go_on() && !engine.streams.wants_scan());
    // From here on it takes everything.
    engine.streams.max_waiting = MAX_WAITING;
    engine.streams.readers[0].queue.set_most(MAX_WAITING);
    engine.run();
    assert!(!engine.streams.wants_to_go_on());
    let seen = engine.snapshot();
    engine.end();
    let (_, streamed) = replayed(&gate.bytes());
    assert_same(&seen, &streamed);
    let quality = &streamed.quality;
    assert!(quality.stream_lost >= lost && quality.lost_total() >= lost && !quality.is_unhealed(), "{quality:?}");
}

#[test]
fn a_reader_that_is_gone_ends_a_recording_and_no_other_stream() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut engine = Engine::start(MAX_WAITING);
    engine.streams.add(Sink::Viewer(Box::new(Broken))).unwrap();
    engine.run();
    while !engine.streams.readers.is_empty() {
        engine.streams.end_readers().unwrap();
    }
    let mut streams = Streams::new(engine.streams.about.clone(), MAX_WAITING);
    let failed = streams.add_at_start(Sink::Recording(Box::new(Broken))).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
}

/// A recorder that begins a segment with each round of scans.
fn recorded(folder: &std::path::Path) -> Engine {
    let bounds = RecorderBounds { bytes: 8 << 20, ..RecorderBounds::default() };
    let recorder = Recorder::open(folder, bounds, None).unwrap();
    let mut engine = Engine::start(MAX_WAITING);
    engine.streams.add_at_start(Sink::Recorder(recorder)).unwrap();
    engine.streams.start().unwrap();
    let Role::Recorder(segments) = &mut engine.streams.readers[0].role else { unreachable!() };
    segments.bounds.enough = 1;
    engine
}

#[test]
fn segments_are_one_recording_together_and_each_is_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = recorded(folder.path());
    engine.run();
    let (seen, ended) = (engine.snapshot(), engine.now);
    engine.end();
    let trail = Trail::open(folder.path()).unwrap();
    // The demonstration exhausts ports, descriptors and a queue within a minute.
    let incidents: Vec<&str> = trail.incidents().iter().map(|mark| mark.words.as_str()).collect();
    assert!(incidents.len() == 1 && incidents[0].ends_with(" exhausted"), "{incidents:?}");
    let segments = trail.len();
    assert!(segments > 3, "{segments} segments");
    assert_eq!((trail.end(), trail.spans().len()), (ended, 1));
    for first in 0..segments {
        let mut replay = trail.replay(first).unwrap();
        replay.finish().unwrap();
        let mut streamed = replay.snapshot(usize::MAX);
        assert_same(&seen, &streamed);
        if first == 0 {
            // Nothing began again at a boundary.
            let (quality, streamed_quality) = (&seen.quality, &mut streamed.quality);
            assert_eq!(streamed_quality.events_total, quality.events_total);
            assert_eq!(streamed.totals, seen.totals);
            assert_eq!(format!("{:?}", streamed.failures), format!("{:?}", seen.failures));
        }
    }
}

#[test]
fn a_segment_never_gets_more_than_its_share_and_the_next_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = recorded(folder.path());
    let Role::Recorder(segments) = &mut engine.streams.readers[0].role else { unreachable!() };
    segments.bounds.most = 30_000;
    engine.run();
    let Role::Recorder(segments) = &engine.streams.readers[0].role else { unreachable!() };
    let lost = segments.handle.status().lost;
    assert!(lost > 0, "all fits");
    engine.end();
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    let lengths: Vec<u64> = files.filter(|it| it.path().is_file()).map(|it| it.metadata().unwrap().len()).collect();
    assert!(lengths.len() > 1 && lengths.iter().all(|length| *length <= 30_000), "{lengths:?}");
    let mut replay = Trail::open(folder.path()).unwrap().replay(0).unwrap();
    replay.finish().unwrap();
    let counted = replay.snapshot(0).quality.stream_lost;
    assert!(counted > 0 && counted <= lost, "{counted} of {lost}");
}

#[test]
fn inputs_whose_loss_a_failed_beginning_would_have_reported_are_reported_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = RecorderBounds { bytes: 1 << 20, ..RecorderBounds::default() };
    let recorder = Recorder::open(folder.path(), bounds, None).unwrap();
    let handle = recorder.handle();
    // Its thread is not started: what is written is written here.
    let mut reader = StreamReader::new(Sink::Recorder(recorder), MAX_WAITING);
    let begin = |reader: &mut StreamReader, length: usize, lost| {
        let bytes = Arc::from(vec![0; length]);
        reader.queue.write_now(&Item::Beginning { bytes, at: wall_clock(), lost }).unwrap();
        reader.count_beginning(length as u64, Duration::ZERO);
        (reader.has_begun, reader.phase) = (true, Phase::Live);
    };
    begin(&mut reader, 100, 0);
    reader.lose(7);
    let lost = reader.take_lost();
    assert_eq!((lost, reader.take_lost()), (7, 0));
    // More than the directory may have.
    begin(&mut reader, 2 << 20, lost);
    assert_eq!(handle.status().errors, 1);
    let chunk = Arc::from(vec![0; 10]);
    reader.pass(&chunk, ChunkCounts { inputs: 2, bytes: 10, ..ChunkCounts::default() });
    assert_eq!(reader.phase, Phase::Waiting, "nothing is passed on to a segment that did not begin");
    let lost = reader.take_lost();
    assert_eq!((lost, handle.status().lost), (9, 9));
    begin(&mut reader, 100, lost);
    reader.pass(&chunk, ChunkCounts { inputs: 2, bytes: 10, ..ChunkCounts::default() });
    assert_eq!((reader.phase, reader.take_lost()), (Phase::Live, 0));
    drop(reader);
    let files = std::fs::read_dir(folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(files.count(), 2, "none of the beginning that failed");
}

#[test]
fn an_incident_in_the_second_in_which_its_recording_ended_is_shown_at_that_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = recorded(folder.path());
    // One segment: here five seconds pass in no time, and several would overlap on the wall clock.
    let Role::Recorder(segments) = &mut engine.streams.readers[0].role else { unreachable!() };
    segments.bounds.enough = u64::MAX;
    engine.run_until(Duration::from_secs(5));
    engine.end();
    let trail = Trail::open(folder.path()).unwrap();
    let at = trail.spans()[0].1;
    let name =
        IncidentName { number: 9, at: Duration::from_secs(at.as_secs() + 1), words: "ports exhausted".to_owned() };
    std::fs::create_dir_all(folder.path().join(format!("incidents/{name}"))).unwrap();
    let trail = Trail::open(folder.path()).unwrap();
    let shown = trail.incidents().iter().find(|mark| mark.number == 9).unwrap();
    assert_eq!((shown.position, trail.wall_clock(shown.position)), (trail.end(), at));
}
