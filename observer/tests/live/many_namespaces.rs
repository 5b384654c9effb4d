//! Many network namespaces: each is scanned by need, and what is shown of each is what `ss` shows there.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicU32, Ordering},
};

use observer::{
    engine::{Engine, EngineOptions, FirstLook, Scans, Watched},
    model::{
        limit::{LimitKind, Scope},
        snapshot::Snapshot,
        units::NetnsId,
    },
    recording::Sink,
};

use crate::{
    namespaces::Mounted,
    streams::{Bytes, replayed},
    support::{Pairs, counted_in, eventually, listen, options, run, scaled, start, wait_until},
};

/// An engine that shows something before it has scanned all.
fn start_by_own_namespace() -> Engine {
    let look = FirstLook::Own;
    start(EngineOptions { watched: Watched::All, scans: Scans::Regularly, first_look: look, ..options() })
}

/// A namespace of this test, with connections in it.
struct Pod {
    namespace: Mounted,
    netns: NetnsId,
    pairs: Pairs,
}

impl Pod {
    /// The one of this number in a test. Tests run side by side: each has a name of its own.
    fn add(number: u32) -> Self {
        static ADDED: AtomicU32 = AtomicU32::new(0);
        let namespace = Mounted::add(&format!("pod{}", ADDED.fetch_add(1, Ordering::Relaxed)));
        let netns = namespace.id();
        let count = number as usize % 5;
        let pairs = namespace.inside(move || Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", count));
        Self { namespace, netns, pairs }
    }
}

#[test]
fn a_reader_that_begins_in_the_middle_begins_with_all_namespaces_at_once() {
    let pods: Vec<Pod> = (0..scaled(20)).map(Pod::add).collect();
    let mut engine = start(EngineOptions { watched: Watched::All, scans: Scans::Regularly, ..options() });
    let bytes = Bytes::default();
    engine.stream_to(Sink::Viewer(Box::new(bytes.clone()))).unwrap();
    let mut first = None;
    wait_until("the first round of the stream", || {
        engine.poll().unwrap();
        first = replayed(&bytes);
        first.is_some()
    });
    let first = first.unwrap();
    let coverage = first.quality.coverage;
    // Other tests make namespaces meanwhile: these, and the own one, were there before.
    assert!(coverage.scanned > scaled(20), "{coverage:?}");
    assert!(first.quality.last_fd_scan_at.is_some());
    for pod in &pods {
        assert_eq!(counted_in(&first, pod.netns), pod.namespace.truth(), "{}", pod.namespace.name);
    }
}

/// The accept queue of the namespace's listener.
fn queue(snapshot: &Snapshot, netns: NetnsId, port: u16) -> Option<u64> {
    let is_it = |scope: &Scope| matches!(scope, Scope::Listener { netns: of, local, .. } if *of == netns && local.port() == port);
    snapshot.limits.iter().find(|it| it.kind == LimitKind::AcceptQueue && is_it(&it.scope)).map(|it| it.used)
}

/// `Recv-Q` of a listener: connections that wait for accept().
fn queue_of_ss(namespace: &Mounted, port: u16) -> u64 {
    let shown = run("ss", &["-N", &namespace.name, "-Hltn", &format!("sport = :{port}")]);
    shown.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap()
}

#[test]
fn a_start_that_shows_its_own_namespace_first_soon_shows_all_as_ss_does() {
    let pods: Vec<Pod> = (0..scaled(20)).map(Pod::add).collect();
    let mut engine = start_by_own_namespace();
    let first = engine.snapshot(0).quality;
    assert!(!first.coverage.is_complete() && first.last_scan.is_none(), "the others wait: {:?}", first.coverage);
    let oldest = eventually(&mut engine, "all namespaces scanned", |snapshot| {
        let quality = &snapshot.quality;
        (quality.coverage.is_complete() && quality.last_scan.is_some()).then_some(quality.coverage.oldest?)
    });
    let snapshot = engine.snapshot(usize::MAX);
    for pod in &pods {
        assert_eq!(counted_in(&snapshot, pod.netns), pod.namespace.truth(), "{}", pod.namespace.name);
    }
    assert!(oldest.finished_at >= oldest.began_at && oldest.finished_at <= snapshot.uptime);
}

#[test]
fn after_churn_in_many_namespaces_each_is_counted_as_ss_counts_it() {
    let mut pods: Vec<Pod> = (0..scaled(100)).map(Pod::add).collect();
    let mut engine = start_by_own_namespace();
    for round in 0..3 {
        for (place, pod) in pods.iter_mut().enumerate() {
            let more = (place + round) % 4;
            let streams = pod
                .namespace
                .inside(move || (0..more).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect::<Vec<_>>());
            for stream in streams {
                pod.pairs.clients.push(stream);
                pod.pairs.accepted.push(pod.pairs.listener.accept().unwrap().0);
            }
            if place % 2 == 0 {
                drop(pod.pairs.clients.pop());
                drop(pod.pairs.accepted.pop());
            }
            engine.poll().unwrap();
        }
    }
    for pod in &pods {
        eventually(&mut engine, &format!("the counts of {}", pod.namespace.name), |snapshot| {
            (counted_in(snapshot, pod.netns) == pod.namespace.truth()).then_some(())
        });
    }
}

#[test]
fn the_accept_queue_of_each_of_many_namespaces_is_that_of_ss() {
    let pods: Vec<Pod> = (0..scaled(10)).map(Pod::add).collect();
    let mut engine = start_by_own_namespace();
    eventually(&mut engine, "all namespaces scanned", |snapshot| snapshot.quality.last_scan);
    // Connections to listeners that nobody accepts from.
    let waiting: Vec<_> = pods
        .iter()
        .enumerate()
        .map(|(place, pod)| {
            pod.namespace.inside(move || {
                let listener = listen("127.0.0.1:7001", 8);
                let clients: Vec<_> = (0..=place % 8).map(|_| TcpStream::connect("127.0.0.1:7001").unwrap()).collect();
                (listener, clients)
            })
        })
        .collect();
    for (pod, (_, clients)) in pods.iter().zip(&waiting) {
        let expected = queue_of_ss(&pod.namespace, 7_001);
        assert_eq!(expected, clients.len() as u64);
        eventually(&mut engine, &format!("the accept queue in {}", pod.namespace.name), |snapshot| {
            (queue(snapshot, pod.netns, 7_001) == Some(expected)).then_some(())
        });
    }
}
