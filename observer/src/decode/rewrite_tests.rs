//! Every byte that may identify somebody is rewritten, and no other is.

use std::{net::Ipv6Addr, ops::Range};

use proptest::prelude::*;

use super::*;
use crate::decode::event;

/// Where the fields are, as docs/recording.md has it.
const SOCK: Range<usize> = 0..8;
const KIND: usize = 28;

/// Each kind of record: its number, its length, and where it has sockets, addresses, names, and bytes that mean nothing.
const KINDS: [(u8, usize, &[Range<usize>]); 13] = [
    (1, 72, &[SOCK, 32..48, 48..64, 68..72]),
    (2, 88, &[SOCK, 32..48, 48..64, 68..72, 72..88]),
    (3, 88, &[SOCK, 32..48, 48..64, 68..72, 72..88]),
    (4, 88, &[SOCK, 32..48, 48..64, 68..72, 72..88]),
    (5, 32, &[SOCK]),
    (6, 72, &[SOCK, 32..48, 48..64, 68..72]),
    (7, 56, &[SOCK, 32..48]),
    (8, 48, &[SOCK]),
    (9, 104, &[SOCK, 32..48, 48..64, 64..80, 100..104]),
    (10, 80, &[SOCK, 32..48, 76..80]),
    (11, 72, &[SOCK, 32..48, 56..72]),
    (12, 40, &[SOCK]),
    (13, 32, &[]),
];

/// The same everywhere, or each as it is.
struct Fixed {
    stays: bool,
}

impl Pseudonyms for Fixed {
    fn socket(&mut self, id: SocketId) -> SocketId {
        if self.stays { id } else { SocketId(0) }
    }

    fn ip(&mut self, ip: IpAddr) -> IpAddr {
        if self.stays { ip } else { Ipv6Addr::UNSPECIFIED.into() }
    }

    fn comm(&mut self, comm: Comm) -> Comm {
        if self.stays { comm } else { Comm::default() }
    }
}

fn rewritten(bytes: &[u8], stays: bool) -> Vec<u8> {
    let mut out = vec![1];
    rewrite(bytes, &mut Fixed { stays }, &mut out);
    out
}

#[test]
fn nothing_is_left_where_a_record_has_sockets_addresses_and_names_and_the_rest_stays() {
    for (kind, length, fields) in KINDS {
        let mut bytes = vec![0xa5; length];
        bytes[KIND] = kind;
        let mut expected = bytes.clone();
        for field in fields {
            expected[field.clone()].fill(0);
        }
        assert_eq!(rewritten(&bytes, false), expected, "kind {kind}");
    }
}

#[test]
fn every_kind_is_known_and_what_makes_no_sense_is_left_out() {
    for kind in 0..=u8::MAX {
        let lengths = (0..=128).filter(|length| {
            let mut bytes = vec![0; *length];
            bytes.iter_mut().skip(KIND).take(1).for_each(|at| *at = kind);
            !rewritten(&bytes, true).is_empty()
        });
        let expected = KINDS.iter().filter(|(known, ..)| *known == kind).map(|(_, length, _)| *length);
        assert_eq!(lengths.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "kind {kind}");
        assert_eq!(Kind::from_raw(kind).is_some(), KINDS.iter().any(|(known, ..)| *known == kind), "kind {kind}");
    }
}

proptest! {
    #[test]
    fn a_record_means_the_same_apart_from_its_pseudonyms(
        (kind, length, _) in prop::sample::select(KINDS.to_vec()),
        mut bytes in prop::collection::vec(prop_oneof![Just(0), 1..=12_u8, any::<u8>()], 104),
    ) {
        bytes.truncate(length);
        bytes[KIND] = kind;
        prop_assert_eq!(event(&rewritten(&bytes, true)), event(&bytes));
    }
}
