//! Sockets that are bound to a device: by `SO_BINDTODEVICE`, by the scope of a link-local address, as the child of a
//! listener, and by a VRF. Rows of their own, and what is left for each, counted until EADDRNOTAVAIL.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    process::Command,
    sync::mpsc::channel,
};

use observer::{
    engine::Engine,
    model::{
        headroom::PortUse,
        snapshot::{Direction, EndpointRow, Snapshot},
        units::TcpState,
    },
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{
    processes::output,
    sockets::{disconnect, reset, set_option, skip, start_connect, state},
    support::{eventually, in_private_netns, observe, run, set_sysctl, wait_until},
};

/// `IP_BIND_ADDRESS_NO_PORT` of include/uapi/linux/in.h.
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
const LINK_LOCAL: &str = "fe80::1";
const PEER: &str = "fe80::2";
const SERVER: u16 = 7000;
/// Nobody answers there, and every packet is dropped on its way.
const NOBODY: &str = "10.7.0.9:80";
const OWN: &str = "10.7.0.1";

/// One hundred ports.
fn set_range() {
    set_sysctl("ipv4/ip_local_port_range", "20000 20099");
}

/// A device with 10.7.0.1 on it, whose other end drops what is sent to 10.7.0.9: it is not for that end.
fn add_device(name: &str) {
    let peer = format!("{name}-peer");
    run("ip", &["link", "add", name, "type", "veth", "peer", "name", &peer]);
    run("ip", &["address", "add", &format!("{OWN}/24"), "dev", name]);
    for end in [name, &peer] {
        run("ip", &["link", "set", end, "up"]);
    }
    hold_neighbour(name);
}

/// The neighbour is there for good: a connect() to it stays in SYN_SENT.
fn hold_neighbour(name: &str) {
    let mac = "02:00:00:00:00:09";
    run("ip", &["neighbour", "replace", "10.7.0.9", "lladdr", mac, "dev", name, "nud", "permanent"]);
}

/// Two ends of a cable in this namespace, fe80::1 on the first and fe80::2 on the second.
fn add_link(first: &str, second: &str) {
    run("ip", &["link", "add", first, "type", "veth", "peer", "name", second]);
    for (name, address) in [(first, LINK_LOCAL), (second, PEER)] {
        set_sysctl(&format!("ipv6/conf/{name}/addr_gen_mode"), "1");
        run("ip", &["link", "set", name, "up"]);
        run("ip", &["address", "add", &format!("{address}/64"), "dev", name, "nodad"]);
    }
}

fn index(name: &str) -> u32 {
    let line = run("ip", &["-o", "link", "show", name]);
    line.split(':').next().unwrap().parse().unwrap()
}

/// connect() without waiting, from a port of the kernel's choice and a socket that is bound to `device`.
fn connect(device: Option<&str>, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind_device(device.map(str::as_bytes))?;
    if to.is_ipv4() {
        set_option(&socket, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)?;
        socket.bind(&SocketAddr::new(OWN.parse().unwrap(), 0).into())?;
    }
    start_connect(&socket, to).map(|()| socket)
}

fn open(count: usize, device: Option<&str>, to: SocketAddr) -> Vec<Socket> {
    (0..count).map(|_| connect(device, to).expect("connect")).collect()
}

/// Connects until the kernel says that there is no port.
fn exhaust(device: Option<&str>, to: SocketAddr) -> Vec<Socket> {
    let mut open = Vec::new();
    loop {
        match connect(device, to) {
            Ok(socket) => open.push(socket),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
                return open;
            }
        }
    }
}

/// The row of an outbound address as it is shown: `fe80::1%eth0`.
fn outbound<'a>(snapshot: &'a Snapshot, shown: &str) -> Option<&'a EndpointRow> {
    snapshot
        .endpoints
        .iter()
        .find(|row| row.key.direction == Direction::Outbound && row.key.device.scoped(row.key.local_ip) == shown)
}

fn inbound<'a>(snapshot: &'a Snapshot, shown: &str) -> Option<&'a EndpointRow> {
    snapshot
        .endpoints
        .iter()
        .find(|row| row.key.local_port.is_some_and(|port| row.key.device.endpoint(row.key.local_ip, port) == shown))
}

/// The ports from such an address towards its one destination.
fn ports(snapshot: &Snapshot, shown: &str) -> Option<PortUse> {
    outbound(snapshot, shown)?.destinations.first()?.ports
}

/// Scans, and returns what is left.
#[track_caller]
fn left(engine: &mut Engine, shown: &str) -> u32 {
    engine.scan().unwrap();
    let snapshot = engine.snapshot(usize::MAX);
    let rows = || snapshot.endpoints.iter().map(|row| (row.key, row.sockets)).collect::<Vec<_>>();
    ports(&snapshot, shown).unwrap_or_else(|| panic!("no {shown} in {:?}", rows())).left().unwrap()
}

fn nobody() -> SocketAddr {
    NOBODY.parse().unwrap()
}

#[test]
fn two_links_with_the_same_addresses_are_distinguished() {
    in_private_netns(|| {
        set_range();
        add_link("a0", "a1");
        add_link("b0", "b1");
        let server = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        server.bind(&SocketAddr::new(IpAddr::from([0_u16; 8]), SERVER).into()).unwrap();
        server.listen(4096).unwrap();
        let to = |device| SocketAddr::V6(SocketAddrV6::new(PEER.parse().unwrap(), SERVER, 0, index(device)));
        let mut engine = observe();
        let [on_a, on_b] = [(30, "a0"), (10, "b0")].map(|(count, device)| open(count, None, to(device)));
        wait_until("the handshakes", || {
            on_a.iter().chain(&on_b).all(|socket| state(socket) == Some(TcpState::Established))
        });
        eventually(&mut engine, "both links by events alone", |snapshot| {
            let counts =
                ["fe80::1%a0", "fe80::1%b0"].map(|shown| outbound(snapshot, shown).map_or(0, |row| row.sockets));
            let children = ["[fe80::2%a1]:7000", "[fe80::2%b1]:7000"];
            let children = children.map(|shown| inbound(snapshot, shown).map_or(0, |row| row.sockets));
            (counts == [30, 10] && children == [30, 10] && snapshot.totals.connections == 40).then_some(())
        });
        assert_eq!((left(&mut engine, "fe80::1%a0"), left(&mut engine, "fe80::1%b0")), (70, 90));
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!((snapshot.totals.connections, snapshot.quality.drift.total()), (40, 0));
        assert_shown();
        let all_of_a = exhaust(None, to("a0"));
        assert_eq!(all_of_a.len(), 70);
        assert_eq!((left(&mut engine, "fe80::1%a0"), left(&mut engine, "fe80::1%b0")), (0, 90));
        let failure = engine.snapshot(0).failures.into_iter().next().expect("the refusal");
        assert!(failure.reason().contains("fe80::1%a0 → [fe80::2]:7000"), "{}", failure.reason());
        assert_eq!(exhaust(None, to("b0")).len(), 90);
    });
}

/// The program's table and its JSON name the device.
fn assert_shown() {
    let table = run(env!("CARGO_BIN_EXE_observer"), &["snapshot", "--own-netns"]);
    for shown in ["[fe80::1%a0]:*", "[fe80::1%b0]:*", "[fe80::2%a1]:7000", "[fe80::2%b1]:7000"] {
        assert!(table.contains(shown), "no {shown} in\n{table}");
    }
    let json: Value =
        serde_json::from_str(&run(env!("CARGO_BIN_EXE_observer"), &["snapshot", "--own-netns", "--json"])).unwrap();
    let devices = |rows: &str| -> BTreeSet<String> {
        let rows = json[rows].as_array().unwrap().iter();
        rows.filter_map(|row| row["device"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(devices("endpoints"), ["a0", "a1", "b0", "b1"].map(str::to_owned).into());
    assert_eq!(devices("limits"), ["a0", "b0"].map(str::to_owned).into());
}

#[test]
fn a_socket_of_a_device_shares_the_four_tuples_of_the_unbound_and_not_the_other_way_round() {
    in_private_netns(|| {
        set_range();
        add_device("d0");
        let bound = open(30, Some("d0"), nobody());
        // Of these, some have ports that the others have too.
        let unbound = open(60, None, nobody());
        let mut engine = observe();
        let on_device = format!("{OWN}%d0");
        assert_eq!(left(&mut engine, OWN), 40);
        let predicted = left(&mut engine, &on_device);
        let ports_of = |sockets: &[Socket]| -> Vec<u16> {
            sockets.iter().map(|socket| socket.local_addr().unwrap().as_socket().unwrap().port()).collect()
        };
        let mut both = [ports_of(&bound), ports_of(&unbound)].concat();
        both.sort_unstable();
        both.dedup();
        assert_eq!(predicted as usize, 100 - both.len());
        let more = exhaust(Some("d0"), nobody());
        assert_eq!(more.len(), predicted as usize);
        assert_eq!((left(&mut engine, &on_device), left(&mut engine, OWN)), (0, 40));
        assert_eq!(exhaust(None, nobody()).len(), 40);
    });
}

#[test]
fn a_port_that_is_bound_on_a_device_is_blocked_for_all() {
    in_private_netns(|| {
        set_range();
        add_device("d0");
        let mut open = Vec::from([Some("d0"), None].map(|device| connect(device, nobody()).unwrap()));
        let taken: Vec<u16> =
            open.iter().map(|socket| socket.local_addr().unwrap().as_socket().unwrap().port()).collect();
        for port in (20_000..20_100).filter(|port| !taken.contains(port)).take(9) {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind_device(Some(b"d0")).unwrap();
            socket.bind(&SocketAddr::new(OWN.parse().unwrap(), port).into()).unwrap();
            open.push(socket);
        }
        let mut engine = observe();
        let on_device = format!("{OWN}%d0");
        engine.scan().unwrap();
        let blocked = [OWN, &on_device].map(|shown| ports(&engine.snapshot(9), shown).unwrap().blocked);
        assert_eq!(blocked, [Some(9); 2]);
        for (device, shown) in [(Some("d0"), &*on_device), (None, OWN)] {
            let predicted = left(&mut engine, shown);
            assert_eq!(exhaust(device, nobody()).len(), predicted as usize, "{shown}");
        }
    });
}

#[test]
fn a_socket_that_is_bound_late_changes_its_row_and_is_no_new_connection() {
    in_private_netns(|| {
        set_range();
        add_device("d0");
        let mut engine = observe();
        let socket = connect(None, nobody()).unwrap();
        eventually(&mut engine, "a row without a device", |it| (outbound(it, OWN)?.sockets == 1).then_some(()));
        socket.bind_device(Some(b"d0")).unwrap();
        engine.scan().unwrap();
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!(outbound(&snapshot, OWN).unwrap().sockets, 0);
        assert_eq!(outbound(&snapshot, &format!("{OWN}%d0")).unwrap().sockets, 1);
        assert_eq!((snapshot.totals.failed_total, snapshot.totals.closed_total), (0, 0));
        assert_eq!(snapshot.quality.drift.total(), 0);
        run("ip", &["link", "set", "d0", "down"]);
        run("ip", &["link", "set", "d0", "name", "uplink"]);
        eventually(&mut engine, "the new name", |it| outbound(it, &format!("{OWN}%uplink")).map(drop));
        disconnect(&socket).unwrap();
        reset(socket);
    });
}

/// Whether this kernel has VRFs; if not, that is reported.
fn has_vrfs(test: &impl Fn()) -> bool {
    let (answer, has) = channel();
    in_private_netns(move || {
        let added = output(Command::new("ip").args(["link", "add", "red", "type", "vrf", "table", "10"])).unwrap();
        answer.send(added.status.success()).unwrap();
    });
    let has = has.recv().unwrap();
    if !has {
        skip(test, "this kernel has no VRFs (CONFIG_NET_VRF)");
    }
    has
}

#[test]
fn a_vrf_has_its_ports_for_itself_unless_they_are_joined() {
    if !has_vrfs(&a_vrf_has_its_ports_for_itself_unless_they_are_joined) {
        return;
    }
    for l3mdev_accept in ["0", "1"] {
        in_private_netns(move || {
            set_range();
            set_sysctl("ipv4/tcp_l3mdev_accept", l3mdev_accept);
            run("ip", &["link", "add", "red", "type", "vrf", "table", "10"]);
            run("ip", &["link", "set", "red", "up"]);
            add_device("plain");
            add_device("inside");
            run("ip", &["link", "set", "inside", "master", "red"]);
            hold_neighbour("inside");
            let unbound = open(20, None, nobody());
            let on_inside = open(15, Some("inside"), nobody());
            let on_red = open(10, Some("red"), nobody());
            let in_red = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            in_red.bind_device(Some(b"red")).unwrap();
            let free = |sockets: &[&[Socket]]| {
                let taken: Vec<u16> = sockets
                    .iter()
                    .flat_map(|sockets| sockets.iter())
                    .map(|socket| socket.local_addr().unwrap().as_socket().unwrap().port())
                    .collect();
                (20_000..20_100).find(|port| !taken.contains(port)).unwrap()
            };
            let port = free(&[&unbound, &on_inside, &on_red]);
            in_red.bind(&SocketAddr::new(OWN.parse().unwrap(), port).into()).unwrap();
            in_red.listen(1).unwrap();
            let mut engine = observe();
            engine.scan().unwrap();
            let blocked = [OWN, "10.7.0.1%inside", "10.7.0.1%red"]
                .map(|shown| ports(&engine.snapshot(usize::MAX), shown).expect(shown).blocked.unwrap());
            let outside = u32::from(l3mdev_accept == "1");
            assert_eq!(blocked, [outside, 1, 1], "tcp_l3mdev_accept {l3mdev_accept}");
            for (device, shown) in [(Some("inside"), "10.7.0.1%inside"), (Some("red"), "10.7.0.1%red"), (None, OWN)] {
                let predicted = left(&mut engine, shown);
                let got = exhaust(device, nobody()).len();
                assert_eq!(got, predicted as usize, "{shown}, tcp_l3mdev_accept {l3mdev_accept}");
            }
        });
    }
}
