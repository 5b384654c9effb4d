//! Every network namespace of the host: mounted, of a process, of a thread, and kept by a socket or a descriptor alone; from
//! before the start, new, and gone.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    os::fd::AsFd as _,
    os::unix::fs::MetadataExt as _,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::Instant,
};

use observer::{
    engine::{Engine, EngineOptions, Scans, Watched},
    host,
    model::{
        failure::{FailureKind, FailureRow},
        snapshot::{NamespaceRow, Snapshot},
        units::{NetnsId, PortRange},
    },
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::processes::output;
use crate::refused::errno;
use crate::support::{
    Counts, PATIENCE, Pairs, counted_in, eventually, in_private_netns, options, parse_ss, run, set_sysctl, start, truth,
};

fn observe_all() -> Engine {
    start(EngineOptions { watched: Watched::All, ..options() })
}

/// A mounted namespace that `ip netns` knows, removed when dropped.
pub(crate) struct Mounted {
    pub(crate) name: String,
}

impl Mounted {
    pub(crate) fn add(what: &str) -> Self {
        let name = format!("observer-{what}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    pub(crate) fn truth(&self) -> Counts {
        parse_ss(&run("ss", &["-N", &self.name, "-Htan"]))
    }

    /// What a thread inside did.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.name);
        let thread = thread::spawn(move || {
            let file = File::open(path).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(crate) fn id(&self) -> NetnsId {
        let listed = run("stat", &["-L", "-c", "%i", &format!("/run/netns/{}", self.name)]);
        NetnsId(listed.trim().parse().unwrap())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
    }
}

/// A test's sockets and thread in a namespace, and how they end.
pub(crate) struct Held {
    pub(crate) netns: NetnsId,
    truth: Counts,
    pairs: Pairs,
    /// Ends the thread in the namespace. After that only the sockets keep the namespace.
    leave: Option<Sender<()>>,
}

/// Connections in a new namespace, with or without a thread in it.
pub(crate) fn hold_in_new_namespace(count: usize, with_thread: bool) -> Held {
    let (held, receive) = channel();
    thread::spawn(move || {
        in_private_netns(move || {
            let pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", count);
            let (leave, left) = channel();
            let netns = host::netns::current().unwrap();
            held.send(Held { netns, truth: truth(), pairs, leave: with_thread.then_some(leave) }).unwrap();
            // Ends when the sender is dropped, at once if there is none.
            let _ = left.recv();
        });
    });
    receive.recv().unwrap()
}

fn row(snapshot: &Snapshot, netns: NetnsId) -> Option<&NamespaceRow> {
    snapshot.namespaces.iter().find(|row| row.netns == netns)
}

#[test]
fn a_mounted_namespace_has_its_name_its_sysctls_and_its_sockets() {
    let blue = Mounted::add("blue");
    run("ip", &["netns", "exec", &blue.name, "sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=20000 20999"]);
    let mut engine = observe_all();
    let snapshot = engine.snapshot(0);
    let namespace = row(&snapshot, blue.id()).expect("found at start");
    assert_eq!(namespace.name.as_deref(), Some(blue.name.as_str()));
    assert_eq!(namespace.port_range.map(|range| (range.low, range.high)), Some((20_000, 20_999)));
    // A new listener of another process.
    let refused = ["netns", "exec", &blue.name, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9"];
    assert!(!output(Command::new("ip").args(refused)).unwrap().status.success());
    eventually(&mut engine, "the refused connection of the other namespace", |snapshot| {
        snapshot.endpoints.iter().find(|row| row.key.netns == blue.id() && row.failed_total == 1).map(drop)
    });
    engine.scan().unwrap();
    assert_eq!(counted_in(&engine.snapshot(0), blue.id()), blue.truth());
}

#[test]
fn namespaces_kept_by_a_thread_or_by_sockets_alone_are_found_at_start() {
    for with_thread in [true, false] {
        let held = hold_in_new_namespace(7, with_thread);
        let mut engine = observe_all();
        let snapshot = engine.snapshot(usize::MAX);
        assert_eq!(counted_in(&snapshot, held.netns), held.truth, "with a thread: {with_thread}");
        let range = row(&snapshot, held.netns).and_then(|row| row.port_range).map(PortRange::size);
        assert_eq!(range, Some(28_232), "its sysctls are read: {with_thread}");
        drop((held.pairs, held.leave));
    }
}

#[test]
fn a_new_namespace_is_counted_and_forgotten_when_it_ends() {
    let mut engine = observe_all();
    let held = hold_in_new_namespace(9, true);
    eventually(&mut engine, "the new namespace by events alone", |snapshot| {
        (counted_in(snapshot, held.netns) == held.truth && row(snapshot, held.netns)?.port_range.is_some())
            .then_some(())
    });
    engine.scan().unwrap();
    assert_eq!(counted_in(&engine.snapshot(0), held.netns), held.truth);
    let Held { netns, pairs, leave, .. } = held;
    drop((pairs, leave));
    // A mounted one of another test may get its number.
    let is_another = |name: Option<&str>| name.is_some_and(|name| name.starts_with("observer-"));
    eventually(&mut engine, "the namespace gone", |snapshot| {
        let mut endpoints = snapshot.endpoints.iter().filter(|row| row.key.netns == netns);
        let is_gone = row(snapshot, netns).is_none_or(|row| is_another(row.name.as_deref()));
        (is_gone && endpoints.all(|row| is_another(row.netns_name.as_deref()))).then_some(())
    });
}

/// A namespace in which no process is, and to which no path leads.
fn kept_by_descriptor() -> (File, NetnsId) {
    let (send, receive) = channel();
    let thread = thread::spawn(move || {
        in_private_netns(move || send.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap());
    });
    let file = receive.recv().unwrap();
    thread.join().unwrap();
    let netns = NetnsId(u32::try_from(file.metadata().unwrap().ino()).unwrap());
    (file, netns)
}

#[test]
fn a_namespace_kept_by_a_descriptor_alone_is_watched_where_the_kernel_lists_it() {
    let is_listed = fs::read_to_string("/proc/kallsyms").unwrap().contains("sys_listns");
    let mut all: Vec<_> = (0..20).map(|_| kept_by_descriptor()).collect();
    let is_read =
        |snapshot: &Snapshot, netns| row(snapshot, netns).is_some_and(|row: &NamespaceRow| row.port_range.is_some());
    let mut engine = observe_all();
    let snapshot = engine.snapshot(0);
    let read: Vec<bool> = all.iter().map(|(_, netns)| is_read(&snapshot, *netns)).collect();
    assert_eq!(read, [is_listed; 20]);
    let (file, netns) = all.pop().unwrap();
    let inside = file.try_clone().unwrap();
    let made = thread::spawn(move || {
        move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        (Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 3), truth())
    });
    let (pairs, truth) = made.join().unwrap();
    eventually(&mut engine, "its connections", |snapshot| (counted_in(snapshot, netns) == truth).then_some(()));
    engine.scan().unwrap();
    assert_eq!(counted_in(&engine.snapshot(0), netns), truth);
    // Nothing of observer's own keeps it.
    drop((pairs, file));
    let is_another = |name: Option<&str>| name.is_some_and(|name| name.starts_with("observer-"));
    eventually(&mut engine, "the namespace gone", |snapshot| {
        row(snapshot, netns).is_none_or(|row| is_another(row.name.as_deref())).then_some(())
    });
}

#[test]
fn a_mounted_namespace_deleted_under_live_sockets_keeps_them_counted() {
    let red = Mounted::add("red");
    let netns = red.id();
    let (pairs, truth) = red.inside(|| (Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 5), truth()));
    let mut engine = observe_all();
    assert_eq!(counted_in(&engine.snapshot(0), netns), truth);
    drop(red);
    engine.scan().unwrap();
    engine.poll().unwrap();
    engine.scan().unwrap();
    assert_eq!(counted_in(&engine.snapshot(0), netns), truth, "only sockets hold it now");
    drop(pairs);
    eventually(&mut engine, "the namespace gone", |snapshot| row(snapshot, netns).is_none().then_some(()));
}

/// A namespace that has the number of one that is gone. Each gets the lowest number that is free, which other tests take
/// too: those before it stay until it is there.
fn with_the_number_of(old: impl Fn() -> Mounted) -> (NetnsId, String, Mounted) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let gone = old();
        let (netns, name) = (gone.id(), gone.name.clone());
        drop(gone);
        let mut others = Vec::new();
        while others.len() < 64 {
            let new = Mounted::add(&format!("new{}", others.len()));
            if new.id() == netns {
                return (netns, name, new);
            }
            others.push(new);
        }
        assert!(Instant::now() < deadline, "no namespace got the number of one that had ended");
    }
}

/// Uses up the ports of a small range, is refused one more, and leaves TIME_WAIT sockets behind.
fn run_out_of_ports() {
    set_sysctl("ipv4/ip_local_port_range", "40000 40003");
    let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
    let clients: Vec<_> = (0..4).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
    assert_eq!(errno(TcpStream::connect("127.0.0.1:7000")), libc::EADDRNOTAVAIL);
    let accepted: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
    drop(clients);
    drop((accepted, listener));
}

#[test]
fn a_namespace_with_the_number_of_one_before_it_has_nothing_of_that_one() {
    let mut engine = start(EngineOptions { scans: Scans::Regularly, watched: Watched::All, ..options() });
    let of = |snapshot: &Snapshot, netns: NetnsId, is_ended: bool| -> Vec<FailureRow> {
        let rows = snapshot.failures.iter().filter(|row| row.key.netns == netns && row.ended.is_some() == is_ended);
        rows.cloned().collect()
    };
    let engine_saw = std::cell::RefCell::new(&mut engine);
    let (netns, name, new) = with_the_number_of(|| {
        let old = Mounted::add("old");
        // It may have the number of one that another test has ended: what happens before the engine knows it belongs to that.
        let is_known =
            |snapshot: &Snapshot| row(snapshot, old.id())?.name.as_deref().filter(|name| *name == old.name).map(drop);
        eventually(*engine_saw.borrow_mut(), "the name of the namespace", is_known);
        old.inside(run_out_of_ports);
        eventually(*engine_saw.borrow_mut(), "the refusal, and the sockets that were there", |snapshot| {
            is_known(snapshot)?;
            (!of(snapshot, old.id(), false).is_empty() && !counted_in(snapshot, old.id()).is_empty()).then_some(())
        });
        old
    });
    // All of this happens before the engine looks again.
    let pairs = new.inside(|| Pairs::open("127.0.0.1:7100", "127.0.0.1:7100", 3));
    eventually(&mut engine, "the new namespace", |snapshot| {
        let namespace = row(snapshot, netns)?;
        (namespace.name.as_deref() == Some(new.name.as_str()) && counted_in(snapshot, netns) == new.truth())
            .then_some(())
    });
    let snapshot = engine.snapshot(usize::MAX);
    let range = row(&snapshot, netns).and_then(|row| row.port_range).map(PortRange::size);
    assert_eq!(range, Some(28_232), "the sysctls of the new one");
    assert_eq!(of(&snapshot, netns, false), [], "the new one has refused nothing");
    assert!(!snapshot.failure_counts.iter().any(|row| row.netns == netns), "{:?}", snapshot.failure_counts);
    let before: Vec<_> = of(&snapshot, netns, true).iter().map(|row| row.ended.clone().unwrap().name).collect();
    assert_eq!(before.iter().map(Option::as_deref).collect::<Vec<_>>(), [Some(name.as_str())], "it is listed still");
    let flow = |snapshot: &Snapshot| {
        let rows = snapshot.flows.iter().filter(|row| row.netns == netns);
        rows.map(|row| row.opened_total + row.failed_total).sum::<u64>()
    };
    assert_eq!(flow(&snapshot), 0, "{:?}", snapshot.flows);
    // From here on it has its own.
    new.inside(run_out_of_ports);
    let refusal = eventually(&mut engine, "the refusal of the new one", |snapshot| {
        of(snapshot, netns, false).into_iter().find(|row| row.key.kind == FailureKind::PortsExhausted)
    });
    assert_eq!(refusal.count, 1);
    drop(pairs);
    eventually(&mut engine, "as many sockets as ss shows", |snapshot| {
        (counted_in(snapshot, netns) == new.truth()).then_some(())
    });
    let snapshot = engine.snapshot(0);
    assert!(flow(&snapshot) >= 4, "{:?}", snapshot.flows);
}
