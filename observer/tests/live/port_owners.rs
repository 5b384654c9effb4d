//! The owner of the port that bind() did not get, against `ss -p` and `ss -o`.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::{fd::FromRawFd as _, unix::net::UnixStream},
    process::{Child, Command, Stdio},
};

use observer::{
    engine::Engine,
    model::{
        failure::{FailureKind, FailureRow},
        port_owner::PortOwner,
        units::TcpState,
    },
};
use socket2::Socket;

use crate::processes::start_program;
use crate::refused::{address, errno, tcp};
use crate::support::{Pairs, eventually, in_private_netns, listen, observe, run, wait_until};

const HOLD: &str = "OBSERVER_TEST_HOLD";

/// Runs `test` once more as another process, in which [`held_by_this_process`] holds a socket; it ends with the line.
fn port_owner(test: &str, what: &str) -> (Child, UnixStream) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(HOLD, what).stdout(Stdio::null());
    let (child, line) = start_program(&mut command).unwrap();
    assert_eq!((&line).read(&mut [0]).unwrap(), 1, "the socket is held");
    (child, line)
}

/// As the other process: holds a socket for as long as the line is there.
fn held_by_this_process() -> bool {
    let Ok(what) = std::env::var(HOLD) else { return false };
    let (call, to) = what.split_once(' ').unwrap();
    let socket = bound(to);
    if call == "listen" {
        socket.listen(1).unwrap();
    }
    // SAFETY: standard input is the line, and nothing else in this process uses it.
    let mut line = unsafe { UnixStream::from_raw_fd(0) };
    line.write_all(b"!").unwrap();
    assert_eq!(line.read(&mut [0]).unwrap(), 0);
    true
}

fn bound(to: &str) -> Socket {
    let socket = tcp();
    socket.bind(&address(to).into()).unwrap();
    socket
}

/// A bind() that must fail because of the port.
fn bind_in_vain(to: SocketAddr) {
    assert_eq!(errno(tcp().bind(&to.into())), libc::EADDRINUSE);
}

/// The row of a bind() of this process, once it knows a owner that is `wanted`.
fn held(engine: &mut Engine, to: SocketAddr, wanted: impl Fn(PortOwner) -> bool) -> FailureRow {
    eventually(engine, &format!("the owner of {to}"), |snapshot| {
        let of_port =
            |row: &&FailureRow| row.key.local.is_some_and(|local| (local.ip, local.port) == (to.ip(), to.port()));
        let row = snapshot.failures.iter().find(of_port)?;
        assert_eq!(row.key.kind, FailureKind::AddressInUse);
        row.port_owner().is_some_and(&wanted).then(|| row.clone())
    })
}

/// The pid that `ss` names on the line with `part`.
fn pid_by_ss(args: &str, part: &str) -> u32 {
    let shown = run("ss", &[args]);
    let line = shown.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in {shown}"));
    line.split_once("pid=").unwrap().1.split(',').next().unwrap().parse().unwrap()
}

#[test]
fn a_listener_of_another_process_is_named() {
    if held_by_this_process() {
        return;
    }
    in_private_netns(|| {
        let mut engine = observe();
        let (mut child, line) =
            port_owner("port_owners::a_listener_of_another_process_is_named", "listen 0.0.0.0:7000");
        assert_eq!(pid_by_ss("-Htlnp", ":7000"), child.id());
        let wanted = address("127.0.0.1:7000");
        bind_in_vain(wanted);
        let row = held(&mut engine, wanted, |port_owner| port_owner.process().is_some_and(|it| it.pid.0 == child.id()));
        assert_eq!(row.key.process.unwrap().pid.0, std::process::id());
        assert!(row.reason().ends_with(&format!(" ({}) listens on it", child.id())), "{}", row.reason());
        // Other addresses and ports are free.
        bound("127.0.0.1:7001");
        assert_eq!(engine.snapshot(0).failures_total, 1);
        drop(line);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_socket_that_is_only_bound_is_found_by_the_scan_that_a_failure_asks_for() {
    if held_by_this_process() {
        return;
    }
    in_private_netns(|| {
        let mut engine = observe();
        let test = "port_owners::a_socket_that_is_only_bound_is_found_by_the_scan_that_a_failure_asks_for";
        let (mut child, line) = port_owner(test, "bind 127.0.0.1:7000");
        let wanted = address("127.0.0.1:7000");
        bind_in_vain(wanted);
        // No hook has reported that bind(): the next fd scan shows it.
        let row = held(&mut engine, wanted, |_| true);
        assert_eq!(row.reason(), "127.0.0.1:7000 is in use: no socket on it was seen");
        engine.scan().unwrap();
        let row = held(&mut engine, wanted, |port_owner| port_owner.process().is_some());
        assert_eq!(row.port_owner().unwrap().process().unwrap().pid.0, child.id());
        assert!(row.reason().ends_with(&format!(" ({}) has bound a socket to it", child.id())), "{}", row.reason());
        drop(line);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_connected_client_keeps_the_port_that_connect_chose() {
    in_private_netns(|| {
        let mut engine = observe();
        let _listener = listen("127.0.0.1:7000", 1);
        let client = TcpStream::connect("127.0.0.1:7000").unwrap();
        let local = client.local_addr().unwrap();
        assert_eq!(pid_by_ss("-Htnp", &format!("{local} ")), std::process::id());
        bind_in_vain(local);
        let row = held(&mut engine, local, |port_owner| port_owner.process().is_some());
        assert!(
            matches!(row.port_owner(), Some(PortOwner::Connection(TcpState::Established, Some(by))) if by.pid.0 == std::process::id())
        );
    });
}

/// Seconds that a TIME_WAIT has left: "timer:(timewait,59sec,0)", or "timer:(timewait,1min,0)".
fn seconds_by_ss(part: &str) -> u64 {
    let shown = run("ss", &["-Htano", "state", "time-wait"]);
    let line = shown.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in {shown}"));
    let left = line.split_once("timewait,").unwrap().1.split(',').next().unwrap();
    let left = left.strip_suffix("sec").unwrap_or(left);
    if left.ends_with("ms") { 0 } else { left.strip_prefix("1min").map_or_else(|| left.parse().unwrap(), |_| 60) }
}

#[test]
fn a_time_wait_keeps_its_port_for_as_long_as_ss_shows() {
    in_private_netns(|| {
        let mut early = observe();
        let mut pairs = Pairs::open("127.0.0.1:7000", "127.0.0.1:7000", 1);
        let local = pairs.clients[0].local_addr().unwrap();
        pairs.clients.clear();
        pairs.accepted.clear();
        wait_until("the TIME_WAIT", || run("ss", &["-Htan", "state", "time-wait"]).contains(&local.to_string()));
        // By events, and found by a scan.
        let mut late = observe();
        bind_in_vain(local);
        for engine in [&mut early, &mut late] {
            let row = held(engine, local, |port_owner| matches!(port_owner, PortOwner::Waiting { .. }));
            let Some(PortOwner::Waiting { state: TcpState::TimeWait, left: Some(left), .. }) = row.port_owner() else {
                panic!("{row:?}")
            };
            let by_kernel = seconds_by_ss(&local.to_string());
            assert!(left.as_secs().abs_diff(by_kernel) <= 2, "{left:?}, by ss {by_kernel} s");
            assert!(row.reason().contains(" is in use: a connection in TIME_WAIT for "), "{}", row.reason());
        }
    });
}
