//! Everything at once: processes that open, close, reset, pass, kill and reuse sockets at random, a seed for each run.
//! When they are done and hold what is left, every count by endpoint and state must be what `ss` says.
//! `OBSERVER_CHURN_SEED` repeats a run, as far as the scheduler lets it.

mod random;
mod worker;

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    process,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use observer::{
    engine::{Engine, Options, Watched},
    model::{
        snapshot::{Direction, Snapshot},
        trust::Losses,
        units::{NetnsId, StateCounts, TcpState},
    },
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::worker::{Orders, STEPS_A_WORD, work};
use crate::{
    sockets::{Player, is_server_port, part},
    ss::ss,
    support::{Pairs, in_private_netns, inbound, run, set_sysctl},
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
    if let Some((orders, line)) = part() {
        return work(&orders, &line);
    }
    let outcome = Churn {
        namespaces: 2,
        watched: 1,
        workers: 3,
        steps: 12_000,
        starts: Starts::BeforeTheWorkers,
        ring_bytes: RING,
        polls: Polls::Often,
    }
    .run(counts_are_exact_after_churn);
    let trust = &outcome.at_end.trust;
    assert!(trust.events_total >= 200_000, "too little happened: {} events", trust.events_total);
    assert_eq!(without_missed(trust.losses), Losses::default());
}

#[test]
fn counts_are_exact_after_a_start_in_the_middle_of_churn() {
    if let Some((orders, line)) = part() {
        return work(&orders, &line);
    }
    let outcome = Churn {
        namespaces: 1,
        watched: 1,
        workers: 4,
        steps: 12_000,
        starts: Starts::AmongThem,
        ring_bytes: RING,
        polls: Polls::Often,
    }
    .run(counts_are_exact_after_a_start_in_the_middle_of_churn);
    assert_eq!(without_missed(outcome.at_end.trust.losses), Losses::default());
}

#[test]
fn counts_are_exact_in_several_namespaces_at_once() {
    if let Some((orders, line)) = part() {
        return work(&orders, &line);
    }
    let outcome = Churn {
        namespaces: 3,
        watched: 3,
        workers: 2,
        steps: 6_000,
        starts: Starts::BeforeTheWorkers,
        ring_bytes: RING,
        polls: Polls::Often,
    }
    .run(counts_are_exact_in_several_namespaces_at_once);
    let events = outcome.at_end.trust.events_total;
    assert!(events >= 200_000, "too little happened: {events} events");
}

/// Losses other than runs that the kernel left out, which are for it to decide.
fn without_missed(losses: Losses) -> Losses {
    Losses { missed: 0, ..losses }
}

#[test]
fn counts_are_exact_after_records_were_lost() {
    if let Some((orders, line)) = part() {
        return work(&orders, &line);
    }
    let outcome = Churn {
        namespaces: 1,
        watched: 1,
        workers: 4,
        steps: 6_000,
        starts: Starts::BeforeTheWorkers,
        // 800 records: what a hundred steps make.
        ring_bytes: 64 << 10,
        polls: Polls::AfterSteps(500),
    }
    .run(counts_are_exact_after_records_were_lost);
    let trust = &outcome.at_end.trust;
    assert!(trust.losses.ring_full > 0, "the ring was never full: {:?}", trust.losses);
}

impl Churn {
    fn run(self, test: impl Fn() + Copy + Send + 'static) -> Outcome {
        let (send, receive) = channel();
        in_private_netns(move || send.send(self.run_here(test)).unwrap());
        receive.recv().unwrap()
    }

    fn run_here(self, test: impl Fn() + Copy + Send) -> Outcome {
        let seed = env::var("OBSERVER_CHURN_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().unwrap());
        println!("OBSERVER_CHURN_SEED={seed}");
        let mut namespaces = vec![Namespace::current()];
        while namespaces.len() < self.namespaces {
            namespaces.push(Namespace::new());
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
        }
        let mut engine = engine.expect("the workers are past their first quarter");
        let at_end = reach_ss(&mut engine, &namespaces[..self.watched]);
        report(&at_end);
        let row = inbound(&at_end, BYSTANDERS).expect("a row of those who stood by");
        assert_eq!((row.sockets, row.opened_total, row.closed_total), (50, 0, 0), "nothing happened to them");
        drop(bystanders);
        // Totals of all namespaces are those of other tests too, which go on meanwhile.
        if self.starts == Starts::BeforeTheWorkers && self.watched == 1 {
            assert_flows_add_up(&at_end);
        }
        for namespace in &namespaces[..self.watched] {
            reach_owners_of_ss(&mut engine, namespace);
        }
        for stranger in &namespaces[self.watched..] {
            assert_eq!(told(&at_end, stranger.id), Counts::new(), "a namespace that is not watched");
        }
        drop(progress);
        Outcome { at_end }
    }

    fn start_engine(self) -> Engine {
        let watched = if self.watched > 1 { Watched::All } else { Watched::Own };
        let ring_bytes = self.ring_bytes;
        Engine::start(Options { watched, ring_bytes, ..Options::default() }).expect("start the engine")
    }

    fn start_workers(self, namespaces: &[Namespace], test: impl Fn() + Copy + Send, seed: u64) -> Progress {
        let (tell, words) = channel();
        let mut players = Vec::new();
        for namespace in namespaces {
            let of_namespace = namespace.enter(move || {
                set_sysctl("ipv4/tcp_fastopen", "3");
                // By one seed in two, every handshake is by cookie.
                set_sysctl("ipv4/tcp_syncookies", if seed.is_multiple_of(2) { "2" } else { "1" });
                let start = |index| {
                    let orders = Orders { index, workers: self.workers, steps: self.steps, seed };
                    Player::start(&test, &orders.to_words())
                };
                (0..self.workers).map(start).collect::<Vec<_>>()
            });
            players.extend(of_namespace);
        }
        for player in &mut players {
            player.wait_for_word();
        }
        for player in &mut players {
            player.line.write_all(b".").unwrap();
            player.line.set_read_timeout(None).unwrap();
            let (mut line, tell) = (player.line.try_clone().unwrap(), tell.clone());
            thread::spawn(move || {
                while let Ok(1) = line.read(&mut [0]) {
                    if tell.send(()).is_err() {
                        return;
                    }
                }
            });
        }
        let workers = u32::try_from(players.len()).unwrap();
        let wanted = workers * (self.steps / STEPS_A_WORD * STEPS_A_WORD);
        Progress { words, steps: 0, wanted, last_word: Instant::now(), _players: players }
    }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) << 20 ^ now.as_secs() ^ u64::from(process::id()) << 40
}

/// How far the workers are. They end with it.
struct Progress {
    words: Receiver<()>,
    steps: u32,
    wanted: u32,
    last_word: Instant,
    _players: Vec<Player>,
}

impl Progress {
    fn is_complete(&self) -> bool {
        self.steps >= self.wanted
    }

    /// Takes in what the workers have told, and waits for a word of theirs for as long as the program waits between two
    /// looks at the ring.
    fn wait_a_little(&mut self) {
        let until = Instant::now() + Duration::from_millis(25);
        loop {
            match self.words.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(()) => {
                    self.steps += STEPS_A_WORD;
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

/// A network namespace that lives as long as this.
struct Namespace {
    file: File,
    id: NetnsId,
}

impl Namespace {
    fn current() -> Self {
        let file = File::open("/proc/thread-self/ns/net").unwrap();
        let id = NetnsId(u32::try_from(file.metadata().unwrap().ino()).unwrap());
        Self { file, id }
    }

    fn new() -> Self {
        let (send, receive) = channel();
        in_private_netns(move || send.send(Self::current()).unwrap());
        receive.recv().unwrap()
    }

    /// Runs `work` on a thread in this namespace.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Counts by direction, local address (port 0 for outbound) and state; listeners of one address count once.
type Counts = BTreeMap<(Direction, SocketAddr, &'static str), u32>;

fn shown(namespace: &Namespace) -> Counts {
    let mut counts = Counts::new();
    for (state, local) in namespace.enter(ss) {
        let (direction, local) = if is_server_port(local.port()) {
            (Direction::Inbound, local)
        } else {
            (Direction::Outbound, SocketAddr::new(local.ip(), 0))
        };
        let count = counts.entry((direction, local, state.name())).or_default();
        *count = if state == TcpState::Listen { 1 } else { *count + 1 };
    }
    counts
}

fn told(snapshot: &Snapshot, netns: NetnsId) -> Counts {
    let mut counts = Counts::new();
    for row in snapshot.endpoints.iter().filter(|row| row.key.netns == netns) {
        let local = SocketAddr::new(row.key.local_ip, row.key.local_port.unwrap_or(0));
        counts.extend(row.states.iter().map(|(state, count)| ((row.key.direction, local, state.name()), count)));
        if row.listening {
            counts.insert((row.key.direction, local, TcpState::Listen.name()), 1);
        }
    }
    counts
}

/// Polls, with the scans that the engine makes by itself, until every count is what `ss` says and the engine says so. The longer a scan took, the
/// longer the engine waits with the next, 50 times as long; there is time for one, whatever else this machine does.
fn reach_ss(engine: &mut Engine, namespaces: &[Namespace]) -> Snapshot {
    let done = Instant::now();
    loop {
        engine.poll().expect("poll");
        let snapshot = engine.snapshot(0);
        let wrong =
            namespaces.iter().find_map(|namespace| difference(&told(&snapshot, namespace.id), &shown(namespace)));
        if wrong.is_none() && !snapshot.trust.is_unhealed() {
            return snapshot;
        }
        let last_scan = snapshot.trust.last_scan.map_or(Duration::ZERO, |scan| scan.took);
        if done.elapsed() > Duration::from_secs(10) + last_scan * 60 {
            report(&snapshot);
            panic!("observer and ss differ (row, state, observer, ss):\n{wrong:#?}");
        }
        thread::yield_now();
    }
}

/// Waits until each process has as many sockets as `ss -p` shows with it.
fn reach_owners_of_ss(engine: &mut Engine, namespace: &Namespace) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        engine.poll().expect("poll");
        let snapshot = engine.snapshot(0);
        let mut owned: BTreeMap<u32, u32> = BTreeMap::new();
        for owner in snapshot.endpoints.iter().filter(|row| row.key.netns == namespace.id).flat_map(|row| &row.owners) {
            *owned.entry(owner.process.pid.0).or_default() += owner.sockets;
        }
        // With -a, for sockets in SYN_RECV that were accepted already; listeners are no connections.
        let shown = namespace.enter(|| run("ss", &["-Htanp"]));
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        for line in shown.lines().filter(|line| !line.starts_with("LISTEN")) {
            if let Some((_, rest)) = line.split_once("pid=") {
                *held.entry(rest.split(',').next().unwrap().parse().unwrap()).or_default() += 1;
            }
        }
        if owned == held {
            return;
        }
        assert!(Instant::now() < deadline, "owners by observer {owned:?}, by ss {held:?}\n{shown}");
        thread::yield_now();
    }
}

/// What was opened and not closed is there, past its handshake. How many full sockets are in their handshake is between
/// those in SYN_SENT and these with all in SYN_RECV, which are request sockets for the most part.
fn assert_flows_add_up(snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    let count = |state| snapshot.endpoints.iter().map(|row| u64::from(row.states.get(state))).sum::<u64>();
    // Those who stood by were there before.
    let open = 100 + totals.opened_total - totals.closed_total;
    let in_handshake = u64::from(totals.sockets) - open;
    let syn_sent = count(TcpState::SynSent);
    assert!(
        (syn_sent..=syn_sent + count(TcpState::SynReceived)).contains(&in_handshake),
        "{open} are open of {} sockets, and {syn_sent} are in SYN_SENT",
        totals.sockets
    );
}

type Difference = ((Direction, SocketAddr, &'static str), u32, u32);

fn difference(told: &Counts, shown: &Counts) -> Option<Vec<Difference>> {
    let keys: std::collections::BTreeSet<_> = told.keys().chain(shown.keys()).copied().collect();
    let count = |counts: &Counts, key| counts.get(key).copied().unwrap_or(0);
    let wrong: Vec<Difference> = keys
        .iter()
        .map(|key| (*key, count(told, key), count(shown, key)))
        .filter(|(_, told, shown)| told != shown)
        .collect();
    (!wrong.is_empty()).then_some(wrong)
}

fn report(snapshot: &Snapshot) {
    let (trust, totals) = (&snapshot.trust, &snapshot.totals);
    let states = snapshot.endpoints.iter().fold(StateCounts::default(), |sum, row| sum + row.states);
    let held: Vec<String> = states.iter().map(|(state, count)| format!("{} {count}", state.name())).collect();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let drift_per_million = trust.drift.total() as f64 * 1e6 / trust.events_total.max(1) as f64;
    println!(
        "{} events, {} opened, {} closed, {} failed; drift {:?} = {drift_per_million:.0} per million events; lost {:?}; \
         {} scans, the last in {:?}; at the end: {}",
        trust.events_total,
        totals.opened_total,
        totals.closed_total,
        totals.failed_total,
        trust.drift,
        trust.losses,
        trust.scans_total,
        trust.last_scan.map(|scan| scan.took),
        held.join(", "),
    );
}
