//! Records as the kernel side writes them.

use std::net::{IpAddr, Ipv6Addr};

use zerocopy::IntoBytes as _;

use super::*;

fn header(kind: Kind) -> RecordHeader {
    RecordHeader {
        sock: 0xffff_8880_0000_1000,
        at_ns_or_cgroup: 1_500,
        netns: 4_026_531_840,
        pid: 77,
        local_port: 40_000,
        remote_port: 443,
        kind: kind as u8,
        flags: 0,
        old_state: 2,
        new_state: 1,
    }
}

fn socket(kind: Kind) -> SocketRecord {
    let mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
    SocketRecord { header: header(kind), local: mapped(5), remote: mapped(9), device: 3, padding: 0 }
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_address_and_no_other_is() {
    for address in [
        "::",
        "::1",
        "::10.0.0.5",
        "::ffff:10.0.0.5",
        "::ffff:0:0",
        "::ffff:255.255.255.255",
        "1::ffff:10.0.0.5",
        "::1:ffff:10.0.0.5",
        "64:ff9b::10.0.0.5",
        "2001:db8::1",
        "fe80::ffff:1",
    ] {
        let address: Ipv6Addr = address.parse().unwrap();
        assert_eq!(ip(address.octets()), address.to_canonical(), "{address}");
    }
}

fn by_task(kind: Kind) -> TaskRecord {
    TaskRecord { socket: socket(kind), comm: *b"curl\0junk\0\0\0\0\0\0\0" }
}

fn expected() -> Identity {
    Identity {
        id: SocketId(0xffff_8880_0000_1000),
        netns: NetnsId(4_026_531_840),
        tuple: FourTuple {
            local_ip: "10.0.0.5".parse().unwrap(),
            local_port: 40_000,
            remote_ip: "10.0.0.9".parse().unwrap(),
            remote_port: 443,
        },
        device: Device::new(3),
        cgroup: None,
    }
}

/// As [`expected`], of a record that shows the cgroup.
fn of_cgroup() -> Identity {
    Identity { cgroup: Some(CgroupId(1_500)), ..expected() }
}

const CURL: &str = "curl";

fn curl() -> Process {
    Process { pid: Pid(77), comm: Comm::new(*b"curl\0junk\0\0\0\0\0\0\0") }
}

#[test]
fn a_state_change_keeps_its_tuple_and_states_and_its_cgroup_or_its_time() {
    let changed = |new: u8| {
        let mut record = socket(Kind::State);
        record.header.new_state = new;
        event(record.as_bytes())
    };
    let Ok(Event::State { socket, at, .. }) = changed(7) else { panic!("an end") };
    assert_eq!((socket, at), (expected(), Duration::from_nanos(1_500)));
    let established = Event::change(of_cgroup(), Duration::ZERO, TcpState::SynSent, TcpState::Established, None);
    assert_eq!(changed(1), Ok(established));
}

#[test]
fn records_of_a_task_name_its_process() {
    let Ok(Event::State { by: Some(by), .. }) = event(by_task(Kind::StateByTask).as_bytes()) else {
        panic!("a state change by a task")
    };
    assert_eq!((by, by.comm.to_string().as_str()), (curl(), CURL));
    assert_eq!(event(by_task(Kind::Connect).as_bytes()), Ok(Event::Connecting { socket: expected(), by: curl() }));
    assert_eq!(
        event(by_task(Kind::Accept).as_bytes()),
        Ok(Event::Accepted { socket: expected(), state: TcpState::Established, by: curl() })
    );
    let fd_owner = FdOwnerRecord { header: header(Kind::FdOwner), comm: by_task(Kind::FdOwner).comm, fd: 9, device: 4 };
    assert_eq!(
        event(fd_owner.as_bytes()),
        Ok(Event::Held {
            id: expected().id,
            netns: expected().netns,
            by: curl(),
            fd: 9,
            state: TcpState::from_kernel(fd_owner.header.new_state),
            bound: None,
            cgroup: Some(CgroupId(1_500))
        })
    );
}

#[test]
fn a_held_socket_on_an_explicit_bucket_is_bound_to_its_address() {
    let bound = |flags: u8, local_port: u16| {
        let header = RecordHeader { flags, local_port, ..header(Kind::Bound) };
        let fd_owner = FdOwnerRecord { header, comm: [0; 16], fd: 9, device: 4 };
        let record = BoundRecord { fd_owner, local: socket(Kind::Bound).local };
        match event(record.as_bytes()) {
            Ok(Event::Held { bound, .. }) => bound,
            other => panic!("{other:?}"),
        }
    };
    let explicit = SocketFlags::BUCKET_KNOWN | SocketFlags::BUCKET_EXPLICIT;
    assert_eq!(
        bound(explicit, 8080),
        Some(Local { ip: "10.0.0.5".parse().unwrap(), port: 8080, device: Device::new(4) })
    );
    assert_eq!(bound(explicit, 0), None);
    assert_eq!(bound(SocketFlags::BUCKET_KNOWN, 8080), None);
}

#[test]
fn a_socket_that_sent_nothing_has_its_port_range_in_place_of_a_time() {
    let mut record = socket(Kind::State);
    record.header.flags = SocketFlags::UNSENT;
    record.header.new_state = 7;
    record.header.at_ns_or_cgroup = 40_009 * 65_536 + 40_000;
    let Ok(Event::State { at, unsent, own_range, .. }) = event(record.as_bytes()) else { panic!("a state change") };
    assert_eq!((at, unsent, own_range), (Duration::ZERO, true, OwnRange { low: 40_000, high: 40_009 }));
}

fn failed_call(call: libc::c_long, errno: libc::c_int) -> CallRecord {
    let SocketRecord { header, local, remote, .. } = socket(Kind::CallFailed);
    CallRecord {
        header,
        local,
        remote,
        comm: by_task(Kind::CallFailed).comm,
        call: u32::try_from(call).unwrap(),
        errno: errno.cast_unsigned(),
        own_range: 0,
        flags: CallFlags::IPV6_DISABLED,
        device: 3,
        padding: 0,
    }
}

#[test]
fn a_failed_call_names_what_it_did_not_get() {
    let refused = |record: CallRecord| match event(record.as_bytes()) {
        Ok(Event::CallFailed { by, refused, .. }) => {
            assert_eq!(by, curl());
            Ok(refused)
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let Identity { id, tuple, .. } = expected();
    let local = Local { ip: tuple.local_ip, port: 40_000, device: Device::new(3) };
    let remote = SocketAddr::new(tuple.remote_ip, 443);
    let connect = Refused::Connect { socket: id, local, remote, no_ipv6: false };
    assert_eq!(refused(failed_call(libc::SYS_connect, libc::EADDRNOTAVAIL)), Ok(connect));
    let bind =
        |is_in_use| Refused::Bind { socket: id, local, is_in_use, own_range: OwnRange::default(), no_ipv6: false };
    assert_eq!(refused(failed_call(libc::SYS_bind, libc::EADDRINUSE)), Ok(bind(true)));
    assert_eq!(refused(failed_call(libc::SYS_listen, libc::EADDRNOTAVAIL)), Ok(bind(false)));
    let to_v6 = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
    let record = CallRecord { remote: to_v6, ..failed_call(libc::SYS_connect, libc::EADDRNOTAVAIL) };
    assert!(matches!(refused(record), Ok(Refused::Connect { no_ipv6: true, .. })));
    let unexpected = u32::try_from(libc::EINVAL).unwrap();
    assert_eq!(refused(failed_call(libc::SYS_bind, libc::EINVAL)), Err(DecodeError::UnknownErrno(unexpected)));
    assert!(matches!(refused(failed_call(libc::SYS_getppid, libc::EADDRINUSE)), Err(DecodeError::UnknownCall(_))));
}

#[test]
fn the_lowest_free_descriptor_is_the_first_bit_that_is_not_set() {
    let found = |limit: u64, first: u32, open: u64| {
        let record = FdCallRecord {
            header: header(Kind::FdCallFailed),
            comm: by_task(Kind::FdCallFailed).comm,
            call: u32::try_from(libc::SYS_socket).unwrap(),
            errno: libc::EMFILE.cast_unsigned(),
            limit,
            open,
            first,
            padding: 0,
        };
        match event(record.as_bytes()) {
            Ok(Event::CallFailed { call: "socket", refused: Refused::Descriptor { found }, .. }) => found,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(found(1_024, 64, 0b1011), Some((1_024, 66)));
    assert_eq!(found(64, 64, 0), Some((64, 64)));
    assert_eq!(found(FdCallRecord::UNKNOWN_LIMIT, 0, 0), None);
}

#[test]
fn a_listener_has_its_queues() {
    let header = header(Kind::Listener);
    let record = ListenerRecord { header, accept_queue: 5, backlog: 4, syn_queue: 3, drops: 14 };
    let queues = Queues { accept: 5, syn: 3, limit: 4, drops: 14 };
    assert_eq!(event(record.as_bytes()), Ok(Event::Queues { id: expected().id, netns: expected().netns, queues }));
}

#[test]
fn the_end_of_a_pass_is_no_event() {
    let record = header(Kind::PassEnd);
    assert_eq!(pass_end(record.as_bytes()), Some(record.sock));
    assert_eq!(event(record.as_bytes()), Err(DecodeError::NoEvent(Kind::PassEnd)));
    assert_eq!(pass_end(header(Kind::Destroy).as_bytes()), None);
    assert_eq!(pass_end(&record.as_bytes()[..8]), None);
}

#[test]
fn a_destroyed_socket_needs_no_tuple() {
    assert_eq!(
        event(header(Kind::Destroy).as_bytes()),
        Ok(Event::Destroyed { id: expected().id, netns: expected().netns })
    );
}

#[test]
fn a_scan_distinguishes_full_sockets_time_wait_and_requests() {
    let scanned = |new_state: u8, old_state: u8, flags: u8| {
        let mut record = socket(Kind::Scanned);
        record.header = RecordHeader { new_state, old_state, flags, ..record.header };
        match event(record.as_bytes()) {
            Ok(Event::Scanned { state, binding, .. }) => (state, binding),
            other => panic!("{other:?}"),
        }
    };
    let (unknown, began) = (Binding::default(), Some(Duration::from_nanos(1_500)));
    assert_eq!(scanned(10, 0, 0), (Found::Full(TcpState::Listen), unknown));
    assert_eq!(scanned(6, 5, 0), (Found::TimeWait { substate: TcpState::FinWait2, since: None, began }, unknown));
    let since = Some(Duration::from_nanos(1_500));
    let with_timestamps = Found::TimeWait { substate: TcpState::TimeWait, since, began };
    assert_eq!(scanned(6, 6, SocketFlags::TIMESTAMPS), (with_timestamps, unknown));
    assert_eq!(scanned(12, 0, 0), (Found::Request, unknown));
    let flags = SocketFlags::PORT_LOCKED | SocketFlags::BUCKET_KNOWN;
    assert_eq!(
        scanned(1, 0, flags).1,
        Binding { port_locked: true, explicit_bucket: Some(false), connect_bound: false }
    );
    let flags = SocketFlags::BUCKET_KNOWN | SocketFlags::BUCKET_EXPLICIT;
    assert_eq!(scanned(1, 0, flags).1.explicit_bucket, Some(true));
    assert!(scanned(1, 0, flags | SocketFlags::CONNECT_BOUND).1.connect_bound);
}

#[test]
fn v4_mapped_addresses_are_ipv4_and_others_stay_ipv6() {
    let mut record = socket(Kind::State);
    record.remote = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
    let Ok(Event::State { socket, .. }) = event(record.as_bytes()) else { panic!("a state change") };
    assert!(matches!(socket.tuple.local_ip, IpAddr::V4(_)));
    assert_eq!(socket.tuple.remote_ip, "2001:db8::1".parse::<IpAddr>().unwrap());
}

#[test]
fn what_cannot_be_is_an_error_that_names_it() {
    assert_eq!(event(&[0; 31]), Err(DecodeError::NoHeader(31)));
    assert_eq!(event(&[0; 32]), Err(DecodeError::UnknownKind(0)));
    let whole = socket(Kind::State);
    assert_eq!(event(&whole.as_bytes()[..63]), Err(DecodeError::Length { kind: Kind::State, got: 63 }));
    let mut record = whole;
    record.header.new_state = 13;
    assert_eq!(event(record.as_bytes()), Err(DecodeError::UnknownState(13)));
}

#[test]
fn a_listener_leaves_request_sockets_unless_its_record_says_that_it_had_none() {
    let leaves = |flags| {
        let mut record = socket(Kind::State);
        record.header.flags = flags;
        leaves_requests(record.as_bytes())
    };
    assert!(leaves(0) && leaves(!SocketFlags::NO_REQUESTS));
    assert!(!leaves(SocketFlags::NO_REQUESTS) && !leaves(u8::MAX));
    assert!(leaves_requests(&[]), "no record says that");
}
