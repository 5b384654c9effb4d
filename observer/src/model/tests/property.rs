//! Arbitrary interleavings of events, losses and scans: the counts never go below zero, their sums agree, and a
//! complete scan makes them equal to what was scanned.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use crate::model::{
    Basis, Model,
    address::Local,
    device::{Device, DeviceReading},
    event::{Binding, Event, Found, Identity, OwnRange, Refused},
    key_of,
    ledger::Contribution,
    member::Member,
    reading::NamespaceReading,
    service::{CgroupId, Service},
    snapshot::{EndpointRow, ServiceRow, Snapshot},
    socket::SocketTable,
    units::{Comm, FourTuple, NetnsId, Pid, PortRange, Process, SocketId, TcpState},
};

use super::scenario::model;

const NETNS: NetnsId = NetnsId(1);

/// Few ids and addresses, so that they meet.
fn identity() -> impl Strategy<Value = Identity> {
    let addresses = (0..2_u8, 0..3_u16, 0..2_u8, 0..3_u16);
    let socket = (0..6_u64, addresses, device(), cgroup());
    socket.prop_map(|(id, (local, local_port, remote, remote_port), device, cgroup)| Identity {
        id: SocketId(id),
        netns: NETNS,
        tuple: FourTuple {
            local_ip: address(local),
            local_port: local_port * 20_000,
            remote_ip: address(remote),
            remote_port: remote_port * 20_000,
        },
        device: Device::new(device),
        cgroup,
    })
}

/// Unknown, the root, a cgroup without a service (3, by [`name_members`]), or one with.
fn cgroup() -> impl Strategy<Value = Option<CgroupId>> {
    proptest::option::of((1..6_u64).prop_map(CgroupId))
}

/// Resolves what asks for it: every other time, and then all.
fn name_members(model: &mut Model) {
    for member in model.unnamed_members().collect::<Vec<_>>() {
        let unit = match member {
            Member::Cgroup(CgroupId(3)) => None,
            Member::Cgroup(CgroupId(4)) => Some("init.scope".to_owned()),
            Member::Cgroup(CgroupId(id)) => Some(format!("{}.service", id % 2)),
            Member::Process(Pid(pid)) => Some(format!("{}.service", pid % 2)),
        };
        let service = unit.map(|unit| Service { unit: Some(unit.as_str().into()), ..Service::default() });
        model.set_service(member, service);
    }
}

/// None most of the time; else a device outside of any VRF, one inside, or the VRF itself.
fn device() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => 2..5_u32]
}

fn devices() -> Vec<DeviceReading> {
    let reading = |index, vrf| DeviceReading { index, name: Comm::default(), vrf };
    vec![reading(2, 0), reading(3, 4), reading(4, 4)]
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

/// A full socket is never in TIME_WAIT: that is a socket of its own.
fn state() -> impl Strategy<Value = TcpState> {
    let full: Vec<_> = TcpState::ALL.into_iter().filter(|it| *it != TcpState::TimeWait).collect();
    proptest::sample::select(full)
}

fn event() -> impl Strategy<Value = Event> {
    (1..4_u32).prop_flat_map(|pid| event_by(Process { pid: Pid(pid), comm: Comm::from("x") }))
}

fn event_by(by: Process) -> impl Strategy<Value = Event> {
    let at = Duration::ZERO;
    prop_oneof![
        6 => (identity(), state(), state(), binding())
            .prop_map(move |(socket, old, new, binding)| Event::State { socket, at, old, new, by: Some(by), orphan: new == TcpState::FinWait2, unsent: old == TcpState::SynSent, own_range: OwnRange::default(), binding, timestamps: true }),
        1 => (identity(), state())
            .prop_map(move |(socket, state)| Event::Accepted { socket, state, by }),
        1 => identity().prop_map(move |socket| Event::Connecting { socket, by }),
        1 => identity().prop_map(|it| Event::Destroyed { id: it.id, netns: it.netns }),
        1 => (identity(), any::<bool>(), proptest::option::of(state())).prop_map(move |(it, is_bound, state)| Event::Held {
            id: it.id,
            netns: NETNS,
            by,
            fd: 3,
            state,
            bound: is_bound.then_some(Local { ip: it.tuple.local_ip, port: it.tuple.local_port, device: it.device }),
            cgroup: it.cgroup,
        }),
        1 => identity().prop_map(move |it| {
            let FourTuple { local_ip, local_port, remote_ip, remote_port } = it.tuple;
            let local = Local { ip: local_ip, port: local_port, device: it.device };
            let (socket, remote) = (it.id, SocketAddr::new(remote_ip, remote_port));
            let refused = Refused::Connect { socket, local, remote, no_ipv6: false };
            Event::CallFailed { netns: NETNS, call: "connect", by, cgroup: it.cgroup, refused }
        }),
        1 => identity().prop_map(move |it| {
            let local = Local { ip: it.tuple.local_ip, port: it.tuple.local_port, device: it.device };
            let (own_range, no_ipv6) = (OwnRange::default(), false);
            let refused = Refused::Bind { socket: it.id, local, is_in_use: true, own_range, no_ipv6 };
            Event::CallFailed { netns: NETNS, call: "bind", by, cgroup: it.cgroup, refused }
        }),
        2 => scanned(),
    ]
}

fn binding() -> impl Strategy<Value = Binding> {
    (any::<bool>(), any::<Option<bool>>(), any::<bool>()).prop_map(|(port_locked, explicit_bucket, connect_bound)| {
        Binding { port_locked, explicit_bucket, connect_bound }
    })
}

fn scanned() -> impl Strategy<Value = Event> {
    let substate = proptest::sample::select(vec![TcpState::TimeWait, TcpState::FinWait2]);
    let since = proptest::option::of((0..400_u64).prop_map(Duration::from_millis));
    let found = prop_oneof![
        state().prop_map(Found::Full),
        (substate, since).prop_map(|(substate, since)| Found::TimeWait { substate, since, began: since }),
        Just(Found::Request),
    ];
    (identity(), found, binding()).prop_map(|(socket, state, binding)| Event::Scanned {
        socket,
        state,
        binding,
        orphan: false,
    })
}

fn feed(model: &mut Model, events: &[Event]) {
    for (index, event) in events.iter().enumerate() {
        let now = Duration::from_millis(index as u64);
        model.apply(event, now);
        match index % 16 {
            3 => model.begin_fd_scan(Duration::ZERO),
            5 => model.end_fd_scan(Duration::ZERO),
            7 => model.begin_scan(NETNS, Duration::ZERO),
            13 => end_scan(model),
            9 => name_members(model),
            11 => model.end_scan_by_counts(NETNS, now),
            15 => model.tick(now),
            _ => {}
        }
    }
}

fn end_scan(model: &mut Model) {
    model.end_scan(Duration::from_mins(1));
}

fn snapshot(model: &mut Model) -> Snapshot {
    model.snapshot(SystemTime::UNIX_EPOCH, Duration::from_mins(1), usize::MAX)
}

fn is_sum(model: &Model) -> Result<(), TestCaseError> {
    let mut sum = model.ledger.emptied();
    for contribution in model.contributions() {
        sum.apply(Contribution::NONE, contribution, Duration::ZERO);
    }
    prop_assert_eq!(model.ledger.totals(), sum.totals());
    let mut sockets = SocketTable::default();
    for socket in model.sockets.iter() {
        sockets.insert(*socket, |socket| key_of(model.ledger.endpoints(), socket));
    }
    prop_assert_eq!(model.sockets.pairs(), sockets.pairs());
    Ok(())
}

/// What services have adds up to what endpoints have: each socket, opening and end belongs to one row.
fn services_agree(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let services = |count: fn(&ServiceRow) -> u64| snapshot.services.iter().map(count).sum::<u64>();
    let endpoints = |count: fn(&EndpointRow) -> u64| snapshot.endpoints.iter().map(count).sum::<u64>();
    prop_assert_eq!(services(|row| row.sockets.into()), endpoints(|row| row.sockets.into()));
    prop_assert_eq!(services(|row| row.orphans.into()), endpoints(|row| row.orphans.into()));
    prop_assert_eq!(services(|row| row.opened_total), snapshot.totals.opened_total);
    prop_assert_eq!(services(|row| row.closed_total), snapshot.totals.closed_total);
    prop_assert_eq!(services(|row| row.failed_total), snapshot.totals.failed_total);
    prop_assert_eq!(services(|row| row.failures_total), snapshot.failures_total);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_always_agree(events in proptest::collection::vec(event(), 0..200)) {
        let mut model = Model::default();
        feed(&mut model, &events);
        let snapshot = snapshot(&mut model);
        let sockets: u32 = snapshot.endpoints.iter().map(|row| row.sockets).sum();
        let towards: u32 = snapshot.endpoints.iter().flat_map(|row| &row.destinations).map(|it| it.sockets).sum();
        let inbound: u32 = snapshot.endpoints.iter().filter(|row| row.key.local_port.is_some()).map(|row| row.sockets).sum();
        prop_assert_eq!(snapshot.totals.sockets, sockets);
        prop_assert_eq!(sockets - inbound, towards);
        prop_assert!(snapshot.totals.connections <= sockets);
        for row in &snapshot.endpoints {
            let owned: u32 = row.owners.iter().map(|owner| owner.sockets).sum();
            prop_assert!(owned + row.orphans <= row.sockets);
        }
        services_agree(&snapshot)?;
        model.restart_totals(model.now);
        services_agree(&self::snapshot(&mut model))?;
    }

    /// What events change one by one equals a recount of everything, before and after the range changes.
    #[test]
    fn ports_equal_a_recount(
        before in proptest::collection::vec(event(), 0..100),
        after in proptest::collection::vec(event(), 0..100),
        reuse in 0..3_u8,
    ) {
        let mut model = model(true);
        let reading = |low| NamespaceReading {
            port_range: Some(PortRange { low, high: 50_000 }),
            reserved: vec![PortRange { low: 40_000, high: 40_000 }],
            tcp_tw_reuse: Some(reuse),
            tcp_tw_reuse_delay: Some(Duration::from_millis(50)),
            devices: devices(),
            ..NamespaceReading::default()
        };
        model.set_namespace(NETNS, reading(10_000));
        feed(&mut model, &before);
        model.set_namespace(NETNS, reading(5_000));
        feed(&mut model, &after);
        let ports = |model: &mut Model| {
            let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::from_millis(200), usize::MAX);
            let rows = snapshot.endpoints.iter().flat_map(|row| &row.destinations);
            rows.map(|row| (row.remote, row.ports)).collect::<Vec<_>>()
        };
        let counted = ports(&mut model);
        for (_, ports) in &counted {
            let ports = ports.unwrap();
            prop_assert_eq!(ports.usable(), ports.blocked.unwrap_or(0) + ports.used + ports.time_wait + ports.left_at_most());
        }
        model.rebuild_ports(NETNS);
        prop_assert_eq!(counted, ports(&mut model));
    }

    /// The ledger equals the sum of what all sockets add to it, and the pairs are those of a table made of these sockets.
    #[test]
    fn the_ledger_is_the_sum_of_all_contributions(
        unread in proptest::collection::vec(event(), 0..60),
        before in proptest::collection::vec(event(), 0..100),
        after in proptest::collection::vec(event(), 0..100),
        frees_buckets in any::<bool>(),
    ) {
        let basis = Basis { started_at: Some(Duration::ZERO), reads_buckets: true, frees_buckets, ..Basis::default() };
        let mut model = Model::new(Vec::new(), basis);
        let reading = |low, tcp_l3mdev_accept| NamespaceReading {
            port_range: Some(PortRange { low, high: 50_000 }),
            tcp_tw_reuse: Some(1),
            tcp_tw_reuse_delay: Some(Duration::from_millis(50)),
            devices: devices(),
            tcp_l3mdev_accept: Some(tcp_l3mdev_accept),
            ..NamespaceReading::default()
        };
        feed(&mut model, &unread);
        is_sum(&model)?;
        model.set_namespace(NETNS, reading(10_000, false));
        is_sum(&model)?;
        feed(&mut model, &before);
        is_sum(&model)?;
        model.set_namespace(NETNS, reading(5_000, true));
        is_sum(&model)?;
        for (index, event) in after.iter().enumerate() {
            model.apply(event, Duration::from_millis(100 + index as u64));
            is_sum(&model)?;
            if index % 7 == 0 {
                name_members(&mut model);
                is_sum(&model)?;
            }
        }
        model.settle_ports(Duration::from_mins(1));
        is_sum(&model)?;
        model.forget_namespace(NETNS);
        is_sum(&model)?;
        prop_assert_eq!(model.ledger.totals(), Vec::<String>::new());
    }

    #[test]
    fn a_complete_scan_makes_the_counts_equal_to_what_was_scanned(
        events in proptest::collection::vec(event(), 0..100),
        truth in proptest::collection::btree_map(0..20_u64, (identity(), state()), 0..20),
    ) {
        let mut model = Model::default();
        feed(&mut model, &events);
        model.begin_scan(NETNS, Duration::ZERO);
        for (id, (socket, state)) in &truth {
            let socket = Identity { id: SocketId(*id), ..*socket };
            let binding = Binding::default();
            model.apply(&Event::Scanned { socket, state: Found::Full(*state), binding, orphan: false }, Duration::ZERO);
        }
        end_scan(&mut model);
        let snapshot = snapshot(&mut model);
        for state in TcpState::ALL {
            if matches!(state, TcpState::Closed | TcpState::Listen) {
                continue;
            }
            let counted: u32 = snapshot.endpoints.iter().map(|row| row.states.get(state)).sum();
            let there = truth.values().filter(|(_, it)| *it == state).count();
            prop_assert_eq!(counted as usize, there, "{}", state.name());
        }
    }
}
