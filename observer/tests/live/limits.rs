//! Limits, each against what the kernel says in another way: `ss`, sysctls, /proc, and what is refused.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, Command},
    time::{Duration, Instant},
};

use observer::{
    engine::{Engine, EngineOptions, Scans},
    host,
    model::{
        limit::{Limit, LimitKind, Scope},
        snapshot::Snapshot,
        units::Pid,
    },
};
use socket2::{Domain, Socket, Type};

use crate::{
    processes::start_program,
    refused::kernel_counter,
    sockets::{reset, set_option, skip},
    ss::sockets_in,
    support::{eventually, in_private_netns, listen, load_nft, observe, options, run, set_sysctl, start, wait_until},
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

fn limits(snapshot: &Snapshot, kind: LimitKind) -> impl Iterator<Item = &Limit> {
    snapshot.limits.iter().filter(move |limit| limit.kind == kind)
}

fn of_listener(snapshot: &Snapshot, kind: LimitKind, at: &str) -> Limit {
    let at: SocketAddr = at.parse().unwrap();
    let is_at = |limit: &&Limit| matches!(limit.scope, Scope::Listener { local, .. } if local == at);
    limits(snapshot, kind).find(is_at).cloned().unwrap_or_else(|| panic!("no {kind:?} of {at}"))
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
        // What a client that closes sends again overflows again.
        clients.into_iter().for_each(reset);
        let before = overflows();
        let mut engine = start(EngineOptions { scans: Scans::Regularly, ..options() });
        let [queued, backlog, discarded] = listener_of_ss();
        let limit = of_listener(&engine.snapshot(0), LimitKind::AcceptQueue, "127.0.0.1:7000");
        assert_eq!((limit.used, limit.maximum, limit.hits), (queued, backlog + 1, Some(0)), "nothing since the start");
        let counted = |limit: &Limit| {
            let ids = ["namespace_overflows", "segments_discarded"];
            ids.map(|id| limit.counters.iter().find(|counter| counter.id == id).copied().unwrap())
        };
        let [namespace, segments] = counted(&limit);
        assert_eq!((namespace.total, namespace.before, segments.total), (before, Some(before), discarded));
        assert_eq!(engine.snapshot(0).failures, [], "what happened before is no current failure");
        assert_eq!(limit.time_to_full(), Some(Duration::ZERO), "{limit:?}");
        assert_eq!(engine.snapshot(0).limits[0].kind, LimitKind::AcceptQueue, "what is full comes first");
        let more = start_connecting("127.0.0.1:7000", 3);
        wait_until("more drops", || overflows() > before);
        more.into_iter().for_each(reset);
        eventually(&mut engine, "as many hits as overflows since then", |snapshot| {
            let after = overflows();
            let limit = of_listener(snapshot, LimitKind::AcceptQueue, "127.0.0.1:7000");
            (limit.hits == Some(after - before) && counted(&limit)[0].total == after).then_some(())
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
        let in_progress = || sockets_in("syn-recv");
        wait_until("three request sockets", || in_progress() == 3);
        let snapshot = observe().snapshot(0);
        let limit = of_listener(&snapshot, LimitKind::SynQueue, "127.0.0.1:7000");
        assert_eq!((limit.used, limit.maximum), (3, 9));
        assert_eq!(of_listener(&snapshot, LimitKind::AcceptQueue, "127.0.0.1:7000").used, 0);
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
        let mut maxima: Vec<u64> = limits(&snapshot, LimitKind::AcceptQueue).map(|limit| limit.maximum).collect();
        maxima.sort_unstable();
        assert_eq!(maxima, [11, 21, 31]);
        drop(listeners);
    });
}

/// A process with its own limits that keeps files open.
struct FileOpener {
    child: Child,
    line: UnixStream,
}

impl FileOpener {
    fn start(soft: u64, hard: u64, files: u64) -> Self {
        let hold = format!("exec >&0; for i in $(seq {files}); do exec {{fd}}</dev/null; done; echo held; read -r");
        let limits = format!("--nofile={soft}:{hard}");
        let (child, line) = start_program(Command::new("prlimit").args([&limits, "bash", "-c", &hold])).unwrap();
        let mut opener = Self { child, line };
        let mut word = [0; 5];
        opener.line.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"held\n");
        opener
    }
}

impl Drop for FileOpener {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_process_is_measured_against_its_own_limit() {
    in_private_netns(|| {
        let opener = FileOpener::start(100, 200, 80);
        let pid = opener.child.id();
        let listed = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        assert!(listed >= 80);
        let snapshot = observe().snapshot(0);
        let is_its = |limit: &&Limit| limit.scope == Scope::Process(Pid(pid));
        let limit = limits(&snapshot, LimitKind::ProcessFiles).find(is_its).expect("its limit is listed");
        assert_eq!((limit.used, limit.maximum), (listed, 100));
        assert_eq!(limit.process.unwrap().comm.to_string(), "bash");
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
        let limit = limits(&snapshot, LimitKind::TimeWait).next().unwrap();
        assert_eq!((limit.used, limit.maximum), (counter("sockstat", "TCP:", "tw"), 20));
        assert_eq!(limit.hits, Some(counter("netstat", "TcpExt:", "TCPTimeWaitOverflow")));
        assert!(limit.hits > Some(0), "the kernel refused none: {limit:?}");
    });
}

#[test]
fn conntrack_is_a_limit_where_the_kernel_tracks() {
    in_private_netns(|| {
        let max = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok();
        let snapshot = observe().snapshot(0);
        let shown = limits(&snapshot, LimitKind::Conntrack).map(|limit| limit.maximum).collect::<Vec<_>>();
        let expected: Vec<u64> = max.into_iter().map(|max| max.trim().parse().unwrap()).collect();
        assert_eq!(shown, expected);
    });
}

#[test]
fn tracked_connections_are_counted() {
    in_private_netns(|| {
        // No counter in the rule: it needs another module on Linux 5.10.
        let rules = "table ip t { chain c { type filter hook input priority 0; ct state new accept; }; }";
        if let Err(why) = load_nft(rules) {
            return skip(&tracked_connections_are_counted, &format!("no rule on connection tracking: {why}"));
        }
        let pairs = crate::support::Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 7);
        let snapshot = observe().snapshot(0);
        let limit = limits(&snapshot, LimitKind::Conntrack).next().expect("a kernel that tracks");
        assert_eq!(limit.scope, Scope::Namespace(host::netns::current().unwrap()));
        assert_eq!(limit.used, sysctl("net/netfilter/nf_conntrack_count"));
        assert_eq!((limit.used, limit.hits), (7, Some(0)));
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
        let mut engine =
            Engine::start(EngineOptions { scans: Scans::OnlyAtStart, ..EngineOptions::default() }).unwrap();
        let snapshot = engine.snapshot(0);
        let of_host = |kind| limits(&snapshot, kind).find(|limit| limit.scope == Scope::Host).unwrap();
        assert_eq!(of_host(LimitKind::Orphans).maximum, max_orphans);
        assert_eq!(of_host(LimitKind::TcpMemory).maximum, tcp_mem);
        assert_eq!(of_host(LimitKind::HostFiles).maximum, sysctl("fs/file-max"));
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
        let limit = limits(&snapshot, LimitKind::SocketMemory).next();
        assert_eq!(limit.is_some(), slabs.as_ref().is_some_and(has_all), "known where the kernel shows it");
        let (Some(limit), Some(slabs)) = (limit, slabs) else { return };
        // Whole objects, without what their slabs waste: a lower bound that is near.
        let size = |cache: &str| -> u64 {
            let line = slabs.lines().find(|line| line.split_whitespace().next() == Some(cache)).unwrap();
            line.split_whitespace().nth(3).unwrap().parse().unwrap()
        };
        let objects: u64 = ["TCP", "sock_inode_cache", "filp", "dentry"].map(size).iter().sum();
        let memory = snapshot.host.memory.unwrap();
        assert!((objects..objects * 3 / 2).contains(&memory.per_socket), "{objects} against {memory:?}");
        assert_eq!(limit.maximum, limit.used + memory.available / memory.per_socket);
    });
}

#[test]
fn ports_that_fill_have_a_time_to_full() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40999");
        let listener = listen("127.0.0.1:7000", 1_024);
        let mut engine = Engine::start(options()).unwrap();
        let (began, mut clients) = (Instant::now(), Vec::new());
        let limit = loop {
            engine.poll().unwrap();
            // 50 a second: the range lasts for 20 seconds.
            while clients.len() < began.elapsed().as_millis() as usize / 20 {
                clients.push(TcpStream::connect("127.0.0.1:7000").unwrap());
            }
            let snapshot = engine.snapshot(1);
            let rising = limits(&snapshot, LimitKind::Ports).find(|limit| limit.slope.is_some_and(|slope| slope > 0.0));
            if let Some(limit) = rising {
                break limit.clone();
            }
            assert!(began.elapsed() < Duration::from_secs(15), "no slope: {:?}", snapshot.limits);
        };
        // The kernel refuses when it is full: so many more connections it takes, and no more.
        let slope = limit.slope.unwrap();
        assert!((5.0..200.0).contains(&slope), "{limit:?}");
        assert!(limit.time_to_full().is_some_and(|time| time < Duration::from_mins(4)), "{limit:?}");
        let left = 1_000 - clients.len();
        clients.extend((0..left).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()));
        assert!(TcpStream::connect("127.0.0.1:7000").is_err());
        eventually(&mut engine, "a full limit first of all", |snapshot| {
            let first = &snapshot.limits[0];
            (first.kind == LimitKind::Ports && (first.used, first.maximum) == (1_000, 1_000)).then_some(())
        });
        drop(listener);
    });
}
