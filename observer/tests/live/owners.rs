//! The owner of a socket, against `ss -p`: from events, from scans, after fork, after SCM_RIGHTS, and without an owner.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
};

use observer::{
    engine::Engine,
    model::{snapshot::Snapshot, units::TcpState},
};

use crate::processes::start_program;
use crate::support::{
    assert_equals_ss, difference, eventually, in_private_netns, inbound, listen, observe, outbound, run, scan_until,
    wait_until,
};

/// How many sockets each process owns, by its pid.
type Owned = BTreeMap<u32, u32>;

fn owned(snapshot: &Snapshot) -> Owned {
    let mut owned = Owned::new();
    for owner in snapshot.endpoints.iter().flat_map(|row| &row.owners) {
        *owned.entry(owner.process.pid.0).or_default() += owner.sockets;
    }
    owned
}

/// The same by `ss -p`, of the connected sockets. Here each has one owner.
fn truth() -> Owned {
    let mut owned = Owned::new();
    for line in run("ss", &["-Htnp"]).lines() {
        // users:(("bash",pid=77,fd=3))
        if let Some((_, rest)) = line.split_once("pid=") {
            let pid = rest.split(',').next().unwrap().parse().unwrap();
            *owned.entry(pid).or_default() += 1;
        }
    }
    owned
}

/// Scans until the owners are those that `ss` names. It can take a while: a process that another test starts holds a
/// copy of every socket until its exec(), and `ss` may name that one.
#[track_caller]
fn assert_owners_equal_ss(engine: &mut Engine) {
    scan_until(engine, "the owners of ss", |engine| {
        let (observed, shown) = (owned(&engine.snapshot(0)), truth());
        if observed == shown { Ok(()) } else { Err(difference(("observer", &observed), ("ss", &shown))) }
    });
}

/// A shell that does as `script` says and then waits for its standard input to end.
fn shell(script: &str) -> (Child, UnixStream) {
    start_program(Command::new("bash").args(["-c", &format!("{script}; read")]).stderr(Stdio::null())).unwrap()
}

fn accept(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| listener.accept().unwrap().0).collect()
}

#[test]
fn each_process_has_its_own_sockets() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen("127.0.0.1:7000", 128);
        let connect = "exec 3<>/dev/tcp/127.0.0.1/7000 4<>/dev/tcp/127.0.0.1/7000";
        let mut clients = [shell(connect), shell(connect)];
        let accepted = accept(&listener, 3);
        let this = std::process::id();
        eventually(&mut engine, "the owners by events alone", |snapshot| {
            let owned = owned(snapshot);
            let of = |pid: u32| owned.get(&pid).copied();
            // A client owns its socket from SYN_SENT on: the last connection may still be on its way here.
            let is_here = inbound(snapshot, "127.0.0.1:7000")?.sockets == 4;
            (is_here && of(this) == Some(3) && clients.iter().all(|(client, _)| of(client.id()) == Some(2)))
                .then_some(())
        });
        // One connection still waits in the accept queue: the listener's process stands for it.
        let snapshot = engine.snapshot(0);
        let row = inbound(&snapshot, "127.0.0.1:7000").unwrap();
        assert_eq!((row.sockets, row.process.map(|process| process.pid.0)), (4, Some(this)));
        // Found by a scan as by events.
        assert_owners_equal_ss(&mut observe());
        assert_owners_equal_ss(&mut engine);
        for (client, _) in &mut clients {
            client.kill().unwrap();
            client.wait().unwrap();
        }
        assert_owners_equal_ss(&mut engine);
        drop(accepted);
    });
}

#[test]
fn an_inherited_socket_belongs_to_the_child_once_the_parent_closes_it() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen("127.0.0.1:7000", 128);
        // The subshell inherits descriptor 3; the shell itself closes its own.
        let (mut parent, _line) = shell("exec 3<>/dev/tcp/127.0.0.1/7000; (exec sleep 1000) & exec 3>&-");
        let accepted = accept(&listener, 1);
        let child = || {
            let pid = parent.id();
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            children.trim().parse::<u32>().ok()
        };
        // Until the parent has closed its copy, ss names both.
        wait_until("the parent lets go", || {
            let held = truth();
            child().is_some_and(|child| held.contains_key(&child) && !held.contains_key(&parent.id()))
                && run("ss", &["-Htnp"]).matches("pid=").count() == 2
        });
        assert_owners_equal_ss(&mut engine);
        let child = child().unwrap();
        assert_eq!(owned(&engine.snapshot(0)).get(&child), Some(&1));
        run("kill", &[&child.to_string()]);
        parent.kill().unwrap();
        parent.wait().unwrap();
        drop(accepted);
    });
}

#[test]
fn a_socket_closed_before_its_data_was_taken_is_an_orphan() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen("127.0.0.1:7000", 128);
        let mut client = TcpStream::connect("127.0.0.1:7000").unwrap();
        let server = accept(&listener, 1);
        client.set_nonblocking(true).unwrap();
        // Until both buffers are full.
        while client.write(&[0; 4096]).is_ok() {}
        drop(client);
        assert_equals_ss(&mut engine);
        let snapshot = engine.snapshot(0);
        let row = outbound(&snapshot, "127.0.0.1").unwrap();
        assert_eq!((row.states.get(TcpState::FinWait1), row.orphans, row.owners.len()), (1, 1, 0));
        assert_owners_equal_ss(&mut engine);
        drop(server);
        assert_equals_ss(&mut engine);
    });
}

#[test]
fn the_owner_is_a_process_and_not_the_one_that_a_softirq_interrupted() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen("127.0.0.1:7000", 128);
        let (mut client, _line) = shell("exec 3<>/dev/tcp/127.0.0.1/7000");
        let accepted = accept(&listener, 1);
        // Another process resets the connection: it does not become the owner.
        let client_port = accepted[0].peer_addr().unwrap().port().to_string();
        run("ss", &["-K", "-tn", "sport", "=", &client_port]);
        eventually(&mut engine, "the connection gone", |snapshot| (snapshot.totals.closed_total == 2).then_some(()));
        let pids: Vec<u32> = owned(&engine.snapshot(0)).into_keys().collect();
        assert!(pids.iter().all(|pid| *pid == client.id() || *pid == std::process::id()), "{pids:?}");
        client.kill().unwrap();
        client.wait().unwrap();
    });
}

#[test]
fn a_socket_accepted_by_io_uring_has_its_owner_after_the_next_scan() {
    in_private_netns(|| {
        let mut engine = observe();
        let listener = listen("127.0.0.1:7000", 128);
        let client = TcpStream::connect("127.0.0.1:7000").unwrap();
        let accepted = accept_by_io_uring(&listener);
        assert_owners_equal_ss(&mut engine);
        assert_eq!(owned(&engine.snapshot(0)).get(&std::process::id()), Some(&2));
        drop((client, accepted));
    });
}

/// An accept that is no system call: no syscall hook sees it.
fn accept_by_io_uring(listener: &TcpListener) -> TcpStream {
    let mut ring = io_uring::IoUring::new(2).expect("io_uring");
    let fd = io_uring::types::Fd(listener.as_raw_fd());
    let accept = io_uring::opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut());
    // Or ss itself would inherit it, and name itself as its owner.
    let accept = accept.flags(libc::SOCK_CLOEXEC).build();
    // SAFETY: the entry asks for no address, so it points to nothing that could go away.
    unsafe { ring.submission().push(&accept).unwrap() };
    ring.submit_and_wait(1).unwrap();
    let accepted = ring.completion().next().unwrap().result();
    assert!(accepted >= 0, "io_uring accept: {}", std::io::Error::from_raw_os_error(-accepted));
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    unsafe { TcpStream::from_raw_fd(accepted) }
}
