//! What `ss` says of namespaces, and waiting until observer says the same.

use std::{
    collections::BTreeMap,
    fs::File,
    net::SocketAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use observer::{
    engine::Engine,
    model::{
        snapshot::{Direction, Snapshot},
        units::{NetnsId, StateCounts, TcpState},
    },
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    sockets::is_server_port,
    ss::ss,
    support::{PATIENCE, in_private_netns, run},
};

/// A network namespace that exists as long as this value.
pub(super) struct NamespaceTruth {
    file: File,
    pub(super) id: NetnsId,
}

impl NamespaceTruth {
    pub(super) fn current() -> Self {
        let file = File::open("/proc/thread-self/ns/net").unwrap();
        let id = NetnsId(u32::try_from(file.metadata().unwrap().ino()).unwrap());
        Self { file, id }
    }

    pub(super) fn new() -> Self {
        let (send, receive) = channel();
        in_private_netns(move || send.send(Self::current()).unwrap());
        receive.recv().unwrap()
    }

    /// Runs `work` on a thread in this namespace.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Counts by direction, local address (port 0 for outbound) and state; listeners of one address count once.
pub(super) type Counts = BTreeMap<(Direction, SocketAddr, &'static str), u32>;

fn shown(namespace: &NamespaceTruth) -> Counts {
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

pub(super) fn observed(snapshot: &Snapshot, netns: NetnsId) -> Counts {
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

/// The longest that a TIME_WAIT socket, or a client of nobody in FIN_WAIT2, outlives its last event, and as much again for two
/// scans of every namespace.
const DECAY: Duration = Duration::from_mins(2);

/// Polls until every count of each namespace equals that of `ss` while the engine reports no open loss. The engine scans by
/// itself. No event shows the end of a TIME_WAIT socket: while there are ends, a namespace agrees with `ss` in the moment
/// after a scan, and each has scans of its own.
pub(super) fn reach_ss(engine: &mut Engine, namespaces: &[NamespaceTruth]) -> Snapshot {
    let done = Instant::now();
    let mut differing: Vec<&NamespaceTruth> = namespaces.iter().collect();
    loop {
        engine.poll().expect("poll");
        let snapshot = engine.snapshot(0);
        let mut wrong = Vec::new();
        differing.retain(|namespace| {
            let difference = difference(&observed(&snapshot, namespace.id), &shown(namespace));
            let differs = difference.is_some();
            wrong.extend(difference);
            differs || snapshot.quality.is_unhealed()
        });
        if differing.is_empty() {
            return snapshot;
        }
        if done.elapsed() > DECAY {
            report(&snapshot);
            panic!(
                "observer and ss differ (row, state, observer, ss): {wrong:#?}\nwith an open loss: {}, {:?}",
                snapshot.quality.is_unhealed(),
                snapshot.quality.coverage
            );
        }
        thread::yield_now();
    }
}

/// Waits until each process has as many sockets as `ss -p` shows with it.
pub(super) fn reach_owners_of_ss(engine: &mut Engine, namespace: &NamespaceTruth) {
    let deadline = Instant::now() + PATIENCE;
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
pub(super) fn assert_flows_add_up(snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    let count = |state| snapshot.endpoints.iter().map(|row| u64::from(row.states.get(state))).sum::<u64>();
    // The bystanders were there before.
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

fn difference(observed: &Counts, shown: &Counts) -> Option<Vec<Difference>> {
    let keys: std::collections::BTreeSet<_> = observed.keys().chain(shown.keys()).copied().collect();
    let count = |counts: &Counts, key| counts.get(key).copied().unwrap_or(0);
    let wrong: Vec<Difference> = keys
        .iter()
        .map(|key| (*key, count(observed, key), count(shown, key)))
        .filter(|(_, observed, shown)| observed != shown)
        .collect();
    (!wrong.is_empty()).then_some(wrong)
}

pub(super) fn report(snapshot: &Snapshot) {
    let (quality, totals) = (&snapshot.quality, &snapshot.totals);
    let states = snapshot.endpoints.iter().fold(StateCounts::default(), |sum, row| sum + row.states);
    let held: Vec<String> = states.iter().map(|(state, count)| format!("{} {count}", state.name())).collect();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let drift_per_million = quality.drift.total() as f64 * 1e6 / quality.events_total.max(1) as f64;
    println!(
        "{} events, {} opened, {} closed, {} failed; drift {:?} = {drift_per_million:.0} per million events; lost \
         {:?}; {} scans, the last in {:?}; at the end: {}",
        quality.events_total,
        totals.opened_total,
        totals.closed_total,
        totals.failed_total,
        quality.drift,
        quality.losses,
        quality.scans_total,
        quality.last_scan.map(|scan| scan.took),
        held.join(", "),
    );
}
