//! Ranges with an odd number of ports: the kernel looks at an even number of them (`__inet_hash_connect`), and passes
//! over the lowest or the highest port, by chance.

use std::net::SocketAddr;

use observer::model::{failure::FailureKind, headroom::PortUse, snapshot::Snapshot};
use socket2::Socket;

use super::stage::Stage;
use crate::{
    sockets::{reset, socket, start_connect},
    support::{in_private_netns, observe, scan_until, set_sysctl},
};

const LOW: u16 = 20_000;
const SERVER: u16 = 7000;
/// Each is a destination of its own, and so a throw of its own.
const DESTINATIONS: u8 = 200;

fn destinations() -> impl Iterator<Item = SocketAddr> {
    (2..2 + DESTINATIONS).map(|last| SocketAddr::from(([127, 0, 0, last], SERVER)))
}

/// What came of one destination.
struct Thrown {
    predicted: PortUse,
    got: u32,
}

fn port_use(snapshot: &Snapshot, to: SocketAddr) -> Option<PortUse> {
    let mut rows = snapshot.endpoints.iter().flat_map(|row| &row.destinations);
    rows.find(|row| row.remote == to)?.ports
}

/// In a range of `size` ports, those at `free` are left to connect(), the others are blocked. Each destination has one
/// connection already; then connects to each until EADDRNOTAVAIL.
fn throw(size: u16, free: &[u16]) -> Vec<Thrown> {
    let listener = socket(SocketAddr::from(([0, 0, 0, 0], SERVER)));
    listener.bind(&SocketAddr::from(([0, 0, 0, 0], SERVER)).into()).unwrap();
    listener.listen(4096).unwrap();
    set_sysctl("ipv4/ip_local_port_range", &format!("{LOW} {}", LOW + size - 1));
    let blocked = (0..size).filter(|place| !free.contains(place));
    let blocked: Vec<Socket> =
        blocked.map(|place| Stage::bound("127.0.0.1".parse().unwrap(), LOW + place, false, false).unwrap()).collect();
    let connect = |to: SocketAddr| {
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        start_connect(&client, to).map(|()| client)
    };
    let mut open: Vec<Socket> = destinations().filter_map(|to| connect(to).ok()).collect();
    let mut engine = observe();
    let snapshot = scan_until(&mut engine, "a row for each connection", |engine| {
        let snapshot = engine.snapshot(usize::MAX);
        let rows = destinations().filter(|to| port_use(&snapshot, *to).is_some()).count();
        if rows == open.len() { Ok(snapshot) } else { Err(format!("{rows} rows for {} connections", open.len())) }
    });
    let mut thrown = Vec::new();
    for to in destinations() {
        let Some(predicted) = port_use(&snapshot, to) else { continue };
        let before = open.len();
        let refused = loop {
            match connect(to) {
                Ok(client) => open.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{to}: {refused}");
        thrown.push(Thrown { predicted, got: u32::try_from(open.len() - before).unwrap() });
    }
    engine.scan().unwrap();
    contradict_nothing(&engine.snapshot(0));
    open.into_iter().chain(blocked).for_each(reset);
    thrown
}

/// Of every refusal the text says that nothing was left, or why what was left was passed over.
fn contradict_nothing(snapshot: &Snapshot) {
    for row in snapshot.failures.iter().filter(|row| row.key.kind == FailureKind::PortsExhausted) {
        let observer::model::failure::Failed::Ports(ports) = row.failed else { panic!("{row:?}") };
        assert_eq!(ports.left(), Some(0), "{row:?}");
        let is_explained = row.reason().contains("range of odd size");
        assert_eq!(is_explained, ports.left_at_most() > 0, "{}", row.reason());
    }
}

/// What the order in which the kernel takes ports leaves to chance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chance {
    /// Nothing: one number is announced, and comes.
    None,
    /// Two numbers are shown. After a restart the kernel takes the lowest or the highest port early, nearly always.
    Little,
    /// Two numbers are announced, and both come.
    Both,
}

/// As many as were announced.
fn assert_announced(size: u16, free: &[u16], chance: Chance) {
    let free = free.to_vec();
    in_private_netns(move || {
        let thrown = throw(size, &free);
        let announced = |it: &Thrown| (it.predicted.left().unwrap(), it.predicted.left_at_most());
        for it in &thrown {
            let (least, most) = announced(it);
            assert!((least..=most).contains(&it.got), "{} of {size} at {free:?}: {:?}", it.got, it.predicted);
        }
        let open: Vec<&Thrown> = thrown.iter().filter(|it| announced(it).0 < announced(it).1).collect();
        let came = |wanted: fn(&Thrown) -> bool| open.iter().any(|it| wanted(it));
        if chance == Chance::Both {
            assert!(came(|it| it.predicted.left() == Some(it.got)), "never the lower of {size} at {free:?}");
            assert!(came(|it| it.predicted.left_at_most() == it.got), "never the higher of {size} at {free:?}");
        }
        assert_eq!(open.is_empty(), chance == Chance::None, "{} of {} in {size} at {free:?}", open.len(), thrown.len());
    });
}

#[test]
fn a_range_of_one_port_has_one() {
    assert_announced(1, &[0], Chance::None);
}

#[test]
fn of_a_range_of_three_the_highest_is_never_chosen() {
    assert_announced(3, &[0, 1, 2], Chance::None);
    assert_announced(3, &[0, 2], Chance::None);
}

#[test]
fn in_a_range_of_five_the_last_port_is_left_to_chance() {
    assert_announced(5, &[0, 1, 2, 3, 4], Chance::Both);
    assert_announced(5, &[0, 1, 2, 3], Chance::Little);
    assert_announced(5, &[1, 2, 3, 4], Chance::Little);
}

#[test]
fn in_a_range_of_101_as_well_and_only_if_the_lowest_or_the_highest_is_free() {
    assert_announced(101, &[0, 50, 98, 100], Chance::Both);
    assert_announced(101, &[1, 50, 98, 99], Chance::None);
}
