//! Single connections, asked for by endpoint, destination, process and filter.

use super::*;
use crate::model::{
    Basis,
    device::DeviceReading,
    event::{Event, Identity},
    reading::NamespaceReading,
    units::{Comm, SocketId},
};

const NETNS: NetnsId = NetnsId(1);

/// The row of all sockets of [`client`].
const CLIENTS: EndpointKey = EndpointKey {
    netns: NETNS,
    direction: Direction::Outbound,
    local_ip: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5)),
    local_port: None,
    device: Device::NONE,
};

fn client(n: u16, remote: &str, pid: u32) -> Event {
    let remote: SocketAddr = remote.parse().unwrap();
    let tuple = FourTuple {
        local_ip: [10, 0, 0, 5].into(),
        local_port: 40_000 + n,
        remote_ip: remote.ip(),
        remote_port: remote.port(),
    };
    let socket = Identity { id: SocketId(n.into()), netns: NETNS, tuple, device: Device::NONE, cgroup: None };
    let by = Process { pid: Pid(pid), comm: Comm::from("app") };
    Event::change(socket, Duration::ZERO, TcpState::Closed, TcpState::SynSent, Some(by))
}

fn model() -> Model {
    let mut model = Model::new(Vec::new(), Basis::default());
    model.set_namespace(NETNS, NamespaceReading::default());
    model.apply(&client(0, "10.0.0.9:80", 7), Duration::ZERO);
    model.begin_scan(NETNS, Duration::ZERO);
    model.end_scan(Duration::from_secs(1));
    for n in 1..10 {
        let remote = if n % 3 == 0 { "10.0.0.9:443" } else { "10.0.0.9:80" };
        model.apply(&client(n, remote, u32::from(7 + n % 2)), Duration::from_secs(u64::from(n) + 1));
    }
    model
}

fn ask(query: &Query, most: usize) -> (Vec<u16>, usize) {
    let answer = model().connections(query, Duration::from_secs(100), most);
    (answer.rows.iter().map(|row| row.tuple.local_port - 40_000).collect(), answer.matching)
}

#[test]
fn the_youngest_come_first_and_no_more_than_asked_for() {
    // The first was there before the scan that swept it, or its age is not known.
    assert_eq!(ask(&Query::default(), 3), (vec![9, 8, 7], 9));
}

#[test]
fn of_many_the_same_are_shown_whatever_the_order_in_which_they_came() {
    let shown = |numbers: &mut dyn Iterator<Item = u16>| {
        let mut model = Model::default();
        model.set_namespace(NETNS, NamespaceReading::default());
        for n in numbers {
            model.apply(&client(n, "10.0.0.9:80", 7), Duration::ZERO);
        }
        let answer = model.connections(&Query::default(), Duration::ZERO, 7);
        assert_eq!(answer.matching, 5_000);
        answer.rows.iter().map(|row| row.tuple.local_port - 40_000).collect::<Vec<_>>()
    };
    // All as old as each other: the lowest ports.
    assert_eq!(shown(&mut (0..5_000)), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(shown(&mut (0..5_000).rev()), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_destination_a_process_and_a_filter_narrow_them() {
    let destination = Of::Destination {
        netns: NETNS,
        local_ip: [10, 0, 0, 5].into(),
        device: Device::NONE,
        remote: "10.0.0.9:443".parse().unwrap(),
    };
    let of = |of| Query { of, filter: Filter::default() };
    assert_eq!(ask(&of(destination.clone()), 10), (vec![9, 6, 3], 3));
    assert_eq!(ask(&of(Of::Process(Pid(7))), 10), (vec![8, 6, 4, 2], 4));
    assert_eq!(ask(&of(Of::Endpoint(CLIENTS)), 10).1, 9);
    assert_eq!(ask(&of(Of::Endpoint(EndpointKey { netns: NetnsId(2), ..CLIENTS })), 10).1, 0);
    let filtered = Query { of: destination, filter: "pid:8".parse().unwrap() };
    assert_eq!(ask(&filtered, 10), (vec![9, 3], 2));
}

#[test]
fn their_age_is_shown() {
    let rows = model().connections(&Query::default(), Duration::from_secs(100), 1).rows;
    assert_eq!((rows[0].age, rows[0].state), (Some(Duration::from_secs(90)), TcpState::SynSent));
}

#[test]
fn sockets_of_different_devices_are_asked_for_by_theirs() {
    let mut model = model();
    let on = |n: u16, index| match client(n, "10.0.0.9:80", 7) {
        Event::State { socket, at, old, new, by, orphan, unsent, own_range, binding, timestamps } => {
            let socket =
                Identity { id: SocketId(u64::from(n) + 100 * u64::from(index)), device: Device::new(index), ..socket };
            Event::State { socket, at, old, new, by, orphan, unsent, own_range, binding, timestamps }
        }
        other => other,
    };
    let devices = vec![DeviceReading { index: 2, name: Comm::from("eth0"), vrf: 0 }];
    model.set_namespace(NETNS, NamespaceReading { devices, ..NamespaceReading::default() });
    for event in [on(1, 2), on(2, 2), on(1, 3)] {
        model.apply(&event, Duration::from_secs(20));
    }
    let of = |of| Query { of, filter: Filter::default() };
    let matching = |query: &Query| model.connections(query, Duration::from_secs(100), 10).matching;
    let of_device = |index| of(Of::Endpoint(EndpointKey { device: Device::new(index), ..CLIENTS }));
    assert_eq!([0, 2, 3].map(|index| matching(&of_device(index))), [9, 2, 1]);
    let remote = "10.0.0.9:80".parse().unwrap();
    let of_destination = |index| {
        of(Of::Destination { netns: NETNS, local_ip: [10, 0, 0, 5].into(), device: Device::new(index), remote })
    };
    assert_eq!([2, 3].map(|index| matching(&of_destination(index))), [2, 1]);
    let filtered = |filter: &str| Query { of: Of::All, filter: filter.parse().unwrap() };
    assert_eq!(["10.0.0.5%eth0", "%3", "10.0.0.5"].map(|filter| matching(&filtered(filter))), [2, 1, 12]);
    let answer = model.connections(&filtered("%eth0"), Duration::from_secs(100), 1);
    assert_eq!(answer.rows[0].device.to_string(), "%eth0");
}
