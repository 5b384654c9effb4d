//! Sockets that stay where they should not, and connect() that has become slow: found with real sockets, and not found
//! where all is well.

use std::{
    net::TcpStream,
    process,
    time::{Duration, Instant},
};

use observer::{
    engine::Engine,
    model::{
        finding::{Finding, FindingKind},
        snapshot::Snapshot,
    },
};

use crate::{
    limits::start_connecting,
    ss::sockets_in,
    support::{Pairs, eventually, in_private_netns, listen, run, scanning, set_sysctl, wait_for_sockets, wait_until},
};

fn found(snapshot: &Snapshot, kind: FindingKind) -> Option<Finding> {
    snapshot.findings.iter().find(|finding| finding.kind == kind).cloned()
}

fn gone(engine: &mut Engine, kind: FindingKind) {
    eventually(engine, "its end", |snapshot| found(snapshot, kind).is_none().then_some(()));
}

#[test]
fn connections_that_the_application_does_not_close_are_a_leak() {
    in_private_netns(|| {
        let mut engine = scanning();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 12);
        pairs.clients.clear();
        wait_for_sockets("close-wait", 12);
        let (began, mut found_after) = (Instant::now(), Duration::ZERO);
        let leak = eventually(&mut engine, "the leak", |snapshot| found(snapshot, FindingKind::CloseWaitLeak));
        found_after += began.elapsed();
        assert!(found_after > Duration::from_secs(25), "found after {found_after:?}: that may be a slow answer");
        let pid = process::id();
        assert!(leak.sentence.contains(&format!("({pid}) does not close connections")), "{leak:?}");
        assert!(leak.evidence.starts_with("12 sockets stay in CLOSE_WAIT"), "{leak:?}");
        assert!(leak.evidence.contains(" open descriptors (limit "), "{leak:?}");
        assert!(leak.remedy.contains("close()"), "{leak:?}");
        pairs.accepted.clear();
        gone(&mut engine, FindingKind::CloseWaitLeak);
    });
}

#[test]
fn connections_that_are_closed_soon_are_no_leak() {
    in_private_netns(|| {
        let mut engine = scanning();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 0);
        let began = Instant::now();
        let mut rounds = 0;
        while began.elapsed() < Duration::from_secs(34) {
            pairs.more("127.0.0.1:7000", 12);
            pairs.clients.clear();
            wait_for_sockets("close-wait", 12);
            let (scans, round) = (engine.snapshot(0).quality.scans_total, Instant::now());
            // Long enough for a scan to see them.
            eventually(&mut engine, "a scan", |snapshot| {
                assert_eq!(found(snapshot, FindingKind::CloseWaitLeak), None);
                (snapshot.quality.scans_total > scans && round.elapsed() > Duration::from_secs(1)).then_some(())
            });
            pairs.accepted.clear();
            rounds += 1;
        }
        assert!(rounds > 1, "one round is no coming and going");
    });
}

#[test]
fn a_destination_that_does_not_answer_is_found_and_one_that_does_is_not() {
    in_private_netns(|| {
        let mut engine = scanning();
        let answers = listen("127.0.0.1:7001", 128);
        // It queues one or two connections, and then drops SYNs.
        let silent = listen("127.0.0.1:7000", 0);
        let (clients, others) = (start_connecting("127.0.0.1:7000", 12), start_connecting("127.0.0.1:7001", 12));
        wait_until("the answers", || sockets_in("syn-sent") < 12 && sockets_in("syn-sent") >= 8);
        let finding = eventually(&mut engine, "no answer", |snapshot| {
            // observer waits 4 seconds for the first answer before it reports anything.
            found(snapshot, FindingKind::NoAnswer)
        });
        let waiting = sockets_in("syn-sent");
        let beginning = "127.0.0.1:7000 does not answer: the accept queue of ";
        assert!(finding.sentence.starts_with(beginning), "a listener of this host: {finding:?}");
        assert!(finding.remedy.contains("accept()"), "{finding:?}");
        let count: usize = finding.evidence.split(' ').next().unwrap().parse().unwrap();
        assert!((8..=12).contains(&count) && count >= waiting.min(8), "{waiting} wait, {finding:?}");
        assert!(finding.evidence.contains(&format!("({})", process::id())), "{finding:?}");
        let all = engine.snapshot(0).findings.into_iter().filter(|it| it.kind == FindingKind::NoAnswer).count();
        assert_eq!(all, 1, "the other destination has answered");
        drop((clients, silent));
        gone(&mut engine, FindingKind::NoAnswer);
        drop((answers, others));
    });
}

#[test]
fn connect_is_slow_beyond_half_of_the_range_and_not_before() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "20000 28191");
        set_sysctl("core/somaxconn", "20000");
        // Connections that wait in the accept queue need no descriptor of the server.
        let listener = listen("127.0.0.1:7000", 20_000);
        let mut engine = scanning();
        let connect = |_| TcpStream::connect("127.0.0.1:7000").unwrap();
        // 49 %
        let mut clients: Vec<_> = (0..4_014).map(connect).collect();
        engine.scan().unwrap();
        assert_eq!(found(&engine.snapshot(0), FindingKind::SlowConnect), None);
        clients.extend((0..82).map(connect));
        // Half of the range is one parity: all of its ports are in use, and none of the other.
        let parities = run("ss", &["-Htn", "dport", "=", "7000"]);
        let odd = parities.lines().filter(|line| {
            let local = line.split_whitespace().nth(3).unwrap();
            local.rsplit_once(':').unwrap().1.parse::<u16>().unwrap() % 2 == 1
        });
        assert_eq!(odd.count(), 0);
        engine.scan().unwrap();
        let finding = found(&engine.snapshot(0), FindingKind::SlowConnect).expect("a finding");
        assert!(finding.sentence.starts_with("connect() from 127.0.0.1 to 127.0.0.1:7000 takes"), "{finding:?}");
        assert!(finding.evidence.starts_with("4096 of 8192 ports are in use"), "{finding:?}");
        clients.truncate(4_000);
        // Closed by their client, without a FIN of their server: FIN_WAIT2 keeps their ports.
        drop(listener);
        gone(&mut engine, FindingKind::SlowConnect);
    });
}
