use std::time::{Duration, SystemTime};

use super::*;
use crate::frame::LocalReadings;
use crate::model::{
    Basis, Model,
    finding::{Finding, FindingKind},
    hits::KernelHits,
    limit::{Counter, Scope},
    snapshot::NamespaceRow,
    units::{Pid, PortRange, Process},
};

const OWN: NetnsId = NetnsId(1);

fn snapshot() -> Snapshot {
    Model::new(Vec::new(), Basis::default()).snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0)
}

fn limit(kind: LimitKind, scope: Scope, used: u64, maximum: u64) -> Limit {
    let process = Some(Process { pid: Pid(1_234_567), comm: "a-long-command-".into() });
    Limit { netns_name: Some("blue".into()), process, ..Limit::for_test(kind, scope, used, maximum) }
}

#[test]
fn what_belongs_to_another_namespace_says_to_which_and_says_it_once() {
    let (mut snapshot, other) = (snapshot(), NetnsId(2));
    let row = |netns, name: &str| NamespaceRow {
        netns,
        name: Some(name.into()),
        service: None,
        port_range: None,
        reserved_ports: 0,
        blocked_ports: None,
        tcp_tw_reuse: None,
        established: 0,
        time_wait: 0,
        listen_drops: None,
        hits: KernelHits::default(),
    };
    snapshot.namespaces = vec![row(OWN, "host"), row(other, "blue")];
    let finding = |netns| Finding {
        kind: FindingKind::ReservedInRange,
        netns,
        scope: None,
        service: None,
        sentence: "Much is reserved.".into(),
        evidence: String::new().into(),
        remedy: "".into(),
    };
    snapshot.findings = [OWN, other, NetnsId(7)].map(finding).into();
    snapshot.limits = vec![limit(LimitKind::TimeWait, Scope::Namespace(other), 1, 2)];
    let frame = Frame { own: Some(OWN), local: Some(LocalReadings::default()), ..Frame::from(snapshot.clone()) };
    let text = text(&frame, None);
    for line in ["Much is reserved.", "Much is reserved (in blue).", "Much is reserved (in 7)."] {
        assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in\n{text}");
    }
    assert!(text.contains("namespace blue ") && !text.contains("namespace blue in blue"), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&json(&frame).unwrap()).unwrap();
    assert_eq!(json["findings"][1]["netns_name"], "blue");
    // The screen does not know where observer was started: it names all but the host's.
    let shown: Vec<String> =
        snapshot.findings.iter().map(|finding| service::sentence_on_screen(&snapshot, finding)).collect();
    assert_eq!(shown, ["Much is reserved.", "Much is reserved (in blue).", "Much is reserved (in 7)."]);
    snapshot.namespaces.remove(0);
    assert_eq!(service::sentence_on_screen(&snapshot, &snapshot.findings[1]), "Much is reserved.", "there is no other");
}

#[test]
fn tables_are_whole_and_sentences_fit_80_columns() {
    let mut snapshot = snapshot();
    let local = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap();
    let id = crate::model::units::SocketId(1);
    for kind in LimitKind::ALL {
        let scope =
            Scope::Listener { netns: NetnsId(4_026_532_999), local, device: crate::model::device::Device::NONE, id };
        snapshot.limits.push(limit(kind, scope, 99_999_999_999, 4_026_532_999));
        snapshot.limits.push(limit(kind, Scope::Host, 1, u64::MAX));
        let counter = |name, total| Counter { id: "counter", name, total, before: Some(total - 1) };
        let counters = vec![
            counter("overflows in the namespace (ListenOverflows)", 12_345_678_901),
            counter("segments discarded here, for whatever reason (sk_drops)", 98_765_432_109),
        ];
        snapshot.limits.push(Limit { counters, ..limit(kind, scope, 1, 2) });
        snapshot.limits.push(Limit { slope: Some(0.5), ..limit(kind, Scope::Host, 1_000, 1_000_000) });
    }
    let row = NamespaceRow {
        netns: OWN,
        name: None,
        service: None,
        port_range: Some(PortRange { low: 1, high: 65_535 }),
        reserved_ports: 60_000,
        blocked_ports: Some(0),
        tcp_tw_reuse: None,
        established: 0,
        time_wait: 0,
        listen_drops: None,
        hits: KernelHits::default(),
    };
    let snapshot_limit = snapshot.limits[0].clone();
    let addresses = ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|ip| ip.parse().unwrap()).into();
    snapshot.namespaces.push(row);
    let frame =
        Frame { own: Some(OWN), local: Some(LocalReadings { addresses, files: None }), ..Frame::from(snapshot) };
    assert_eq!(Arithmetic::new(&frame).connections_to_an_ipv4_destination, Some(2 * 5_535));
    let text = text(&frame, None);
    assert!(!text.contains('…'), "something is cut in\n{text}");
    let whole = scope::beside(&snapshot_limit, OWN);
    let row = text.lines().find(|line| line.contains(&whole)).unwrap_or_else(|| panic!("no {whole} in\n{text}"));
    for word in ["99,999,999,999", "4,026,532,999"] {
        assert!(row.contains(word), "{row}");
    }
    let is_of_a_table =
        |line: &&str| line.starts_with(|letter: char| letter.is_ascii_alphabetic()) && line.contains("  ");
    for line in text.lines().filter(|line| !is_of_a_table(line)) {
        assert!(line.chars().count() <= PLAIN_WIDTH, "{} columns: {line}", line.chars().count());
    }
    for words in ["79,228,162,514,264,337,593,543,950,336", "18,446,744,073,709,551,616", "281,474,976,710,656"] {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
    assert!(text.contains("no limit"), "{text}");
    assert!(text.contains("  counted   12,345,678,901 overflows in the namespace"), "{text}");
}
