//! Namespaces that are scanned without a walk, because the kernel's own counts prove that only listeners are there. Whatever
//! else is there must not stay hidden: each of these cases has something that no open file leads to, or that no event shows.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use observer::{
    engine::{EngineOptions, FirstLook, Scans, Watched},
    host::netns,
    model::{quality::Quality, units::NetnsId},
    recording::Sink,
};
use socket2::Socket;

use crate::{
    namespaces::Mounted,
    sockets::{local, multipath, pass, reset, set_option, silent_listener, socket, start_connect},
    streams::{self, Bytes, scans_of},
    support::{
        Counts, Pairs, counted, counted_in, eventually_within, in_private_netns, listen, options, run, start, truth,
    },
};

const V4: &str = "127.0.0.1:7000";
const V6: &str = "[::1]:7000";
/// The turn of a namespace in which nothing happens comes no sooner.
const TURN: Duration = Duration::from_secs(5);
/// Its turn may come a minute after the last one, and later where walks take long, as beside virtual machines.
const SEVERAL_TURNS: Duration = Duration::from_mins(4);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What keeps the sockets of a case.
type Kept = Box<dyn Any + Send>;

/// ss names no listener there: to which row its request socket belongs is not compared.
const LONE: &str = "handshake without its listener";

/// A file leads to each of its sockets.
const SHOWN: &str = "connections and a bound socket";
/// No file leads to one of their sockets.
const HIDDEN: [&str; 4] = ["nobody accepts", "orphan", "handshake", "in flight"];

/// What a case makes in its namespace, by its name.
type Maker = (&'static str, fn() -> Kept);

const CASES: [Maker; 14] = [
    ("nothing", || Box::new(())),
    ("listener", || Box::new(listen(V4, 8))),
    ("listener of both families", || Box::new(listen("[::]:7000", 8))),
    ("two listeners", || Box::new((listen(V4, 8), listen(V6, 8)))),
    ("bound", bound),
    ("nobody accepts", || Box::new((listen(V4, 8), TcpStream::connect(V4).unwrap()))),
    ("connection over IPv6", || Box::new(Pairs::open(V6, V6, 1))),
    (SHOWN, connections_and_bound),
    ("multipath", multipath_listener),
    ("orphan", orphan),
    ("time-wait", time_wait),
    ("handshake", || Box::new(handshake())),
    (LONE, lone_handshake),
    ("in flight", in_flight),
];

fn bound() -> Kept {
    let socket = socket(addr(V4));
    socket.bind(&addr(V4).into()).unwrap();
    Box::new((socket, listen(V6, 8)))
}

/// Listeners and connections of both families, one of which has shut down, and a socket in CLOSE.
fn connections_and_bound() -> Kept {
    let pairs = (Pairs::open(V4, V4, 3), Pairs::open(V6, V6, 2));
    pairs.0.clients[0].shutdown(Shutdown::Write).unwrap();
    let at = addr("127.0.0.1:7001");
    let closed = socket(at);
    closed.bind(&at.into()).unwrap();
    Box::new((pairs, closed))
}

/// Where the kernel has no MPTCP, nothing.
fn multipath_listener() -> Kept {
    let listener = multipath(addr(V4));
    if let Some(listener) = &listener {
        listener.bind(&addr(V4).into()).unwrap();
        listener.listen(8).unwrap();
    }
    Box::new(listener)
}

fn orphan() -> Kept {
    orphan_at(V4)
}

/// A closed socket whose data the peer does not take.
fn orphan_at(address: &str) -> Kept {
    let listener = listen(address, 8);
    let mut client = TcpStream::connect(address).unwrap();
    let server = listener.accept().unwrap().0;
    client.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = client.write(&[0; 8_192]) {
            break error.kind();
        }
    };
    assert_eq!(full, ErrorKind::WouldBlock);
    drop(client);
    Box::new((listener, server))
}

fn time_wait() -> Kept {
    time_wait_at(V4)
}

fn time_wait_at(address: &str) -> Kept {
    let listener = listen(address, 8);
    let client = TcpStream::connect(address).unwrap();
    let server = listener.accept().unwrap().0;
    drop(client);
    drop(server);
    Box::new(listener)
}

/// A listener with a request socket, and its client.
fn handshake() -> (TcpListener, TcpStream) {
    let listener = listen(V4, 8);
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60).unwrap();
    let client = TcpStream::connect(V4).unwrap();
    (listener, client)
}

/// A request socket alone: its listener is closed, and it never learns of the end of its client.
fn lone_handshake() -> Kept {
    let (listener, client) = handshake();
    run("ip", &["link", "set", "lo", "down"]);
    drop(listener);
    reset(Socket::from(client));
    Box::new(())
}

fn in_flight() -> Kept {
    Box::new((in_flight_at(V4), listen(V6, 8)))
}

/// A listener in a message that nobody has taken.
fn in_flight_at(address: &str) -> Kept {
    let line = UnixStream::pair().unwrap();
    pass(&line.0, &listen(address, 8)).unwrap();
    Box::new(line)
}

/// A case in its namespace.
struct Case {
    name: &'static str,
    namespace: Mounted,
    netns: NetnsId,
    before: Counts,
    _kept: Kept,
}

impl Case {
    fn make((number, (name, make)): (usize, Maker), test: &str) -> Self {
        let namespace = Mounted::add(&format!("{test}{number}"));
        let (netns, kept) = (namespace.id(), namespace.inside(make));
        let before = namespace.truth();
        Self { name, namespace, netns, before, _kept: kept }
    }
}

/// Those without a socket beside listeners.
fn is_empty(case: &Case) -> bool {
    case.before.keys().all(|(_, state)| *state == "listen")
}

fn states(counts: &Counts) -> BTreeMap<&'static str, u32> {
    let mut states = BTreeMap::new();
    for ((_, state), count) in counts {
        *states.entry(*state).or_default() += count;
    }
    states
}

fn cases(test: &str) -> Vec<Case> {
    let cases: Vec<Case> = CASES.into_iter().enumerate().map(|case| Case::make(case, test)).collect();
    // What each case is for is there.
    let with_sockets = cases.iter().filter(|case| !is_empty(case)).count();
    assert!((6..=7).contains(&with_sockets), "a request socket without its listener ends within seconds");
    cases
}

#[test]
fn the_kernel_counts_the_full_sockets_that_ss_shows_and_none_in_close() {
    for case in &cases("inuse") {
        let totals = case.namespace.inside(|| netns::totals().unwrap());
        // What ends meanwhile was there before.
        let is_full = |state: &&str| !matches!(*state, "syn_received" | "time_wait");
        let full = |truth: &Counts| -> u64 {
            truth.iter().filter(|((_, state), _)| is_full(state)).map(|(_, count)| u64::from(*count)).sum()
        };
        let after = case.namespace.truth();
        assert!(
            [full(&case.before), full(&after)].contains(&totals.hashed),
            "{}: {totals:?}, ss: {after:?}",
            case.name
        );
    }
}

#[test]
fn a_namespace_is_unchanged_where_files_lead_to_all_its_sockets_and_nowhere_else() {
    let cases = cases("unchanged");
    let mut engine = start(EngineOptions { watched: Watched::All, scans: Scans::ByCounts, ..options() });
    let bytes = Bytes::default();
    engine.stream_to(Sink::Viewer(Box::new(bytes.clone()))).unwrap();
    let of = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let mut unchanged = BTreeSet::new();
    for name in [SHOWN, "connection over IPv6"] {
        unchanged = eventually_within(SEVERAL_TURNS, &mut engine, &format!("{name} is unchanged"), |_| {
            Some(streams::unchanged(&bytes)).filter(|unchanged| unchanged.contains(&of(name).netns))
        });
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!(counted_in(&snapshot, of(name).netns), of(name).namespace.truth(), "{name}");
    }
    for name in HIDDEN {
        assert!(!unchanged.contains(&of(name).netns), "no file leads to a socket of {name}");
    }
    // What happens there is seen by events, and its counts are those of ss again.
    let shown = of(SHOWN);
    let more = shown.namespace.inside(|| Pairs::open("127.0.0.1:7002", "127.0.0.1:7002", 2));
    eventually_within(SEVERAL_TURNS, &mut engine, "more connections", |snapshot| {
        (counted_in(snapshot, shown.netns) == shown.namespace.truth()).then_some(())
    });
    drop(more);
}

/// Whether an event that followed a walk was followed by a scan that was none. Makes such an event.
fn is_spared(bytes: &Bytes, netns: NetnsId) -> bool {
    let scans = scans_of(bytes, netns);
    if scans.walks > 0 && !scans.has_event {
        drop(listen("127.0.0.1:0", 1));
    }
    scans.spared > 0
}

#[test]
fn among_many_sockets_files_and_counts_stand_in_for_a_walk_unless_they_miss_a_socket() {
    in_private_netns(|| {
        let _connections = Pairs::open(V4, V4, 15);
        let netns = netns::current().unwrap();
        let engine = || {
            let mut engine = start(EngineOptions { scans: Scans::Regularly, many_sockets: 5, ..options() });
            let bytes = Bytes::default();
            engine.stream_to(Sink::Viewer(Box::new(bytes.clone()))).unwrap();
            (engine, bytes)
        };
        let spared = |what: &str| {
            let (mut engine, bytes) = engine();
            eventually_within(SEVERAL_TURNS, &mut engine, &format!("a scan without a walk: {what}"), |snapshot| {
                (is_spared(&bytes, netns) && counted(snapshot) == truth()).then_some(())
            });
            streams::unchanged(&bytes).contains(&netns)
        };
        assert!(spared("connections"), "nothing else is there");
        // No file leads to one that waits to be accepted, one that its process has closed, and one in TIME_WAIT.
        let _hidden = (TcpStream::connect(V4).unwrap(), orphan_at(V6), time_wait_at("127.0.0.1:7001"));
        assert!(!spared("others"), "there may be more of them than are known");

        // A listener in a message is counted, and not shown.
        let _in_flight = in_flight_at("127.0.0.1:7002");
        let (mut engine, bytes) = engine();
        let walks = || scans_of(&bytes, netns).walks;
        let at_first = eventually_within(SEVERAL_TURNS, &mut engine, "the walk that a reader has asked for", |_| {
            Some(walks()).filter(|walks| *walks > 0)
        });
        eventually_within(SEVERAL_TURNS, &mut engine, "another walk", |snapshot| {
            assert!(!is_spared(&bytes, netns), "files do not lead to all listeners");
            (walks() > at_first && counted(snapshot) == truth()).then_some(())
        });
    });
}

#[test]
fn whatever_is_in_a_namespace_is_counted_at_start_as_ss_counts_it() {
    let cases = cases("counts");
    let engine = || start(EngineOptions { watched: Watched::All, ..options() });
    let snapshot = engine().snapshot(usize::MAX);
    for case in &cases {
        let counted = counted_in(&snapshot, case.netns);
        // What ends meanwhile was there before.
        let after = case.namespace.truth();
        let is_it = |truth: &Counts| *truth == counted || (case.name == LONE && states(truth) == states(&counted));
        assert!(is_it(&after) || is_it(&case.before), "{}: {counted:?}, ss: {:?}, {after:?}", case.name, case.before);
    }
}

#[test]
fn whatever_comes_and_goes_in_idle_namespaces_is_counted_as_ss_counts_it() {
    let cases = cases("idle");
    let look = FirstLook::Own;
    let mut engine =
        start(EngineOptions { watched: Watched::All, scans: Scans::Regularly, first_look: look, ..options() });
    let scans = |quality: &Quality| quality.coverage.is_complete().then_some(quality.coverage.oldest?.finished_at);
    let first =
        eventually_within(SEVERAL_TURNS, &mut engine, "all namespaces scanned", |snapshot| scans(&snapshot.quality));
    eventually_within(SEVERAL_TURNS, &mut engine, "all namespaces scanned again", |snapshot| {
        scans(&snapshot.quality).filter(|oldest| *oldest > first + TURN)
    });
    for case in &cases {
        eventually_within(SEVERAL_TURNS, &mut engine, &format!("the counts of {}", case.name), |snapshot| {
            (counted_in(snapshot, case.netns) == case.namespace.truth()).then_some(())
        });
    }
    // Sockets that the counts have to notice beside listeners.
    let more: Vec<_> = cases
        .iter()
        .filter(|case| case.name.contains("listener"))
        .map(|case| {
            case.namespace.inside(|| {
                run("ip", &["link", "set", "lo", "up"]);
                let silent = silent_listener(addr("127.0.0.1:0")).unwrap();
                let waiting = socket(addr(V4));
                start_connect(&waiting, local(&silent)).unwrap();
                (silent, waiting)
            })
        })
        .collect();
    for case in &cases {
        eventually_within(SEVERAL_TURNS, &mut engine, &format!("the counts of {} with more", case.name), |snapshot| {
            (counted_in(snapshot, case.netns) == case.namespace.truth()).then_some(())
        });
    }
    // What it has left ends without an event, and the counts show only its listener then.
    let time_wait = cases.iter().find(|case| case.name == "time-wait").unwrap();
    run("ss", &["-N", &time_wait.namespace.name, "-K", "-tn", "state", "time-wait"]);
    eventually_within(SEVERAL_TURNS, &mut engine, "the end of TIME_WAIT", |snapshot| {
        (counted_in(snapshot, time_wait.netns) == time_wait.namespace.truth()).then_some(())
    });
    drop(more);
}
