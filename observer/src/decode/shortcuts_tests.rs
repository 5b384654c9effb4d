//! What is left out makes no difference.

use std::time::{Duration, SystemTime};

use observer_ebpf::abi::{SocketFlags, TaskRecord};
use proptest::{prelude::*, sample::Index};
use zerocopy::IntoBytes as _;

use super::*;
use crate::{
    input::{Input, apply, apply_joined, leave_out},
    model::{Basis, Model, namespace::NamespaceReading, units::NetnsId},
};

const NETNS: u32 = 7;
const EST: u8 = 1;
const CLOSED: u8 = 7;

/// A step of a socket's life: kind, from, to.
type Change = (Kind, u8, u8);

/// Lives of clients and of accepted sockets, whoever closes first.
const LIVES: [&[Change]; 6] = [
    &[CONNECT, (Kind::State, 2, EST), (Kind::State, EST, 4), (Kind::State, 4, 5), (Kind::State, 5, CLOSED)],
    &[CONNECT, (Kind::State, 2, EST), (Kind::State, EST, 8), (Kind::State, 8, 9), (Kind::State, 9, CLOSED)],
    &[BEGIN, ACCEPT, (Kind::State, EST, 8), (Kind::State, 8, 9), (Kind::State, 9, CLOSED)],
    // accept() returns what the peer has closed already; both close at once.
    &[BEGIN, (Kind::State, EST, 8), ACCEPT, (Kind::State, 8, 9), (Kind::State, 9, CLOSED)],
    &[BEGIN, ACCEPT, (Kind::State, EST, 4), (Kind::State, 4, 11), (Kind::State, 11, CLOSED)],
    &[CONNECT, HOOKED, (Kind::State, 2, EST), (Kind::State, EST, 8), (Kind::State, 8, 9), (Kind::State, 9, CLOSED)],
];
/// Where the connect hook is attached.
const HOOKED: Change = (Kind::Connect, 0, 2);
const CONNECT: Change = (Kind::StateByTask, CLOSED, 2);
const BEGIN: Change = (Kind::State, 3, EST);
const ACCEPT: Change = (Kind::Accept, 0, EST);

/// The record of a change of socket `number`, as the hook writes it. `is_orphan`: its process closed it before.
fn record(number: u8, (kind, old_state, new_state): Change, is_orphan: bool) -> Vec<u8> {
    let says_orphan = matches!((old_state, new_state), (_, 5 | 11) | (5 | 11, CLOSED));
    let header = RecordHeader {
        sock: 0xffff_8880_0000_0000 + u64::from(number) * 2_368,
        at_ns_or_cgroup: match (old_state, new_state) {
            (_, CLOSED) => 5_000_000_000,
            // Some have a cgroup.
            (CLOSED, _) | (3, EST) => u64::from(number % 3),
            _ => 0,
        },
        netns: NETNS,
        pid: 0,
        local_port: if (old_state, new_state) == (CLOSED, 2) { 0 } else { 40_000 + u16::from(number) },
        remote_port: 80,
        kind: kind as u8,
        flags: if is_orphan && says_orphan { SocketFlags::ORPHAN } else { 0 },
        old_state,
        new_state,
    };
    let ip = |last| [[0; 10].as_slice(), &[0xff, 0xff, 10, 0, 0, last]].concat().try_into().unwrap();
    let socket = SocketRecord { header, local: ip(1), remote: ip(2), device: 0, padding: 0 };
    match kind {
        Kind::State | Kind::Scanned => socket.as_bytes().to_vec(),
        _ => TaskRecord { socket, comm: *b"some process\0\0\0\0" }.as_bytes().to_vec(),
    }
}

/// A model that a scan has shown an empty namespace.
fn model() -> Model {
    let mut model = Model::new(Vec::new(), Basis { started_at: Some(Duration::ZERO), ..Basis::default() });
    for input in
        [Input::Namespace(NetnsId(NETNS), Box::<NamespaceReading>::default()), Input::BeginScan(NetnsId(NETNS))]
    {
        apply(&mut model, Duration::ZERO, input);
    }
    apply(&mut model, Duration::ZERO, Input::EndScan);
    // Some accepted sockets have a listener.
    for number in [0_u8, 3] {
        let mut listens = record(200 + number, (Kind::StateByTask, CLOSED, 10), false);
        listens[24..26].copy_from_slice(&(40_000 + u16::from(number)).to_ne_bytes());
        apply(&mut model, Duration::ZERO, Input::Record(&listens));
    }
    model
}

fn slices(records: &[Vec<u8>]) -> Vec<&[u8]> {
    records.iter().map(Vec::as_slice).collect()
}

/// All that a snapshot has, after the records were applied in parts of so many: all of them, or without what is superseded.
fn shown(records: &[Vec<u8>], part: usize, takes_shortcuts: bool) -> (String, usize) {
    let mut model = model();
    let mut left_out = 0;
    for (number, records) in records.chunks(part).enumerate() {
        let now = Duration::from_secs(5 + number as u64);
        let shortcuts = shortcuts(&slices(records));
        for (place, record) in records.iter().enumerate() {
            if takes_shortcuts && shortcuts.leave_out(place) {
                left_out += 1;
                leave_out(&mut model);
            } else if let Some(next) = shortcuts.joined_to(place).filter(|_| takes_shortcuts) {
                apply_joined(&mut model, now, record, &records[next]);
            } else {
                apply(&mut model, now, Input::Record(record));
            }
        }
        apply(&mut model, now, Input::Tick);
    }
    let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::from_secs(9), 16);
    (format!("{snapshot:#?}").lines().map(rounded).collect::<Vec<_>>().join("\n"), left_out)
}

/// Rates are sums, and their last digit depends on the order of rows.
fn rounded(line: &str) -> String {
    let number =
        line.split_once(": ").and_then(|(name, value)| Some((name, value.trim_end_matches(',').parse::<f64>().ok()?)));
    number.map_or_else(|| line.to_owned(), |(name, value)| format!("{name}: {value:.6}"))
}

/// Lives side by side, each in its order: which life, whether its process closes first, and where each of its records stands.
fn lives() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let life = (0..LIVES.len(), any::<bool>(), prop::collection::vec(any::<Index>(), 6));
    prop::collection::vec(life, 1..9).prop_map(|lives| {
        let mut all = Vec::new();
        for (number, (life, is_orphan, places)) in lives.into_iter().enumerate() {
            let number = u8::try_from(number).unwrap();
            let mut places: Vec<_> = places.iter().map(|place| place.index(1_000)).collect();
            places.sort_unstable();
            all.extend(
                places.into_iter().zip(LIVES[life]).map(|(at, change)| (at, record(number, *change, is_orphan))),
            );
        }
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, record)| record).collect()
    })
}

proptest! {
    #[test]
    fn shortcuts_lead_to_the_same_end(records in lives(), part in 1..40_usize) {
        let (all, _) = shown(&records, part, false);
        let (without, _) = shown(&records, part, true);
        // Line by line: all of it is too much to look at.
        let differing: Vec<_> = all.lines().zip(without.lines()).filter(|(one, other)| one != other).collect();
        prop_assert!(all == without, "{differing:#?}");
    }

    /// After losses, too.
    #[test]
    fn of_the_records_of_a_socket_the_last_counts(records in lives(), lost in prop::collection::vec(any::<bool>(), 54)) {
        let left: Vec<_> = records.into_iter().zip(lost).filter(|(_, is_lost)| !is_lost).map(|(record, _)| record).collect();
        let shortcuts = shortcuts(&slices(&left));
        let joined: Vec<_> = (0..left.len()).filter_map(|place| shortcuts.joined_to(place)).collect();
        for (place, record) in left.iter().enumerate() {
            let is_followed = left[place + 1..].iter().any(|later| later[..8] == record[..8]);
            prop_assert!(is_followed || joined.contains(&place) || !shortcuts.leave_out(place));
        }
    }
}

/// The places that are left out, and those that are applied with a later one.
fn places(records: &[Vec<u8>]) -> (Vec<usize>, Vec<usize>) {
    let shortcuts = shortcuts(&slices(records));
    let all = 0..records.len();
    let joined = all.clone().filter(|place| shortcuts.joined_to(*place).is_some()).collect();
    (all.filter(|place| shortcuts.leave_out(*place)).collect(), joined)
}

#[track_caller]
fn assert_no_shortcut(records: &[Vec<u8>]) {
    assert_eq!(places(records), (vec![], vec![]));
}

#[test]
fn of_a_whole_life_two_records_are_applied() {
    // accept() of what the peer has closed already is no event of its begin.
    let expected = [
        (vec![1, 2, 3], vec![0]),
        (vec![1, 2, 3], vec![0]),
        (vec![1, 2, 3], vec![0]),
        (vec![3], vec![]),
        (vec![1, 2, 3], vec![0]),
        (vec![1, 2, 3, 4], vec![0]),
    ];
    for (life, expected) in LIVES.iter().zip(expected) {
        let records: Vec<_> = life.iter().map(|change| record(1, *change, true)).collect();
        assert_eq!(places(&records), expected, "{life:?}");
    }
    let records: Vec<_> = LIVES[0].iter().map(|change| record(1, *change, true)).collect();
    assert_eq!(shown(&records, 32, true).1, 3);
}

#[test]
fn a_gap_is_no_sequence() {
    // FIN_WAIT_1 > FIN_WAIT_2 was lost; SYN_SENT > ESTABLISHED was.
    assert_no_shortcut(&[record(1, (Kind::State, EST, 4), false), record(1, (Kind::State, 5, CLOSED), false)]);
    assert_no_shortcut(&[record(1, CONNECT, false), record(1, (Kind::State, EST, 8), false)]);
}

#[test]
fn what_only_the_first_says_is_not_left_out() {
    assert_no_shortcut(&[record(1, (Kind::State, 4, 5), true), record(1, (Kind::State, 5, CLOSED), false)]);
}

#[test]
fn another_process_in_connect_is_an_event_of_its_own() {
    let mut records: Vec<_> = LIVES[5][..3].iter().map(|change| record(1, *change, false)).collect();
    records[1][20] = 9;
    assert_no_shortcut(&records);
}

#[test]
fn two_sockets_are_not_joined() {
    let (connect, mut success) = (record(1, CONNECT, false), record(1, (Kind::State, 2, EST), false));
    assert_eq!(places(&[connect.clone(), success.clone()]), (vec![1], vec![0]));
    // Another address, as of another socket at the same place.
    success[63] = 77;
    assert_no_shortcut(&[connect, success]);
}

#[test]
fn whose_port_was_bound_before_is_not_joined() {
    let (mut connect, success) = (record(1, CONNECT, false), record(1, (Kind::State, 2, EST), false));
    connect[24..26].copy_from_slice(&40_001_u16.to_ne_bytes());
    assert_no_shortcut(&[connect, success]);
}

#[test]
fn beside_what_a_scan_shows_there_is_no_shortcut() {
    let mut records: Vec<_> = LIVES[0].iter().map(|change| record(1, *change, true)).collect();
    records.push(record(2, (Kind::Scanned, 0, EST), false));
    assert_no_shortcut(&records);
}

#[test]
fn bytes_that_make_no_sense_are_applied() {
    let mut records = vec![record(1, (Kind::State, EST, 4), false), record(1, (Kind::State, 4, 77), false)];
    assert_no_shortcut(&records);
    records[1] = record(1, (Kind::State, 4, 5), false)[..60].to_vec();
    assert_no_shortcut(&records);
    assert_no_shortcut(&vec![vec![1, 2, 3]; 100]);
    assert_no_shortcut(&[record(1, CONNECT, false)[..70].to_vec(), record(1, (Kind::State, 2, EST), false)]);
}
