//! What is left out makes no difference.

use std::time::{Duration, SystemTime};

use observer_ebpf::abi::{SocketFlags, TaskRecord};
use proptest::{prelude::*, sample::Index};
use zerocopy::IntoBytes as _;

use super::*;
use crate::{
    input::{Input, apply, pass_over},
    model::{Basis, Model, namespace::NamespaceReading, units::NetnsId},
};

const NETNS: u32 = 7;
const EST: u8 = 1;
const CLOSED: u8 = 7;

/// A step of a socket's life: kind, from, to.
type Change = (Kind, u8, u8);

/// Lives of clients and of accepted sockets, whoever closes first.
const LIVES: [&[Change]; 5] = [
    &[CONNECT, (Kind::State, 2, EST), (Kind::State, EST, 4), (Kind::State, 4, 5), (Kind::State, 5, CLOSED)],
    &[CONNECT, (Kind::State, 2, EST), (Kind::State, EST, 8), (Kind::State, 8, 9), (Kind::State, 9, CLOSED)],
    &[BEGIN, ACCEPT, (Kind::State, EST, 8), (Kind::State, 8, 9), (Kind::State, 9, CLOSED)],
    // accept() returns what the peer has closed already; both close at once.
    &[BEGIN, (Kind::State, EST, 8), ACCEPT, (Kind::State, 8, 9), (Kind::State, 9, CLOSED)],
    &[BEGIN, ACCEPT, (Kind::State, EST, 4), (Kind::State, 4, 11), (Kind::State, 11, CLOSED)],
];
const CONNECT: Change = (Kind::StateByTask, CLOSED, 2);
const BEGIN: Change = (Kind::State, 3, EST);
const ACCEPT: Change = (Kind::Accept, 0, EST);

/// The record of a change of socket `number`, as the hook writes it. `is_orphan`: its process closed it before.
fn record(number: u8, (kind, old_state, new_state): Change, is_orphan: bool) -> Vec<u8> {
    let says_orphan = matches!((old_state, new_state), (_, 5 | 11) | (5 | 11, CLOSED));
    let header = RecordHeader {
        sock: 0xffff_8880_0000_0000 + u64::from(number) * 2_368,
        at_ns_or_cgroup: if new_state == CLOSED { 5_000_000_000 } else { 0 },
        netns: NETNS,
        pid: 0,
        local_port: 40_000 + u16::from(number),
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
    model
}

/// All that a snapshot has, after the records were applied in parts of so many: all of them, or without what is superseded.
fn shown(records: &[Vec<u8>], part: usize, leaves_out: bool) -> (String, usize) {
    let mut model = model();
    let mut left_out = 0;
    for (number, records) in records.chunks(part).enumerate() {
        let now = Duration::from_secs(5 + number as u64);
        let needless = superseded(records.iter().map(Vec::as_slice));
        for (place, record) in records.iter().enumerate() {
            if leaves_out && needless.has(place) {
                left_out += 1;
                pass_over(&mut model);
            } else {
                apply(&mut model, now, Input::Record(record));
            }
        }
        apply(&mut model, now, Input::Tick);
    }
    (format!("{:#?}", model.snapshot(SystemTime::UNIX_EPOCH, Duration::from_secs(9), 16)), left_out)
}

/// Lives side by side, each in its order: which life, whether its process closes first, and where each of its records stands.
fn lives() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let life = (0..LIVES.len(), any::<bool>(), prop::collection::vec(any::<Index>(), 5));
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
    fn what_is_left_out_makes_no_difference(records in lives(), part in 1..40_usize) {
        let (all, _) = shown(&records, part, false);
        let (without, _) = shown(&records, part, true);
        prop_assert_eq!(all, without);
    }

    /// As on the ring: whatever bytes come, and after losses.
    #[test]
    fn of_the_records_of_one_socket_the_last_is_applied(records in lives(), lost in prop::collection::vec(any::<bool>(), 45)) {
        let left: Vec<_> = records.into_iter().zip(lost).filter(|(_, is_lost)| !is_lost).map(|(record, _)| record).collect();
        let needless = superseded(left.iter().map(Vec::as_slice));
        for (place, record) in left.iter().enumerate() {
            let is_followed = left[place + 1..].iter().any(|later| later[..8] == record[..8]);
            prop_assert!(is_followed || !needless.has(place));
        }
    }
}

fn places(records: &[Vec<u8>]) -> Vec<usize> {
    let needless = superseded(records.iter().map(Vec::as_slice));
    (0..records.len()).filter(|place| needless.has(*place)).collect()
}

#[test]
fn of_a_whole_life_the_states_between_are_left_out() {
    for (life, expected) in LIVES.iter().zip([vec![2, 3], vec![2, 3], vec![2, 3], vec![3], vec![2, 3]]) {
        let records: Vec<_> = life.iter().map(|change| record(1, *change, true)).collect();
        assert_eq!(places(&records), expected, "{life:?}");
    }
    let records: Vec<_> = LIVES[0].iter().map(|change| record(1, *change, true)).collect();
    assert_eq!(shown(&records, 32, true).1, 2);
}

#[test]
fn a_gap_is_no_sequence() {
    // FIN_WAIT_1 > FIN_WAIT_2 was lost.
    let records = [record(1, (Kind::State, EST, 4), false), record(1, (Kind::State, 5, CLOSED), false)];
    assert!(places(&records).is_empty());
}

#[test]
fn what_only_the_first_says_is_not_left_out() {
    let records = [record(1, (Kind::State, 4, 5), true), record(1, (Kind::State, 5, CLOSED), false)];
    assert!(places(&records).is_empty());
}

#[test]
fn beside_what_a_scan_shows_nothing_is_left_out() {
    let life = |number| LIVES[0].iter().map(move |change| record(number, *change, true));
    let mut records: Vec<_> = life(1).collect();
    records.push(record(2, (Kind::Scanned, 0, EST), false));
    assert!(places(&records).is_empty());
}

#[test]
fn bytes_that_make_no_sense_supersede_nothing() {
    let mut records = vec![record(1, (Kind::State, EST, 4), false), record(1, (Kind::State, 4, 77), false)];
    assert!(places(&records).is_empty());
    records[1] = record(1, (Kind::State, 4, 5), false)[..60].to_vec();
    assert!(places(&records).is_empty());
    assert!(places(&vec![vec![1, 2, 3]; 100]).is_empty());
}
