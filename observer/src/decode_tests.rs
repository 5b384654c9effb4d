//! Records as the kernel side writes them.

use std::net::IpAddr;

use zerocopy::IntoBytes as _;

use super::*;

fn header(kind: Kind) -> RecordHeader {
    RecordHeader {
        sock: 0xffff_8880_0000_1000,
        at_ns: 1_500,
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
    }
}

const CURL: &str = "curl";

fn curl() -> Process {
    Process { pid: Pid(77), comm: Comm::new(*b"curl\0junk\0\0\0\0\0\0\0") }
}

#[test]
fn a_state_change_keeps_its_tuple_states_and_time() {
    assert_eq!(
        event(socket(Kind::State).as_bytes()),
        Ok(Event::State {
            socket: expected(),
            at: Duration::from_nanos(1_500),
            old: TcpState::SynSent,
            new: TcpState::Established,
            by: None,
            orphan: false,
            unsent: false,
            binding: Binding::default(),
            timestamps: false,
        })
    );
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
    let holder = HolderRecord { header: header(Kind::Holder), comm: by_task(Kind::Holder).comm, fd: 9, device: 4 };
    assert_eq!(
        event(holder.as_bytes()),
        Ok(Event::Held {
            id: expected().id,
            netns: expected().netns,
            by: curl(),
            fd: 9,
            bound_port: None,
            device: Device::new(4)
        })
    );
}

#[test]
fn a_held_socket_on_an_explicit_bucket_is_bound_to_its_port() {
    let bound_port = |flags: u8, local_port: u16| {
        let header = RecordHeader { flags, local_port, ..header(Kind::Holder) };
        let record = HolderRecord { header, comm: [0; 16], fd: 9, device: 4 };
        match event(record.as_bytes()) {
            Ok(Event::Held { bound_port, .. }) => bound_port,
            other => panic!("{other:?}"),
        }
    };
    let explicit = SocketFlags::BUCKET_KNOWN | SocketFlags::BUCKET_EXPLICIT;
    assert_eq!(bound_port(explicit, 8080), Some(8080));
    assert_eq!(bound_port(explicit, 0), None);
    assert_eq!(bound_port(SocketFlags::BUCKET_KNOWN, 8080), None);
}

#[test]
fn a_listener_has_its_queues() {
    let header = header(Kind::Listener);
    let record = ListenerRecord { header, accept_queue: 5, backlog: 4, syn_queue: 3, drops: 14 };
    let queues = Queues { accept: 5, syn: 3, limit: 4, drops: 14 };
    assert_eq!(event(record.as_bytes()), Ok(Event::Queues { id: expected().id, netns: expected().netns, queues }));
}

#[test]
fn a_destroyed_socket_needs_no_tuple() {
    assert_eq!(
        event(header(Kind::Destroy).as_bytes()),
        Ok(Event::Destroyed { id: expected().id, netns: expected().netns })
    );
}

#[test]
fn a_scan_tells_full_sockets_from_time_wait_and_requests() {
    let scanned = |new_state: u8, old_state: u8, flags: u8| {
        let mut record = socket(Kind::Scanned);
        record.header = RecordHeader { new_state, old_state, flags, ..record.header };
        match event(record.as_bytes()) {
            Ok(Event::Scanned { state, binding, .. }) => (state, binding),
            other => panic!("{other:?}"),
        }
    };
    let unknown = Binding::default();
    assert_eq!(scanned(10, 0, 0), (Found::Full(TcpState::Listen), unknown));
    assert_eq!(scanned(6, 5, 0), (Found::TimeWait { substate: TcpState::FinWait2, since: None }, unknown));
    let since = Some(Duration::from_nanos(1_500));
    let with_timestamps = Found::TimeWait { substate: TcpState::TimeWait, since };
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
    record.remote = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
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
