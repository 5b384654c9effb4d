//! Every network namespace of the host: mounted, of a process, of a thread, and kept by a socket alone; from
//! before the start, new, and gone.

use std::{
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
};

use observer::{
    engine::{Engine, EngineOptions, Watched},
    host,
    model::{
        snapshot::{NamespaceRow, Snapshot},
        units::{NetnsId, PortRange},
    },
};

use crate::processes::output;
use crate::support::{Counts, Pairs, counted_in, eventually, in_private_netns, options, parse_ss, run, start, truth};

fn observe_all() -> Engine {
    start(EngineOptions { watched: Watched::All, ..options() })
}

/// A mounted namespace that `ip netns` knows, removed when dropped.
struct Mounted {
    name: String,
}

impl Mounted {
    fn add(what: &str) -> Self {
        let name = format!("observer-{what}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    fn truth(&self) -> Counts {
        parse_ss(&run("ss", &["-N", &self.name, "-Htan"]))
    }

    fn id(&self) -> NetnsId {
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
struct Held {
    netns: NetnsId,
    truth: Counts,
    pairs: Pairs,
    /// Ends the thread in the namespace. After that only the sockets keep the namespace.
    leave: Option<Sender<()>>,
}

/// Connections in a new namespace, with or without a thread in it.
fn hold_in_new_namespace(count: usize, with_thread: bool) -> Held {
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
    eventually(&mut engine, "the namespace gone", |snapshot| {
        let rows = snapshot.endpoints.iter().filter(|row| row.key.netns == netns).count();
        (row(snapshot, netns).is_none() && rows == 0).then_some(())
    });
}

#[test]
fn a_mounted_namespace_deleted_under_live_sockets_keeps_them_counted() {
    let red = Mounted::add("red");
    let (netns, name) = (red.id(), red.name.clone());
    let (send, receive) = channel();
    thread::spawn(move || {
        let file = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
        send.send((Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 5), truth())).unwrap();
    });
    let (pairs, truth) = receive.recv().unwrap();
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
