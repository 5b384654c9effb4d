//! The model holds millions of sockets: memory is the only limit, and it needs little. Its own process, so that the
//! growth of its resident memory is the model's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};

use observer::model::{
    Model,
    device::Device,
    event::{Event, Identity},
    units::{FourTuple, NetnsId, SocketId, TcpState},
};

const NETNS: NetnsId = NetnsId(1);

/// The `n`th client of one listener, with its own struct sock.
fn child(n: u32) -> Identity {
    Identity {
        id: SocketId(0xffff_8880_0000_0000 + u64::from(n) * 2368),
        netns: NETNS,
        tuple: FourTuple {
            local_ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            local_port: 443,
            remote_ip: IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + (n >> 14))),
            remote_port: 32_768 + (n & 0x3fff) as u16,
        },
        device: Device::NONE,
        cgroup: None,
    }
}

fn change(model: &mut Model, n: u32, old: TcpState, new: TcpState) {
    let event = Event::change(child(n), Duration::ZERO, old, new, None);
    model.apply(&event, Duration::ZERO);
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn two_million_sockets_on_one_endpoint_take_at_most_128_bytes_each() {
    let mut model = Model::default();
    let before = resident_bytes();
    for (from, to) in [(0, 1_000_000), (1_000_000, 2_000_000)] {
        for n in from..to {
            change(&mut model, n, TcpState::SynReceived, TcpState::Established);
        }
        let each = (resident_bytes() - before) / u64::from(to);
        assert!(each <= 128, "{each} bytes for each of {to} sockets");
        println!("{each} bytes for each of {to} sockets");
        let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 8);
        assert_eq!((snapshot.totals.sockets, snapshot.endpoints[0].sockets), (to, to));
    }
    for n in 0..2_000_000 {
        change(&mut model, n, TcpState::Established, TcpState::Closed);
    }
    let totals = model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 8).totals;
    assert_eq!((totals.sockets, totals.opened_total, totals.closed_total), (0, 2_000_000, 2_000_000));
    assert_eq!((totals.connections, totals.peak_sockets), (0, 2_000_000));
}
