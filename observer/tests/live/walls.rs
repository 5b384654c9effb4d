//! Walls, each against what the kernel says in another way: `ss`, sysctls, /proc, and what is refused.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, Command},
    time::{Duration, Instant},
};

use observer::{
    engine::{Engine, Options, Scans},
    host,
    model::{
        snapshot::Snapshot,
        units::Pid,
        wall::{Subject, Wall, WallKind},
    },
};
use socket2::{Domain, Socket, Type};

use crate::{
    processes::{output, start_program},
    refusals::kernel_counter,
    sockets::{set_option, skip},
    support::{eventually, in_private_netns, listen, observe, options, run, set_sysctl, start, wait_until},
};

/// Starts as many connections as asked for, and waits for none of them.
pub(crate) fn start_connecting(target: &str, count: usize) -> Vec<Socket> {
    let target: SocketAddr = target.parse().unwrap();
    let start = |_| {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.connect(&target.into()).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
        socket
    };
    (0..count).map(start).collect()
}

fn sysctl(name: &str) -> u64 {
    let path = format!("/proc/sys/{name}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}")).trim().parse().unwrap()
}

fn walls(snapshot: &Snapshot, kind: WallKind) -> impl Iterator<Item = &Wall> {
    snapshot.walls.iter().filter(move |wall| wall.kind == kind)
}

fn of_listener(snapshot: &Snapshot, kind: WallKind, at: &str) -> Wall {
    let at: SocketAddr = at.parse().unwrap();
    let is_at = |wall: &&Wall| matches!(wall.subject, Subject::Listener { local, .. } if local == at);
    walls(snapshot, kind).find(is_at).cloned().unwrap_or_else(|| panic!("no {kind:?} of {at}"))
}

/// `Recv-Q`, `Send-Q` and the drops (`d` of skmem) of the one listener of the namespace.
fn listener_of_ss() -> [u64; 3] {
    let text = run("ss", &["-Hltnm"]);
    let words: Vec<&str> = text.split_whitespace().collect();
    let memory = text.split_once("skmem:(").unwrap().1;
    let drops = memory.split([',', ')']).find_map(|part| part.strip_prefix('d')).unwrap();
    [words[1], words[2], drops].map(|number| number.parse().unwrap())
}

#[test]
fn an_accept_queue_overflows_as_the_kernel_counts() {
    in_private_netns(|| {
        let listener = listen("127.0.0.1:7000", 4);
        let clients = start_connecting("127.0.0.1:7000", 12);
        // The kernel takes one more than the backlog, and drops the others' SYNs.
        let overflows = || kernel_counter("ListenOverflows");
        wait_until("a full queue, and drops", || listener_of_ss()[0] == 5 && overflows() > 0);
        drop(clients);
        let before = overflows();
        let mut engine = start(Options { scans: Scans::Regularly, ..options() });
        let [queued, limit, discarded] = listener_of_ss();
        let wall = of_listener(&engine.snapshot(0), WallKind::AcceptQueue, "127.0.0.1:7000");
        assert_eq!((wall.used, wall.maximum, wall.hits), (queued, limit + 1, Some(0)), "nothing since the start");
        let counted = |wall: &Wall| {
            let ids = ["namespace_overflows", "segments_discarded"];
            ids.map(|id| wall.counters.iter().find(|counter| counter.id == id).copied().unwrap())
        };
        let [namespace, segments] = counted(&wall);
        assert_eq!((namespace.total, namespace.before, segments.total), (before, Some(before), discarded));
        assert_eq!(engine.snapshot(0).failures, [], "what happened before is no current failure");
        assert_eq!(wall.time_to_full(), Some(Duration::ZERO), "{wall:?}");
        assert_eq!(engine.snapshot(0).walls[0].kind, WallKind::AcceptQueue, "what is full comes first");
        let more = start_connecting("127.0.0.1:7000", 3);
        wait_until("more drops", || overflows() > before);
        drop(more);
        let after = overflows();
        eventually(&mut engine, "as many hits as overflows since then", |snapshot| {
            let wall = of_listener(snapshot, WallKind::AcceptQueue, "127.0.0.1:7000");
            (wall.hits == Some(after - before) && counted(&wall)[0].total == after).then_some(())
        });
        drop(listener);
    });
}

#[test]
fn a_syn_queue_holds_handshakes_that_wait_for_data() {
    in_private_netns(|| {
        let listener = listen("127.0.0.1:7000", 8);
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60).unwrap();
        let clients = start_connecting("127.0.0.1:7000", 3);
        let in_progress = || run("ss", &["-Htan", "state", "syn-recv"]).lines().count();
        wait_until("three request sockets", || in_progress() == 3);
        let snapshot = observe().snapshot(0);
        let wall = of_listener(&snapshot, WallKind::SynQueue, "127.0.0.1:7000");
        assert_eq!((wall.used, wall.maximum), (3, 9));
        assert_eq!(of_listener(&snapshot, WallKind::AcceptQueue, "127.0.0.1:7000").used, 0);
        drop((listener, clients));
    });
}

#[test]
fn listeners_of_one_address_have_a_queue_each() {
    in_private_netns(|| {
        let share = |backlog| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&"127.0.0.1:7000".parse::<SocketAddr>().unwrap().into()).unwrap();
            socket.listen(backlog).unwrap();
            TcpListener::from(socket)
        };
        let listeners = [share(10), share(20), share(30)];
        let snapshot = observe().snapshot(0);
        let mut maxima: Vec<u64> = walls(&snapshot, WallKind::AcceptQueue).map(|wall| wall.maximum).collect();
        maxima.sort_unstable();
        assert_eq!(maxima, [11, 21, 31]);
        drop(listeners);
    });
}

/// A process with limits of its own that holds files.
struct Holder {
    child: Child,
    line: UnixStream,
}

impl Holder {
    fn start(soft: u64, hard: u64, files: u64) -> Self {
        let hold = format!("exec >&0; for i in $(seq {files}); do exec {{fd}}</dev/null; done; echo held; read -r");
        let limits = format!("--nofile={soft}:{hard}");
        let (child, line) = start_program(Command::new("prlimit").args([&limits, "bash", "-c", &hold])).unwrap();
        let mut holder = Self { child, line };
        let mut word = [0; 5];
        holder.line.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"held\n");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_process_is_measured_against_its_own_limit() {
    in_private_netns(|| {
        let holder = Holder::start(100, 200, 80);
        let pid = holder.child.id();
        let listed = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        assert!(listed >= 80);
        let snapshot = observe().snapshot(0);
        let is_its = |wall: &&Wall| wall.subject == Subject::Process(Pid(pid));
        let wall = walls(&snapshot, WallKind::ProcessFiles).find(is_its).expect("its wall is listed");
        assert_eq!((wall.used, wall.maximum), (listed, 100));
        assert_eq!(wall.process.unwrap().comm.to_string(), "bash");
        let files = snapshot.host.processes.iter().find(|files| files.process.pid == Pid(pid)).unwrap();
        assert_eq!((files.soft_limit, files.hard_limit), (Some(100), Some(200)));
        assert_eq!(snapshot.host.nr_open, Some(sysctl("fs/nr_open")));
    });
}

#[test]
fn time_wait_is_measured_against_its_sysctl() {
    in_private_netns(|| {
        set_sysctl("ipv4/tcp_max_tw_buckets", "20");
        let listener = listen("127.0.0.1:7000", 128);
        for _ in 0..30 {
            let client = TcpStream::connect("127.0.0.1:7000").unwrap();
            let (accepted, _) = listener.accept().unwrap();
            drop(client);
            drop(accepted);
        }
        let counter = |path: &str, group: &str, name: &str| -> u64 {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{path}")).unwrap();
            let lines: Vec<Vec<&str>> =
                text.lines().filter(|line| line.starts_with(group)).map(|line| line.split(' ').collect()).collect();
            let column = lines[0].iter().position(|word| *word == name).unwrap();
            // sockstat has its names and values in one line.
            lines.get(1).map_or_else(|| lines[0][column + 1], |values| values[column]).parse().unwrap()
        };
        wait_until("all in TIME_WAIT or refused", || {
            counter("sockstat", "TCP:", "tw") + counter("netstat", "TcpExt:", "TCPTimeWaitOverflow") == 30
        });
        let snapshot = observe().snapshot(0);
        let wall = walls(&snapshot, WallKind::TimeWait).next().unwrap();
        assert_eq!((wall.used, wall.maximum), (counter("sockstat", "TCP:", "tw"), 20));
        assert_eq!(wall.hits, Some(counter("netstat", "TcpExt:", "TCPTimeWaitOverflow")));
        assert!(wall.hits > Some(0), "the kernel refused none: {wall:?}");
    });
}

#[test]
fn conntrack_is_a_wall_where_the_kernel_tracks() {
    in_private_netns(|| {
        let max = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok();
        let snapshot = observe().snapshot(0);
        let shown = walls(&snapshot, WallKind::Conntrack).map(|wall| wall.maximum).collect::<Vec<_>>();
        let expected: Vec<u64> = max.into_iter().map(|max| max.trim().parse().unwrap()).collect();
        assert_eq!(shown, expected);
    });
}

#[test]
fn tracked_connections_are_counted() {
    in_private_netns(|| {
        // No counter in the rule: it is a module of its own on Linux 5.10.
        let rules = "table ip t { chain c { type filter hook input priority 0; ct state new accept; }; }";
        let loaded = output(Command::new("nft").arg(rules)).expect("nft is needed (Debian package nftables)");
        if !loaded.status.success() {
            let why = String::from_utf8_lossy(&loaded.stderr);
            let why = why.lines().next().unwrap_or("nft does not say why");
            return skip(&tracked_connections_are_counted, &format!("no rule on connection tracking: {why}"));
        }
        let pairs = crate::support::Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 7);
        let snapshot = observe().snapshot(0);
        let wall = walls(&snapshot, WallKind::Conntrack).next().expect("a kernel that tracks");
        assert_eq!(wall.subject, Subject::Namespace(host::netns::current().unwrap()));
        assert_eq!(wall.used, sysctl("net/netfilter/nf_conntrack_count"));
        assert_eq!((wall.used, wall.hits), (7, Some(0)));
        drop(pairs);
    });
}

#[test]
fn limits_of_the_whole_host_come_from_the_first_namespace() {
    // Their sysctls are shown to no other; the engine looks at all, wherever it was started.
    let pressure = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").map(|text| {
        let third: u64 = text.split_whitespace().nth(2).unwrap().parse().unwrap();
        (third, sysctl("net/ipv4/tcp_max_orphans"))
    });
    let Ok((tcp_mem, max_orphans)) = pressure else {
        return skip(
            &limits_of_the_whole_host_come_from_the_first_namespace,
            "the tests run in a network namespace of their own",
        );
    };
    in_private_netns(move || {
        assert!(fs::metadata("/proc/sys/net/ipv4/tcp_mem").is_err(), "a private namespace shows it too");
        let mut engine = Engine::start(Options { scans: Scans::OnlyAtStart, ..Options::default() }).unwrap();
        let snapshot = engine.snapshot(0);
        let of_host = |kind| walls(&snapshot, kind).find(|wall| wall.subject == Subject::Host).unwrap();
        assert_eq!(of_host(WallKind::Orphans).maximum, max_orphans);
        assert_eq!(of_host(WallKind::TcpMemory).maximum, tcp_mem);
        assert_eq!(of_host(WallKind::HostFiles).maximum, sysctl("fs/file-max"));
    });
}

#[test]
fn sockets_take_memory_and_the_rest_of_it_has_room_for_more() {
    in_private_netns(|| {
        let snapshot = observe().snapshot(0);
        let slabs = fs::read_to_string("/proc/slabinfo").ok();
        let has_all = |slabs: &String| {
            ["TCP ", "sock_inode_cache ", "filp ", "dentry "].iter().all(|cache| slabs.contains(cache))
        };
        let wall = walls(&snapshot, WallKind::SocketMemory).next();
        assert_eq!(wall.is_some(), slabs.as_ref().is_some_and(has_all), "known where the kernel tells");
        let (Some(wall), Some(slabs)) = (wall, slabs) else { return };
        // Whole objects, without what their slabs waste: a lower bound that is near.
        let size = |cache: &str| -> u64 {
            let line = slabs.lines().find(|line| line.split_whitespace().next() == Some(cache)).unwrap();
            line.split_whitespace().nth(3).unwrap().parse().unwrap()
        };
        let objects: u64 = ["TCP", "sock_inode_cache", "filp", "dentry"].map(size).iter().sum();
        let memory = snapshot.host.memory.unwrap();
        assert!((objects..objects * 3 / 2).contains(&memory.per_socket), "{objects} against {memory:?}");
        assert_eq!(wall.maximum, wall.used + memory.available / memory.per_socket);
    });
}

#[test]
fn ports_that_fill_have_a_time_to_full() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40999");
        let listener = listen("127.0.0.1:7000", 1_024);
        let mut engine = Engine::start(options()).unwrap();
        let (began, mut clients) = (Instant::now(), Vec::new());
        let wall = loop {
            engine.poll().unwrap();
            // 50 a second: the range lasts for 20 seconds.
            while clients.len() < began.elapsed().as_millis() as usize / 20 {
                clients.push(TcpStream::connect("127.0.0.1:7000").unwrap());
            }
            let snapshot = engine.snapshot(1);
            let rising = walls(&snapshot, WallKind::Ports).find(|wall| wall.slope.is_some_and(|slope| slope > 0.0));
            if let Some(wall) = rising {
                break wall.clone();
            }
            assert!(began.elapsed() < Duration::from_secs(15), "no slope: {:?}", snapshot.walls);
        };
        // The kernel refuses when it is full: so many more connections it takes, and no more.
        let slope = wall.slope.unwrap();
        assert!((5.0..200.0).contains(&slope), "{wall:?}");
        assert!(wall.time_to_full().is_some_and(|time| time < Duration::from_mins(4)), "{wall:?}");
        let left = 1_000 - clients.len();
        clients.extend((0..left).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()));
        assert!(TcpStream::connect("127.0.0.1:7000").is_err());
        eventually(&mut engine, "a full wall first of all", |snapshot| {
            let first = &snapshot.walls[0];
            (first.kind == WallKind::Ports && (first.used, first.maximum) == (1_000, 1_000)).then_some(())
        });
        drop(listener);
    });
}
