//! TIME_WAIT: which ports closed connections keep, from which destinations, and what tcp_tw_reuse changes.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::ensure;

use super::{
    Lab, Scale, anywhere, link,
    needs::Needs,
    report::{Check, refusal},
    session::{Session, value, wait_until, wait_until_closed},
    stage::{self, LOCALHOST},
    worker::request::{ClientBind, CloseWith, Connect},
};
use crate::{
    host::clock::monotonic,
    model::{limit::LimitKind, units::grouped},
};

/// An address outside 127.0.0.0/8, although `lo` has it here.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 65, 53, 6);

pub(super) static LAB: Lab = Lab {
    name: "time-wait",
    claim: "TIME_WAIT blocks ports towards the same destination only, and tcp_tw_reuse decides when connect() may \
     reuse them",
    theory: &[
        "The end that closes first keeps the connection's four numbers for 60 more seconds: TIME_WAIT. Late packets of \
         the old connection must not reach a new one.",
        "A client that opens and closes connections to one destination uses up its ports towards that destination. \
         Towards any other destination, the same ports are free.",
        "net.ipv4.tcp_tw_reuse lets connect() reuse the port of a TIME_WAIT that is older than a second: 0 never, 1 \
         always, 2 (the default) only on loopback. TCP timestamps distinguish old packets from new ones.",
        "It affects connect() alone. It does not shorten TIME_WAIT. It does not help a server, where the client's next \
         connection comes from another port anyway.",
    ],
    limits: &[LimitKind::TimeWait, LimitKind::Ports],
    scale: Scale { least: 40, usual: 1_000, most: 10_000, shrinks: false },
    needs: |scale| Ok(Needs::of_connections(scale)),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    link::add_address("lo:1", ELSEWHERE)?;
    let range = stage::narrow_range(session.scale)?;
    let (ports, closed) = (range.size(), range.size() / 2);
    let servers = stage::server_ports(2)?;
    let on_loopback = SocketAddrV4::new(LOCALHOST, servers[0]);
    let other = SocketAddrV4::new(LOCALHOST, servers[1]);
    let elsewhere = SocketAddrV4::new(ELSEWHERE, servers[0]);
    let listeners = [on_loopback, other, elsewhere].map(stage::listen_long);
    for listener in listeners {
        session.workers.serve(&listener?, ports)?;
    }
    // On a busy machine an acknowledgement can overtake another. The reset that answers it would end a TIME_WAIT early
    // (RFC 1337).
    stage::set_sysctl("ipv4/tcp_rfc1337", "1")?;
    let was = stage::read().tcp_tw_reuse.unwrap_or(0);

    stage::set_sysctl("ipv4/tcp_tw_reuse", "0")?;
    session.step(format!(
        "connect() has {} ports here. The client opens {} connections to {on_loopback} and closes them first.",
        grouped(ports.into()),
        grouped(closed.into())
    ))?;
    session.theory(format!(
        "{} sockets in TIME_WAIT. (tcp_tw_reuse was {was}. It is 0 now, in this namespace alone.)",
        grouped(closed.into())
    ))?;
    let before = leave_time_waits(session, on_loopback, closed)?;
    session.kernel(format!("/proc/net/sockstat counts {} sockets in TIME_WAIT.", grouped(before.into())))?;
    session.check(Check::equal("closed connections in TIME_WAIT", closed, None, before));

    session.step("tcp_tw_reuse=0: how many connections to the same destination are possible now?")?;
    let left = ports - closed;
    session.theory(format!(
        "Each TIME_WAIT blocks its port: {} - {} = {}.",
        grouped(ports.into()),
        grouped(closed.into()),
        grouped(left.into())
    ))?;
    try_all(session, "tcp_tw_reuse=0, same destination", on_loopback, left, ports)?;

    session.step(format!("And to another destination, {other}?"))?;
    session.theory(format!("No TIME_WAIT blocks a port towards it: all {}.", grouped(ports.into())))?;
    try_all(session, "tcp_tw_reuse=0, another destination", other, ports, ports)?;

    session.step("tcp_tw_reuse=1, and each TIME_WAIT is older than a second. The same destination again:")?;
    stage::set_sysctl("ipv4/tcp_tw_reuse", "1")?;
    let still = stage::read().time_wait.unwrap_or(0);
    session.theory(format!("connect() reuses their ports: all {}.", grouped(ports.into())))?;
    session.kernel(format!("The sysctl alone ends no TIME_WAIT: still {}.", grouped(still.into())))?;
    session.check(Check::equal("in TIME_WAIT after tcp_tw_reuse=1 alone", closed, None, still));
    try_all(session, "tcp_tw_reuse=1, same destination", on_loopback, ports, ports)?;

    stage::set_sysctl("ipv4/tcp_tw_reuse", "2")?;
    session.step("tcp_tw_reuse=2, the default of Linux: on loopback.")?;
    leave_time_waits(session, on_loopback, closed)?;
    session.theory(format!("127.0.0.1 is loopback: all {} ports.", grouped(ports.into())))?;
    try_all(session, "tcp_tw_reuse=2, on loopback", on_loopback, ports, ports)?;

    session
        .step(format!("tcp_tw_reuse=2 between addresses outside loopback ({ELSEWHERE}), as between two machines."))?;
    let before = leave_time_waits(session, elsewhere, closed)?;
    session.theory(format!(
        "{} sockets in TIME_WAIT block their ports: {} left.",
        grouped(before.into()),
        grouped(left.into())
    ))?;
    try_all(session, "tcp_tw_reuse=2, not on loopback", elsewhere, left, ports)
}

/// Opens connections and closes them, the client first. Waits until connect() may reuse their ports.
fn leave_time_waits(session: &mut Session<'_>, to: SocketAddrV4, count: u32) -> anyhow::Result<u32> {
    let there = stage::read().time_wait.unwrap_or(0);
    let opened = session.workers.connect(Connect { to, most: count, bind: ClientBind::Nothing })?.opened;
    let accepted = session.workers.accepted(opened)?.count;
    ensure!((opened, accepted) == (count, count), "{opened} connections opened and {accepted} accepted, not {count}");
    session.workers.close(CloseWith::Fin)?;
    wait_until_closed()?;
    // The kernel counts their age in milliseconds since 6.14 (tcp_tw_reuse_delay), before that in whole seconds.
    let delay = stage::read().tcp_tw_reuse_delay.unwrap_or(Duration::from_secs(1));
    let reusable_at = monotonic() + delay.max(Duration::from_secs(1)) + Duration::from_millis(1_100);
    wait_until("TIME_WAITs old enough for reuse", || Ok(monotonic() > reusable_at))?;
    Ok(stage::read().time_wait.unwrap_or(0) - there)
}

/// Connects until the kernel refuses, compares the count with the prediction, and closes everything.
fn try_all(session: &mut Session<'_>, what: &str, to: SocketAddrV4, expected: u32, ports: u32) -> anyhow::Result<()> {
    let connect = Connect { to, most: 1, bind: ClientBind::Nothing };
    let one = session.workers.connect(connect)?.opened;
    let left = session.predicted(*to.ip(), to)?;
    if let Some(left) = left {
        session.observer(format!("After one connection, {} more will succeed.", grouped(left.into())))?;
    }
    let rest = session.workers.connect(Connect { most: ports + 1, ..connect })?;
    let opened = one + rest.opened;
    session.kernel(format!("{} connections, then {}.", grouped(opened.into()), refusal(rest.errno())))?;
    session.check(Check::equal(what, expected, value(left.map(|left| left + one)), opened));
    session.workers.accepted(opened)?;
    session.workers.close(CloseWith::Reset)?;
    wait_until_closed()
}
