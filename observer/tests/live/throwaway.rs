//! Limits of the whole host, reached for real. These tests need a kernel that nobody else uses: `cargo xtask vm` makes
//! some; `cargo xtask test` leaves these tests out on the machine that it runs on.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    net::TcpStream,
    os::unix::fs::FileExt as _,
};

use observer::{engine::Engine, model::failure::FailureKind};
use socket2::{Domain, Socket, Type};

use crate::{
    drops::conntrack_counters,
    labs::confirmed,
    refused::{address, counted, errno, kernel_counter, tcp},
    sockets::skip,
    support::{Pairs, eventually, in_private_netns, observe, track_connections, wait_until},
};

/// Whether this kernel runs for the tests alone; reports a skipped test if not.
fn is_for_us(test: &impl Fn()) -> bool {
    let is = std::env::var_os("OBSERVER_VM").is_some();
    if !is {
        skip(test, "it changes limits of the whole host: `cargo xtask vm` runs it");
    }
    is
}

/// A sysctl of the whole host, opened in the first network namespace: others do not show it. What it was comes back.
struct HostSysctl {
    file: fs::File,
    before: String,
}

impl HostSysctl {
    fn open(name: &str) -> Self {
        let path = format!("/proc/sys/{name}");
        let before = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        Self { file: fs::OpenOptions::new().write(true).open(&path).unwrap(), before }
    }

    fn set(&self, value: &str) {
        self.file.write_all_at(value.as_bytes(), 0).unwrap();
    }
}

impl Drop for HostSysctl {
    fn drop(&mut self) {
        self.set(&self.before);
    }
}

#[test]
fn a_host_at_its_file_limit_is_reported_with_the_refused_process() {
    if !is_for_us(&a_host_at_its_file_limit_is_reported_with_the_refused_process) {
        return;
    }
    in_private_netns(|| {
        let file_max = HostSysctl::open("fs/file-max");
        let mut engine = observe();
        file_max.set("1");
        // The kernel never refuses an administrator. The raw call changes this thread alone.
        let refused = std::thread::spawn(|| {
            let nobody = 65_534;
            // SAFETY: the call has no pointers.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) }, 0);
            (0..3).map(|_| errno(Socket::new(Domain::IPV4, Type::STREAM, None))).collect::<Vec<_>>()
        });
        let refused = refused.join().unwrap();
        drop(file_max);
        assert_eq!(refused, [libc::ENFILE; 3]);
        let row = counted(&mut engine, FailureKind::HostFiles, 3);
        assert_eq!((row.key.call, row.key.kind.errno()), (Some("socket"), Some("ENFILE")));
        assert_eq!(row.key.process.unwrap().pid.0, std::process::id());
    });
}

#[test]
fn lab_file_max_is_confirmed_and_restores_the_limit() {
    if !is_for_us(&lab_file_max_is_confirmed_and_restores_the_limit) {
        return;
    }
    let read = || fs::read_to_string("/proc/sys/fs/file-max").unwrap();
    let before = read();
    confirmed("file-max", None);
    assert_eq!(read(), before);
}

/// Connections whose data their servers do not take, until nothing more fits.
fn stuffed(count: usize) -> (Pairs, Vec<TcpStream>) {
    let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", count);
    let clients = std::mem::take(&mut pairs.clients);
    for mut client in &clients {
        client.set_nonblocking(true).unwrap();
        loop {
            match client.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    (pairs, clients)
}

/// Waits until the kernel has counted `count`, and the engine the same.
fn aborts_are_reported(engine: &mut Engine, count: u64) {
    wait_until("the kernel counts", || kernel_counter("TCPAbortOnMemory") == count);
    let row = counted(engine, FailureKind::TcpMemory, count);
    assert_eq!(row.what(), "connection aborted");
}

#[test]
fn too_many_orphans_are_reported() {
    if !is_for_us(&too_many_orphans_are_reported) {
        return;
    }
    let max_orphans = HostSysctl::open("net/ipv4/tcp_max_orphans");
    in_private_netns(move || {
        let mut engine = observe();
        let (pairs, clients) = stuffed(3);
        max_orphans.set("0");
        drop(clients);
        aborts_are_reported(&mut engine, 3);
        drop((pairs, max_orphans));
    });
}

#[test]
fn too_much_buffer_memory_is_reported() {
    if !is_for_us(&too_much_buffer_memory_is_reported) {
        return;
    }
    let tcp_mem = HostSysctl::open("net/ipv4/tcp_mem");
    in_private_netns(move || {
        let mut engine = observe();
        let (pairs, clients) = stuffed(3);
        tcp_mem.set("1 1 1");
        drop(clients);
        aborts_are_reported(&mut engine, 3);
        drop((pairs, tcp_mem));
    });
}

#[test]
fn packets_dropped_by_a_full_conntrack_table_are_reported() {
    if !is_for_us(&packets_dropped_by_a_full_conntrack_table_are_reported) {
        return;
    }
    let max = HostSysctl::open("net/netfilter/nf_conntrack_max");
    in_private_netns(move || {
        track_connections();
        let mut engine = observe();
        let pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 4);
        max.set("4");
        let clients: Vec<Socket> = (0..3)
            .map(|_| {
                let client = tcp();
                client.set_nonblocking(true).unwrap();
                // A packet that is dropped on its way out is an error of connect(), or comes again.
                let refused: io::Result<()> = client.connect(&address("127.0.0.1:7000").into());
                assert!(matches!(errno(refused), libc::EINPROGRESS | libc::EPERM | libc::ENOBUFS));
                client
            })
            .collect();
        wait_until("the kernel drops", || dropped() > 0);
        drop(clients);
        eventually(&mut engine, "what the kernel has counted", |snapshot| {
            let row = snapshot.failures.iter().find(|row| row.key.kind == FailureKind::Conntrack)?;
            (row.count == dropped()).then_some(())
        });
        let clashes = engine.snapshot(0).failures.iter().any(|row| row.key.kind == FailureKind::ConntrackClash);
        assert!(!clashes, "{:?}", engine.snapshot(0).failures);
        drop((pairs, max));
    });
}

#[test]
fn an_entry_evicted_from_a_full_conntrack_table_is_no_drop() {
    if !is_for_us(&an_entry_evicted_from_a_full_conntrack_table_is_no_drop) {
        return;
    }
    let max = HostSysctl::open("net/netfilter/nf_conntrack_max");
    in_private_netns(move || {
        track_connections();
        let mut engine = observe();
        // As many as there are buckets to look for a victim in: of datagrams that nobody answers each entry is one.
        let buckets: u64 =
            fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_buckets").unwrap().trim().parse().unwrap();
        let limit = (buckets / 8).clamp(512, 8_192);
        max.set(&limit.to_string());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut port = 1_024_u16;
        wait_until("the kernel evicts", || {
            for _ in 0..512 {
                port = port.checked_add(1).unwrap_or(1_024);
                // One that is dropped is an error of send().
                let _ = socket.send_to(b"x", ("127.0.0.1", port));
            }
            conntrack_counters()[2] > 0
        });
        let [_, _, evicted] = conntrack_counters();
        let row = counted(&mut engine, FailureKind::ConntrackEvicted, evicted);
        assert_eq!(row.what(), "tracked entry evicted");
        let full = dropped();
        eventually(&mut engine, "drops by themselves", |snapshot| {
            let rows = snapshot.failures.iter().filter(|row| row.key.kind == FailureKind::Conntrack);
            (rows.map(|row| row.count).sum::<u64>() == full).then_some(())
        });
        drop(max);
    });
}

/// Packets that were dropped because the table was full: clashes count as drops too.
fn dropped() -> u64 {
    let [clashes, dropped, _] = conntrack_counters();
    dropped - clashes
}
