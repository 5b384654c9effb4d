//! What sockets go through other than a plain connect and close. After each, every count by endpoint and state is what
//! `ss` says, and an engine that starts only then finds the same.

mod connects;
mod ends;
mod protocols;
mod sharing;

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process, thread,
    time::Duration,
};

use observer::{
    engine::Engine,
    model::{
        quality::{Drift, Losses},
        snapshot::Snapshot,
        units::TcpState,
    },
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{SockRef, Socket};

use crate::{
    sockets::{
        TestProcess, accept, disconnect, drop_incoming_packets, fast_open, fast_open_listener, is_server_port,
        keep_open, local, multipath, pass, reset, role, self_connected, set_option, silent_listener, simultaneous_open,
        skip, socket, start_connect, take,
    },
    ss::{full_sockets, ss},
    support::{
        Counts, PATIENCE, Pairs, Row, counted, difference, eventually, in_private_netns, inbound, listen, observe,
        outbound, run, scan_until, set_sysctl, truth, wait_until,
    },
};

const V4: &str = "127.0.0.1:7000";
const V6: &str = "[::1]:7000";
const MAPPED: &str = "[::ffff:127.0.0.1]:7000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The same ip, at a port that the kernel is to choose.
fn any_port(text: &str) -> SocketAddr {
    SocketAddr::new(addr(text).ip(), 0)
}

/// Scans until there are as many sockets, and as many were opened, closed and failed, as `wanted`, and every count is
/// what `ss` says, and an engine that starts then finds the same. It can take a while: a process that another test
/// starts holds a copy of every socket until its exec().
#[track_caller]
fn settle(engine: &mut Engine, wanted: (u32, (u64, u64, u64))) -> Snapshot {
    // A scan takes each socket's lock. Where that keeps the ACK of a FIN waiting, the kernel lets the closed socket
    // stay in FIN_WAIT2 for up to tcp_fin_timeout instead of replacing it by an inet_timewait_sock
    // (tcp_rcv_state_process()).
    let sockets = usize::try_from(wanted.0).unwrap();
    wait_until(&format!("{sockets} full sockets"), || full_sockets() == sockets);
    scan_until(engine, "the counts of ss", |engine| {
        let snapshot = engine.snapshot(usize::MAX);
        let (observed, shown) = (counted(&snapshot), rows_of_ss());
        let got = (snapshot.totals.sockets, flows(&snapshot));
        if got != wanted {
            return Err(format!("sockets, (opened, closed, failed): {got:?} instead of {wanted:?}"));
        }
        if observed != shown {
            return Err(difference(("observer", &observed), ("ss", &shown)));
        }
        let late = observe().snapshot(usize::MAX);
        if counted(&late) != observed {
            return Err(difference(("an engine that starts now", &counted(&late)), ("the running engine", &observed)));
        }
        if pairs(&late) != pairs(&snapshot) {
            let (late, running) = (pairs(&late), pairs(&snapshot));
            return Err(format!(
                "an engine that starts now has sockets and connections {late:?} instead of {running:?}"
            ));
        }
        // Every hook was attached before every socket. Where the kernel reports missed runs, a scan has found what they
        // would have reported.
        if snapshot.quality.losses == Losses::default() {
            assert_eq!(snapshot.quality.drift, Drift::default(), "events did not report everything");
        }
        Ok(snapshot)
    })
}

/// What `ss` says of the calling thread's namespace, by rows of `observer`.
fn rows_of_ss() -> Counts {
    let mut counts = Counts::new();
    for (state, local) in ss() {
        let row = if is_server_port(local.port()) { Row::Inbound(local) } else { Row::Outbound(local.ip()) };
        let count = counts.entry((row, state.name())).or_default();
        // Several listeners on one address are one row that listens.
        *count = if state == TcpState::Listen { 1 } else { *count + 1 };
    }
    counts
}

fn pairs(snapshot: &Snapshot) -> (u32, u32) {
    (snapshot.totals.sockets, snapshot.totals.connections)
}

/// Opened, closed, failed.
fn flows(snapshot: &Snapshot) -> (u64, u64, u64) {
    (snapshot.totals.opened_total, snapshot.totals.closed_total, snapshot.totals.failed_total)
}

/// Waits for the end of what a peer sends, or for its reset.
fn has_ended(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(stream.read(&mut [0]).map_err(|error| error.kind()), Ok(0) | Err(ErrorKind::ConnectionReset))
}
