//! Snapshots built by hand contradict themselves no more than those that a model makes: one number stands on several
//! screens, and is the same on each.

use std::time::Duration;

use super::fixture::{DEMO, ailing, busy, degraded, empty, losing, one, recorded, suspended, thousands, without_hooks};
use crate::{
    frame::Frame,
    model::{
        limit::{Limit, LimitKind, Scope},
        snapshot::{DestinationRow, EndpointRow, Snapshot},
    },
    replay::Replay,
};

/// What a row says that cannot be.
fn in_row(row: &EndpointRow) -> Vec<String> {
    let local = format!("{} {:?}", row.key.local_ip, row.key.local_port);
    let listed: u32 = row.destinations.iter().map(|it| it.sockets).sum();
    let owned: u32 = row.owners.iter().map(|it| it.sockets).sum();
    let of_row = [
        (row.sockets <= row.states.sum(), "more sockets than its states add up to"),
        (row.sockets <= row.peak, "more sockets than its peak"),
        (listed <= row.sockets, "more sockets towards its destinations than it has"),
        (owned <= row.sockets, "more sockets owned than it has"),
        (row.destinations.len() <= row.destination_count, "more destinations than it counts"),
        (row.destinations.iter().all(|it| it.local_ip == row.key.local_ip), "a destination of another address"),
    ];
    let has_room = |it: &DestinationRow| {
        it.ports.is_none_or(|ports| {
            ports.used + ports.time_wait + ports.reserved + ports.passed_over + ports.blocked.unwrap_or(0)
                <= ports.range
        })
    };
    let of_ports = (row.destinations.iter().all(has_room), "more ports than the range has");
    of_row
        .into_iter()
        .chain([of_ports])
        .filter(|(holds, _)| !holds)
        .map(|(_, what)| format!("{local}: {what}"))
        .collect()
}

/// The use and the maximum of a limit, where another row of the snapshot has them.
fn elsewhere(data: &Snapshot, limit: &Limit) -> Option<(u64, u64)> {
    match (limit.kind, limit.scope) {
        (LimitKind::Ports, Scope::Destination { netns, local_ip, device, remote }) => {
            let mut rows = data.endpoints.iter().flat_map(|row| &row.destinations);
            let row =
                rows.find(|it| (it.netns, it.local_ip, it.device, it.remote) == (netns, local_ip, device, remote));
            row?.ports.map(|ports| (ports.in_use().into(), ports.usable().into()))
        }
        (LimitKind::ProcessFiles, Scope::Process(pid)) => {
            let files = data.host.processes.iter().find(|it| it.process.pid == pid)?;
            Some((files.open, data.host.most_descriptors(files)?))
        }
        (LimitKind::HostFiles, Scope::Host) => data.host.files.map(|files| (files.allocated, files.max)),
        _ => None,
    }
}

fn contradictions(data: &Snapshot) -> Vec<String> {
    let mut found: Vec<String> = data.endpoints.iter().flat_map(in_row).collect();
    let sockets: u32 = data.endpoints.iter().map(|row| row.sockets).sum();
    if (data.totals.sockets, data.totals.peak_sockets.max(sockets)) != (sockets, data.totals.peak_sockets) {
        found.push(format!("{sockets} sockets of all rows: {:?}", data.totals));
    }
    let failures: u64 = data.failures.iter().map(|row| row.count).sum();
    if failures > data.failures_total {
        found.push(format!("{failures} failures of {}", data.failures_total));
    }
    for limit in &data.limits {
        let numbers = elsewhere(data, limit);
        if numbers.is_some_and(|numbers| numbers != (limit.used, limit.maximum)) {
            found.push(format!("{limit:?}, elsewhere {numbers:?}"));
        }
    }
    for row in &data.processes {
        let files = data.host.processes.iter().find(|it| it.process.pid == row.process.pid);
        if row.files.is_some_and(|it| files.is_some_and(|files| *files != it)) {
            found.push(format!("{row:?}, elsewhere {files:?}"));
        }
    }
    found
}

/// One at a time: all of them together are too much for a stack.
type Built = fn() -> Frame;

#[test]
fn what_is_built_by_hand_contradicts_itself_nowhere() {
    let frames: [(&str, Built); 10] = [
        ("empty", empty),
        ("one", one),
        ("busy", busy),
        ("ailing", ailing),
        ("thousands", thousands),
        ("losing", losing),
        ("degraded", degraded),
        ("suspended", suspended),
        ("without_hooks", without_hooks),
        ("recorded", recorded),
    ];
    for (name, frame) in frames {
        assert_eq!(contradictions(&frame().snapshot), Vec::<String>::new(), "{name}");
    }
}

/// What is demanded of them is what a model keeps.
#[test]
fn no_moment_of_a_recording_contradicts_itself() {
    let mut replay = Replay::start(DEMO).unwrap();
    let mut seen = 0;
    while !replay.is_over() {
        replay.advance(replay.now() + Duration::from_millis(500)).unwrap();
        let data = replay.snapshot(1_000);
        assert_eq!(contradictions(&data), Vec::<String>::new(), "{:?}", data.uptime);
        seen += data.limits.iter().filter(|limit| elsewhere(&data, limit).is_some()).count();
    }
    assert!(seen > 0, "no limit was compared");
}

#[test]
fn a_contradiction_is_found() {
    let mut data = busy().snapshot;
    data.host.files.as_mut().unwrap().allocated += 1;
    data.endpoints[1].destinations[0].sockets += 10;
    data.totals.sockets += 1;
    data.failures_total = 1;
    assert_eq!(contradictions(&data).len(), 4, "{:#?}", contradictions(&data));
}
