//! What listeners and connection tracking drop: each reason by the kernel's own counters, and no other.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
};

use observer::{
    engine::Engine,
    model::{
        device::Device,
        failure::{FailureKind, FailureRow, Local},
        limit::{Limit, LimitKind, Scope},
        snapshot::Snapshot,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    limits::start_connecting,
    refused::{counted, kernel_counter},
    sockets::{reset, set_option, skip},
    support::{eventually, in_private_netns, listen, load_nft, run, scanning, set_sysctl, wait_until},
};

fn limit(snapshot: &Snapshot, kind: LimitKind, at: &str) -> Option<Limit> {
    let at: SocketAddr = at.parse().unwrap();
    let is_at = |limit: &&Limit| matches!(limit.scope, Scope::Listener { local, .. } if local == at);
    snapshot.limits.iter().filter(|limit| limit.kind == kind).find(is_at).cloned()
}

fn counter(limit: &Limit, id: &str) -> u64 {
    limit.counters.iter().find(|counter| counter.id == id).unwrap_or_else(|| panic!("no {id}: {limit:?}")).total
}

/// The drops (`d` of skmem) of a listener, as `ss` shows them.
fn discarded(port: u16) -> u64 {
    let text = run("ss", &["-Hltnm", "sport", "=", &port.to_string()]);
    let memory = text.split_once("skmem:(").unwrap().1;
    memory.split([',', ')']).find_map(|part| part.strip_prefix('d')).unwrap().parse().unwrap()
}

/// The internet checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// Sends a SYN from a port without a socket, as health checks and port scans do: the kernel answers the SYN+ACK with
/// RST.
fn probe(port: u16, from: u16) {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).unwrap();
    let mut header = [0; 20];
    header[0..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[4..8].copy_from_slice(&77_u32.to_be_bytes());
    // Five words of header, SYN, and a window.
    header[12..16].copy_from_slice(&[5 << 4, 2, 0xff, 0xff]);
    let address = Ipv4Addr::LOCALHOST.octets();
    let pseudo = [&address[..], &address, &[0, 6, 0, 20], &header].concat();
    header[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let to: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    assert_eq!(raw.send_to(&header, &to.into()).unwrap(), header.len());
}

fn failures(snapshot: &Snapshot, kind: FailureKind) -> Vec<&FailureRow> {
    snapshot.failures.iter().filter(|row| row.key.kind == kind).collect()
}

#[test]
fn a_port_scan_is_no_overflow() {
    in_private_netns(|| {
        let mut engine = scanning();
        let listener = listen("127.0.0.1:7000", 128);
        (0..20).for_each(|n| probe(7_000, 20_000 + n));
        wait_until("the listener discards segments", || discarded(7_000) >= 20);
        let discarded = discarded(7_000);
        assert_eq!((kernel_counter("ListenOverflows"), kernel_counter("ListenDrops")), (0, 0));
        let limit = eventually(&mut engine, "the number of discarded segments", |snapshot| {
            limit(snapshot, LimitKind::AcceptQueue, "127.0.0.1:7000")
                .filter(|limit| counter(limit, "segments_discarded") == discarded)
        });
        assert_eq!((limit.hits, counter(&limit, "overflows"), counter(&limit, "namespace_overflows")), (Some(0), 0, 0));
        // Whatever is read or scanned after it: the counters of the namespace have been read twice, and scanned.
        let scans = engine.snapshot(0).quality.scans_total;
        let snapshot = eventually(&mut engine, "three more scans", |snapshot| {
            (snapshot.quality.scans_total >= scans + 3).then(|| snapshot.clone())
        });
        assert_eq!((snapshot.failures, snapshot.findings), (vec![], vec![]));
        drop(listener);
    });
}

/// The row of overflows of the full listener, 127.0.0.1:7000, once it and its limit have the number that the kernel has then.
fn as_many_as_the_kernel_counts(engine: &mut Engine) -> FailureRow {
    eventually(engine, "as many overflows as the kernel counts", |snapshot| {
        let row = failures(snapshot, FailureKind::AcceptQueue).into_iter().next()?.clone();
        let hits = limit(snapshot, LimitKind::AcceptQueue, "127.0.0.1:7000")?.hits;
        let overflows = kernel_counter("ListenOverflows");
        (row.count == overflows && hits == Some(overflows)).then_some(row)
    })
}

#[test]
fn an_overflow_is_the_full_listeners_own_and_not_of_one_that_is_scanned() {
    in_private_netns(|| {
        let mut engine = scanning();
        let scanned = listen("127.0.0.1:7001", 128);
        let full = listen("127.0.0.1:7000", 2);
        (0..20).for_each(|n| probe(7_001, 20_000 + n));
        let clients = start_connecting("127.0.0.1:7000", 8);
        wait_until("the kernel counts", || kernel_counter("ListenOverflows") > 0 && discarded(7_001) >= 20);
        // A client that closes sends its end again and again, and each time overflows the queue once more: these are reset.
        clients.into_iter().for_each(reset);
        let row = as_many_as_the_kernel_counts(&mut engine);
        assert_eq!(row.key.local, Some(Local { ip: Ipv4Addr::LOCALHOST.into(), port: 7_000, device: Device::NONE }));
        let snapshot = engine.snapshot(0);
        assert_eq!(failures(&snapshot, FailureKind::AcceptQueue).len(), 1, "{:?}", snapshot.failures);
        assert_eq!(limit(&snapshot, LimitKind::AcceptQueue, "127.0.0.1:7001").unwrap().hits, Some(0));
        drop((scanned, full));
    });
}

#[test]
fn a_full_syn_queue_is_not_an_accept_queue() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_syncookies", "0");
        let mut engine = scanning();
        let listener = listen("127.0.0.1:7000", 2);
        // Handshakes stay in the SYN queue until data comes.
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60).unwrap();
        let clients = start_connecting("127.0.0.1:7000", 8);
        wait_until("the kernel counts", || kernel_counter("TCPReqQFullDrop") > 0);
        assert_eq!(kernel_counter("ListenOverflows"), 0);
        // The clients send their SYNs again, less and less often: in between observer and the kernel count the same. A
        // client that closes would complete its handshake, and fill the accept queue.
        let row = eventually(&mut engine, "as many failures as the kernel counts", |snapshot| {
            let row = failures(snapshot, FailureKind::SynQueue).into_iter().next()?.clone();
            let limit = limit(snapshot, LimitKind::SynQueue, "127.0.0.1:7000")?;
            let dropped = kernel_counter("TCPReqQFullDrop");
            (row.count == dropped && limit.hits == Some(dropped)).then_some(row)
        });
        assert_eq!((row.key.local.map(|local| local.port), row.what().as_str()), (Some(7_000), "SYN dropped"));
        let snapshot = engine.snapshot(0);
        assert_eq!(kernel_counter("ListenOverflows"), 0);
        assert_eq!(failures(&snapshot, FailureKind::AcceptQueue), Vec::<&FailureRow>::new());
        assert_eq!(limit(&snapshot, LimitKind::AcceptQueue, "127.0.0.1:7000").unwrap().hits, Some(0));
        drop((listener, clients));
    });
}

#[test]
fn syn_cookies_refuse_nobody_and_are_hits_of_the_syn_queue() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_syncookies", "1");
        let mut engine = scanning();
        let listener = listen("127.0.0.1:7000", 2);
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60).unwrap();
        let clients = start_connecting("127.0.0.1:7000", 5);
        wait_until("the kernel sends cookies", || kernel_counter("TCPReqQFullDoCookies") > 0);
        eventually(&mut engine, "as many hits as cookies", |snapshot| {
            let limit = limit(snapshot, LimitKind::SynQueue, "127.0.0.1:7000")?;
            (limit.hits == Some(kernel_counter("TCPReqQFullDoCookies"))).then_some(())
        });
        assert_eq!(failures(&engine.snapshot(0), FailureKind::SynQueue), Vec::<&FailureRow>::new());
        drop((listener, clients));
    });
}

/// `insert_failed`, `drop` and `early_drop` of all CPUs.
pub(crate) fn conntrack_counters() -> [u64; 3] {
    let text = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap();
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let columns = ["insert_failed", "drop", "early_drop"].map(|name| names.iter().position(|it| *it == name).unwrap());
    lines.fold([0; 3], |mut sums, line| {
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum += u64::from_str_radix(line[column], 16).unwrap();
        }
        sums
    })
}

#[test]
fn a_nat_port_clash_is_no_full_table() {
    in_private_netns(|| {
        let nat = "table ip t { chain c { type nat hook postrouting priority 100; tcp dport 7000 snat to \
                   127.0.0.1:50000-50001; }; }";
        if let Err(why) = load_nft(nat) {
            return skip(&a_nat_port_clash_is_no_full_table, &format!("no NAT rule: {why}"));
        }
        let mut engine = scanning();
        let listener = listen("127.0.0.1:7000", 128);
        // Two source ports, five clients.
        let clients: Vec<Socket> = (0..5)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let started: io::Result<()> = client.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, 7_000)).into());
                let errno = started.unwrap_err().raw_os_error();
                assert!(matches!(errno, Some(libc::EINPROGRESS | libc::EPERM)), "{} {errno:?}", client.as_raw_fd());
                client
            })
            .collect();
        wait_until("entries clash", || conntrack_counters()[0] >= 3);
        drop(clients);
        let [clashes, dropped, evicted] = conntrack_counters();
        assert_eq!((dropped, evicted), (clashes, 0), "each clash is a drop, and nothing else is");
        let row = counted(&mut engine, FailureKind::ConntrackClash, clashes);
        assert_eq!(row.what(), "packet dropped");
        assert!(row.reason().contains("NAT") && row.reason().contains("insert_failed"), "{}", row.reason());
        let snapshot = engine.snapshot(0);
        for other in [FailureKind::Conntrack, FailureKind::ConntrackEvicted] {
            assert_eq!(failures(&snapshot, other), Vec::<&FailureRow>::new());
        }
        let limit = snapshot.limits.iter().find(|limit| limit.kind == LimitKind::Conntrack).unwrap();
        assert_eq!(limit.hits, Some(0), "a clash is no hit of nf_conntrack_max");
        let counted = ["insert_failed", "drop", "early_drop"].map(|id| counter(limit, id));
        assert_eq!(counted, [clashes, 0, 0]);
        drop(listener);
    });
}
