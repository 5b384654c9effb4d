//! A private network namespace, the engine in it, and the counts of `ss` as the truth.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    panic::Location,
    process::Command,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use crate::{processes::output, ss};
use observer::{
    engine::{Engine, EngineOptions, Scans, Watched},
    host,
    model::{
        snapshot::{Direction, EndpointRow, Snapshot},
        units::{NetnsId, TcpState},
    },
    probe::{kernel::Kernel, plan::ForcedMethods},
};
use socket2::{Domain, Socket, Type};

/// Runs `test` on a thread in a new network namespace with `lo` up; the namespace ends with its last socket.
pub(crate) fn in_private_netns(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(|| {
        // SAFETY: only this thread's network namespace is split off; no file table is.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .expect("live tests need root (CAP_SYS_ADMIN) to make network namespaces");
        run("ip", &["link", "set", "lo", "up"]);
        test();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program in the calling thread's namespace and returns what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = output(Command::new(program).args(args))
        .unwrap_or_else(|error| panic!("{program} is needed (Debian package iproute2): {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sets a sysctl of the calling thread's namespace.
pub(crate) fn set_sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("write {path}: {error}"));
}

/// Events alone after the first scan, of the calling thread's namespace alone: tests run side by side.
pub(crate) fn options() -> EngineOptions {
    // Held as long as tests run: each of them starts engines, and the kernel stays the same.
    static KERNEL: LazyLock<Option<Arc<Kernel>>> = LazyLock::new(|| Kernel::shared().ok());
    LazyLock::force(&KERNEL);
    EngineOptions {
        scans: Scans::OnlyAtStart,
        watched: Watched::Own,
        methods: forced_methods(),
        ..EngineOptions::default()
    }
}

/// What the runner wants all tests to run with: `OBSERVER_ATTACH=connect=kprobe,accept=kretprobe`.
pub(crate) fn forced_methods() -> ForcedMethods {
    let text = std::env::var("OBSERVER_ATTACH").unwrap_or_default();
    ForcedMethods::new(
        text.split(',').filter(|word| !word.is_empty()).map(|word| word.parse().expect("OBSERVER_ATTACH")),
    )
}

/// `count`, or `OBSERVER_LOAD` percent of it where the machine is slow (under emulation).
pub(crate) fn scaled(count: u32) -> u32 {
    let percent: u32 = std::env::var("OBSERVER_LOAD").map_or(100, |text| text.parse().expect("OBSERVER_LOAD"));
    count * percent / 100
}

/// The engine, fed by events alone after its first scan.
pub(crate) fn observe() -> Engine {
    start(options())
}

/// The engine with regular scans: a failure at a listener waits for the scan that shows the listener.
pub(crate) fn scanning() -> Engine {
    start(EngineOptions { scans: Scans::Regularly, ..options() })
}

/// Starts the engine, and checks that every hook is attached.
pub(crate) fn start(options: EngineOptions) -> Engine {
    let mut engine = Engine::start(options).expect("start the engine");
    for status in engine.snapshot(0).quality.hooks {
        assert!(status.method.is_some(), "the hook {} is missing: {:?}", status.hook, status.failed);
    }
    engine
}

/// How long to wait for anything on a busy machine: the engine scans less often where a scan takes long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Polls the engine until `wanted` gives a value of its snapshot; fails with the last snapshot in the end.
///
/// The kernel leaves out runs of a hook that interrupts itself, and reports how many. What these would have shown, only a
/// scan shows: where runs are missing and nothing else comes, there is one, which is reported.
pub(crate) fn eventually<T>(engine: &mut Engine, what: &str, wanted: impl Fn(&Snapshot) -> Option<T>) -> T {
    eventually_within(PATIENCE, engine, what, wanted)
}

/// The same with a deadline of its own.
pub(crate) fn eventually_within<T>(
    patience: Duration,
    engine: &mut Engine,
    what: &str,
    wanted: impl Fn(&Snapshot) -> Option<T>,
) -> T {
    let start = Instant::now();
    let deadline = start + patience;
    let mut has_scanned = false;
    loop {
        engine.poll().expect("poll");
        let snapshot = engine.snapshot(usize::MAX);
        if let Some(value) = wanted(&snapshot) {
            return value;
        }
        let missed = snapshot.quality.losses.missed_if_reported();
        if missed > 0 && !has_scanned && start.elapsed() > PATIENCE / 6 {
            report_retry(what, &format!("after a scan, because the kernel reports {missed} missed runs"));
            engine.scan().expect("scan");
            has_scanned = true;
        }
        assert!(Instant::now() < deadline, "not seen: {what}\n{}\n{snapshot:#?}", run("ss", &["-tan"]));
        thread::yield_now();
    }
}

/// Waits until a condition outside the engine holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "did not come: {what}\n{}", run("ss", &["-tan"]));
        thread::yield_now();
    }
}

/// Waits until the kernel has `count` sockets in this state (see [`ss::sockets_in`]): a scan before that sees others.
pub(crate) fn wait_for_sockets(state: &str, count: usize) {
    wait_until(&format!("{count} sockets in {state}"), || ss::sockets_in(state) == count);
}

/// Loads nftables rules into the calling thread's namespace; the first line of nft's error if it fails.
pub(crate) fn load_nft(rules: &str) -> Result<(), String> {
    let loaded = output(Command::new("nft").arg(rules)).expect("nft is needed (Debian package nftables)");
    let why = String::from_utf8_lossy(&loaded.stderr);
    if loaded.status.success() { Ok(()) } else { Err(why.lines().next().unwrap_or("nft gives no reason").to_owned()) }
}

/// Lets netfilter track the connections that the calling thread's namespace opens.
pub(crate) fn track_connections() {
    let rules =
        "add table ip t; add chain ip t c { type filter hook output priority 0; }; add rule ip t c ct state new accept";
    load_nft(rules).unwrap();
}

/// Reports that a test repeats a part of it, and why. It writes to stderr directly, because libtest shows what a test prints
/// only if the test fails.
pub(crate) fn report_retry(test: &str, why: &str) {
    // In a line of its own: with one thread, libtest has printed the name of the test already.
    io::stderr().write_all(format!("\nRETRIED {test}: {why}\n").as_bytes()).unwrap();
}

/// Scans until `wanted` gives a value, or fails with its last reason after a minute. A scan can lose records on a busy
/// host, or see a socket that the kernel is about to remove. Each repetition is reported with the reason for the first.
#[track_caller]
pub(crate) fn scan_until<T>(
    engine: &mut Engine,
    what: &str,
    mut wanted: impl FnMut(&mut Engine) -> Result<T, String>,
) -> T {
    let (deadline, at) = (Instant::now() + PATIENCE, Location::caller());
    let (mut scans, mut first_reason) = (0, None);
    loop {
        engine.scan().expect("scan");
        scans += 1;
        match wanted(engine) {
            Ok(value) => {
                if let Some(reason) = first_reason {
                    report_retry(&format!("{at}: {what}"), &format!("{scans} scans; after the first: {reason}"));
                }
                return value;
            }
            Err(reason) => {
                assert!(Instant::now() < deadline, "not seen after {scans} scans: {what}\n{reason}");
                first_reason.get_or_insert(reason);
            }
        }
    }
}

/// The entries of both maps that differ, for a message.
pub(crate) fn difference<K: Ord + Debug, V: PartialEq + Debug>(
    observed: (&str, &BTreeMap<K, V>),
    shown: (&str, &BTreeMap<K, V>),
) -> String {
    let entries = |these: &BTreeMap<K, V>, others: &BTreeMap<K, V>| {
        format!("{:?}", these.iter().filter(|(key, value)| others.get(key) != Some(value)).collect::<Vec<_>>())
    };
    format!("{} has {}, {} has {}", observed.0, entries(observed.1, shown.1), shown.0, entries(shown.1, observed.1))
}

/// A row of counts: what `observer` and `ss` are compared by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Inbound(SocketAddr),
    Outbound(IpAddr),
}

/// Counts by row and state; listeners count as `listen`.
pub(crate) type Counts = BTreeMap<(Row, &'static str), u32>;

/// What `ss` says of the calling thread's namespace, grouped as `observer` groups: a local address with a listener is
/// inbound, everything else is outbound by its local ip.
pub(crate) fn truth() -> Counts {
    parse_ss(&run("ss", &["-Htan"]))
}

/// What `ss -Htan` printed, grouped.
pub(crate) fn parse_ss(text: &str) -> Counts {
    let sockets = ss::parse(text);
    let listeners: Vec<&SocketAddr> =
        sockets.iter().filter(|(state, _)| *state == TcpState::Listen).map(|(_, local)| local).collect();
    let is_inbound = |local: &SocketAddr| {
        listeners.iter().any(|listener| {
            listener.port() == local.port() && (listener.ip() == local.ip() || listener.ip().is_unspecified())
        })
    };
    let mut counts = Counts::new();
    for (state, local) in &sockets {
        let row = if is_inbound(local) { Row::Inbound(*local) } else { Row::Outbound(local.ip()) };
        *counts.entry((row, state.name())).or_default() += 1;
    }
    counts
}

/// The same of a snapshot.
pub(crate) fn counted(snapshot: &Snapshot) -> Counts {
    counted_in(snapshot, host::netns::current().unwrap())
}

/// The same of one namespace among those of a snapshot.
pub(crate) fn counted_in(snapshot: &Snapshot, netns: NetnsId) -> Counts {
    let mut counts = Counts::new();
    for row in snapshot.endpoints.iter().filter(|row| row.key.netns == netns) {
        for (state, count) in row.states.iter() {
            counts.insert((key(row), state.name()), count);
        }
        if row.listening {
            counts.insert((key(row), "listen"), 1);
        }
    }
    counts
}

fn key(row: &EndpointRow) -> Row {
    match (row.key.direction, row.key.local_port) {
        (Direction::Inbound, Some(port)) => Row::Inbound(SocketAddr::new(row.key.local_ip, port)),
        _ => Row::Outbound(row.key.local_ip),
    }
}

/// Scans and compares every count with `ss`.
#[track_caller]
pub(crate) fn assert_equals_ss(engine: &mut Engine) {
    engine.scan().expect("scan");
    assert_eq!(counted(&engine.snapshot(0)), truth(), "observer and ss differ");
}

/// Waits until events alone have brought every count to what `ss` says. TIME_WAIT and FIN_WAIT2 that lost their full
/// socket have no events: they are compared after scans.
pub(crate) fn events_reach_ss(engine: &mut Engine) {
    let scanned_only = [TcpState::TimeWait.name(), TcpState::FinWait2.name()];
    let known_by_events = |mut counts: Counts| {
        counts.retain(|(_, state), _| !scanned_only.contains(state));
        counts
    };
    eventually(engine, "counts equal to ss", |snapshot| {
        (known_by_events(counted(snapshot)) == known_by_events(truth())).then_some(())
    });
}

/// A listener and the connections to it. This process owns both ends.
pub(crate) struct Pairs {
    pub(crate) listener: TcpListener,
    pub(crate) clients: Vec<TcpStream>,
    pub(crate) accepted: Vec<TcpStream>,
}

impl Pairs {
    /// Listens on `address` and opens `count` connections to `target`.
    pub(crate) fn open(address: &str, target: &str, count: usize) -> Self {
        let mut pairs = Self { listener: listen(address, 128), clients: Vec::new(), accepted: Vec::new() };
        pairs.more(target, count);
        pairs
    }

    pub(crate) fn more(&mut self, target: &str, count: usize) {
        for _ in 0..count {
            self.clients.push(TcpStream::connect(target).expect("connect"));
            self.accepted.push(self.listener.accept().expect("accept").0);
        }
    }
}

/// A listener; one on `[::]` takes IPv4 too.
pub(crate) fn listen(address: &str, backlog: i32) -> TcpListener {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(false).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(backlog).unwrap();
    socket.into()
}

/// The row of a local endpoint.
pub(crate) fn inbound<'a>(snapshot: &'a Snapshot, local: &str) -> Option<&'a EndpointRow> {
    let local: SocketAddr = local.parse().unwrap();
    snapshot.endpoints.iter().find(|row| key(row) == Row::Inbound(local))
}

/// The row of a client's local ip.
pub(crate) fn outbound<'a>(snapshot: &'a Snapshot, local: &str) -> Option<&'a EndpointRow> {
    let local: IpAddr = local.parse().unwrap();
    snapshot.endpoints.iter().find(|row| key(row) == Row::Outbound(local))
}
