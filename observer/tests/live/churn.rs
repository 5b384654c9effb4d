//! Everything at once: processes that open, close, reset, pass, kill and reuse sockets at random, a seed for each run.
//! At the end, when they keep the rest open, every count by endpoint and state must equal that of `ss`.
//! `OBSERVER_CHURN_SEED` repeats a run, as far as the scheduler lets it.

mod truth;
mod worker;

use std::{
    env,
    io::{Read as _, Write as _},
    net::SocketAddr,
    process,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use observer::{
    engine::{Engine, EngineOptions, Watched},
    model::{quality::Losses, snapshot::Snapshot},
};

use self::{
    truth::{Counts, NamespaceTruth, assert_flows_add_up, observed, reach_owners_of_ss, reach_ss, report},
    worker::{STEPS_PER_REPORT, Task, work},
};
use crate::{
    sockets::{TestProcess, role},
    support::{Pairs, forced_methods, in_private_netns, scaled, set_sysctl, start},
};

/// Ring buffer of the program itself.
const RING: u32 = 8 << 20;

/// Connections that are there before the engine, and stay.
const BYSTANDERS: &str = "127.0.0.1:29000";

/// What a churn is like.
#[derive(Clone, Copy)]
struct Churn {
    /// Network namespaces that are churned. The engine starts in the first.
    namespaces: usize,
    /// How many of them, from the first, it watches.
    watched: usize,
    /// Processes in each.
    workers: u16,
    /// Steps of each process.
    steps: u32,
    /// When the engine starts.
    starts: Starts,
    /// Bytes of its ring buffer.
    ring_bytes: u32,
    /// As of [`EngineOptions`].
    long_walk: Duration,
    many_sockets: u32,
    count_after: Duration,
    /// How often it looks at the ring.
    polls: Polls,
}

#[derive(Clone, Copy, PartialEq)]
enum Starts {
    BeforeTheWorkers,
    /// After a quarter of their steps.
    AmongThem,
}

#[derive(Clone, Copy, PartialEq)]
enum Polls {
    /// As often as the program does, 40 times a second, or more often.
    Often,
    /// Once for so many steps of the workers.
    AfterSteps(u32),
}

/// What came of it.
struct Outcome {
    at_end: Snapshot,
}

#[test]
fn counts_are_exact_after_churn() {
    if let Some((task, channel)) = role() {
        return work(&task, &channel);
    }
    let outcome = Churn { namespaces: 2, workers: 3, ..Churn::usual(12_000) }.run(counts_are_exact_after_churn);
    let quality = &outcome.at_end.quality;
    assert!(quality.events_total >= scaled(100_000).into(), "too little happened: {} events", quality.events_total);
    assert_eq!(without_missed(quality.losses), Losses::default());
}

#[test]
fn counts_are_exact_after_a_start_in_the_middle_of_churn() {
    if let Some((task, channel)) = role() {
        return work(&task, &channel);
    }
    let outcome = Churn { starts: Starts::AmongThem, ..Churn::usual(12_000) }
        .run(counts_are_exact_after_a_start_in_the_middle_of_churn);
    assert_eq!(without_missed(outcome.at_end.quality.losses), Losses::default());
}

#[test]
fn counts_are_exact_in_several_namespaces_at_once() {
    if let Some((task, channel)) = role() {
        return work(&task, &channel);
    }
    let outcome = Churn { namespaces: 3, watched: 3, workers: 2, ..Churn::usual(6_000) }
        .run(counts_are_exact_in_several_namespaces_at_once);
    let events = outcome.at_end.quality.events_total;
    assert!(events >= scaled(100_000).into(), "too little happened: {events} events");
}

/// Losses without missed runs, which depend on the kernel.
fn without_missed(losses: Losses) -> Losses {
    Losses { missed: None, ..losses }
}

#[test]
fn counts_are_exact_after_records_were_lost() {
    if let Some((task, channel)) = role() {
        return work(&task, &channel);
    }
    // The ring has room for 800 records: a hundred steps make as many.
    let outcome = Churn { ring_bytes: 64 << 10, polls: Polls::AfterSteps(500), ..Churn::usual(6_000) }
        .run(counts_are_exact_after_records_were_lost);
    let quality = &outcome.at_end.quality;
    assert!(quality.losses.ring_full > 0, "the ring was never full: {:?}", quality.losses);
}

#[test]
fn counts_are_exact_where_the_kernels_counts_are_asked_after_each_missed_run() {
    if let Some((task, channel)) = role() {
        return work(&task, &channel);
    }
    let outcome = Churn { long_walk: Duration::ZERO, ..Churn::usual(6_000) }
        .run(counts_are_exact_where_the_kernels_counts_are_asked_after_each_missed_run);
    assert_eq!(without_missed(outcome.at_end.quality.losses), Losses::default());
}

#[test]
fn counts_are_exact_where_files_and_counts_stand_in_for_walks() {
    if let Some((task, channel)) = role() {
        return work(&task, &channel);
    }
    let outcome = Churn { many_sockets: 0, ..Churn::usual(6_000) }
        .run(counts_are_exact_where_files_and_counts_stand_in_for_walks);
    assert_eq!(without_missed(outcome.at_end.quality.losses), Losses::default());
}

#[test]
fn counts_are_exact_where_they_are_compared_between_walks() {
    if let Some((task, channel)) = role() {
        return work(&task, &channel);
    }
    let outcome = Churn { count_after: Duration::ZERO, ..Churn::usual(6_000) }
        .run(counts_are_exact_where_they_are_compared_between_walks);
    assert_eq!(without_missed(outcome.at_end.quality.losses), Losses::default());
}

impl Churn {
    /// Four workers in one watched namespace, of which each takes this many steps under full load. The engine starts first.
    fn usual(steps: u32) -> Self {
        Self {
            namespaces: 1,
            watched: 1,
            workers: 4,
            steps: scaled(steps),
            starts: Starts::BeforeTheWorkers,
            ring_bytes: RING,
            long_walk: EngineOptions::LONG_WALK,
            many_sockets: EngineOptions::MANY_SOCKETS,
            count_after: EngineOptions::COUNT_AFTER,
            polls: Polls::Often,
        }
    }

    fn run(self, test: impl Fn() + Copy + Send + 'static) -> Outcome {
        let (send, receive) = channel();
        in_private_netns(move || send.send(self.run_here(test)).unwrap());
        receive.recv().unwrap()
    }

    fn run_here(self, test: impl Fn() + Copy + Send) -> Outcome {
        let seed = env::var("OBSERVER_CHURN_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().unwrap());
        println!("OBSERVER_CHURN_SEED={seed}");
        let mut namespaces = vec![NamespaceTruth::current()];
        while namespaces.len() < self.namespaces {
            namespaces.push(NamespaceTruth::new());
        }
        let bystanders = Pairs::open(BYSTANDERS, BYSTANDERS, 50);
        let mut engine = (self.starts == Starts::BeforeTheWorkers).then(|| self.start_engine());
        let mut progress = self.start_workers(&namespaces, test, seed);
        let mut polled_at = 0;
        while !progress.is_complete() {
            progress.wait_a_little();
            if progress.steps >= progress.wanted / 4 && engine.is_none() {
                engine = Some(self.start_engine());
            }
            let is_due = match self.polls {
                Polls::Often => true,
                Polls::AfterSteps(steps) => progress.steps >= polled_at + steps,
            };
            if let Some(engine) = engine.as_mut()
                && is_due
            {
                polled_at = progress.steps;
                engine.poll().expect("poll");
            }
            progress.let_go_on();
        }
        let mut engine = engine.expect("the workers are past their first quarter");
        let at_end = reach_ss(&mut engine, &namespaces[..self.watched]);
        report(&at_end);
        // Other tests have bystanders of their own, at the same address.
        let at: SocketAddr = BYSTANDERS.parse().unwrap();
        let place = (namespaces[0].id, at.ip(), Some(at.port()));
        let row = at_end.endpoints.iter().find(|row| (row.key.netns, row.key.local_ip, row.key.local_port) == place);
        let row = row.expect("the bystanders' row");
        assert_eq!((row.sockets, row.opened_total, row.closed_total), (50, 0, 0), "nothing happened to them");
        drop(bystanders);
        // Totals of all namespaces include other tests, which run at the same time.
        if self.starts == Starts::BeforeTheWorkers && self.watched == 1 {
            assert_flows_add_up(&at_end);
        }
        for namespace in &namespaces[..self.watched] {
            reach_owners_of_ss(&mut engine, namespace);
        }
        for stranger in &namespaces[self.watched..] {
            assert_eq!(observed(&at_end, stranger.id), Counts::new(), "a namespace that is not watched");
        }
        drop(progress);
        Outcome { at_end }
    }

    fn start_engine(self) -> Engine {
        let watched = if self.watched > 1 { Watched::All } else { Watched::Own };
        let Self { ring_bytes, long_walk, many_sockets, count_after, .. } = self;
        let methods = forced_methods();
        let options = EngineOptions { watched, ring_bytes, long_walk, many_sockets, ..EngineOptions::default() };
        start(EngineOptions { count_after, methods, ..options })
    }

    fn start_workers(self, namespaces: &[NamespaceTruth], test: impl Fn() + Copy + Send, seed: u64) -> Progress {
        let (sender, words) = channel();
        let mut processes = Vec::new();
        for namespace in namespaces {
            let of_namespace = namespace.enter(move || {
                set_sysctl("ipv4/tcp_fastopen", "3");
                // By one seed in two, every handshake is by cookie.
                set_sysctl("ipv4/tcp_syncookies", if seed.is_multiple_of(2) { "2" } else { "1" });
                let start = |index| {
                    let task = Task { index, workers: self.workers, steps: self.steps, seed };
                    TestProcess::start(&test, &task.to_words())
                };
                (0..self.workers).map(start).collect::<Vec<_>>()
            });
            processes.extend(of_namespace);
        }
        for process in &mut processes {
            process.wait_until_ready();
        }
        for (worker, process) in processes.iter_mut().enumerate() {
            process.channel.write_all(b".").unwrap();
            process.channel.set_read_timeout(None).unwrap();
            let (mut channel, sender) = (process.channel.try_clone().unwrap(), sender.clone());
            thread::spawn(move || {
                while let Ok(1) = channel.read(&mut [0]) {
                    if sender.send(worker).is_err() {
                        return;
                    }
                }
            });
        }
        let workers = u32::try_from(processes.len()).unwrap();
        let wanted = workers * (self.steps / STEPS_PER_REPORT * STEPS_PER_REPORT);
        Progress { words, steps: 0, wanted, last_word: Instant::now(), reported: Vec::new(), processes }
    }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) << 20 ^ now.as_secs() ^ u64::from(process::id()) << 40
}

/// How far the workers are. They end with it.
struct Progress {
    words: Receiver<usize>,
    steps: u32,
    wanted: u32,
    last_word: Instant,
    /// Workers by their place, once for each report since they were last let go on.
    reported: Vec<usize>,
    processes: Vec<TestProcess>,
}

impl Progress {
    fn is_complete(&self) -> bool {
        self.steps >= self.wanted
    }

    /// Workers wait for this after each report, a few reports late: they cannot fill the ring while the test waits for a CPU.
    fn let_go_on(&mut self) {
        for worker in self.reported.drain(..) {
            // One that has taken all of its steps may have ended its side.
            let _ = self.processes[worker].channel.write_all(b".");
        }
    }

    /// Receives the workers' progress, and waits for more of it for as long as the program waits between two
    /// looks at the ring.
    fn wait_a_little(&mut self) {
        let until = Instant::now() + Duration::from_millis(25);
        loop {
            match self.words.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(worker) => {
                    self.reported.push(worker);
                    self.steps += STEPS_PER_REPORT;
                    self.last_word = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    assert!(self.is_complete(), "the workers are gone");
                    return;
                }
            }
            if self.is_complete() {
                return;
            }
        }
        assert!(self.last_word.elapsed() < Duration::from_secs(90), "a worker hangs, after {} steps", self.steps);
    }
}
