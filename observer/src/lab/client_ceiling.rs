//! The real limit of a client: its ephemeral ports towards one destination.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, outcome, refusal},
    session::{Session, value},
    stage::{self, LOCALHOST},
    worker::request::{ClientBind, Connect},
};
use crate::model::{limit::LimitKind, units::grouped};

pub(super) static LAB: Lab = Lab {
    name: "client-ceiling",
    claim: "one client address opens as many connections to one destination as its port range has ports, and no more; \
            a second destination or a second client address can use the whole range again",
    theory: &[
        "Between one client address and one destination (ip and port), three of the four numbers are fixed. Only the \
         client's port can differ. connect() chooses it from net.ipv4.ip_local_port_range, without the ports of \
         ip_local_reserved_ports and without those that bind() or listen() took.",
        "When no port is left, connect() fails at once with EADDRNOTAVAIL. The kernel sends no packet.",
        "The limit applies to each destination on its own. Another destination port, another destination ip or another \
         client ip changes one of the fixed numbers, and connect() can use every port again.",
    ],
    limits: &[LimitKind::Ports],
    scale: Scale { least: 100, usual: 28_232, most: 64_000, shrinks: false },
    needs: |scale| Ok(Needs::of_connections(3 * scale)),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let before = stage::range()?;
    let range = stage::narrow_range(session.scale)?;
    let reserved = stage::read().reserved.iter().map(|ports| ports.size()).sum::<u32>();
    let ports = range.size() - reserved;
    let [first, second] = [0, 1].map(|i| stage::server_ports(2).map(|ports| SocketAddrV4::new(LOCALHOST, ports[i])));
    let (first, second) = (first?, second?);
    let other_source = Ipv4Addr::new(127, 0, 0, 2);

    session.step(format!("A client at {LOCALHOST}, a server at {first}. Open a first connection."))?;
    if range != before {
        session.theory(format!(
            "--scale has narrowed the port range of this namespace from {}-{} to {}-{}.",
            before.low, before.high, range.low, range.high
        ))?;
    }
    session.theory(format!(
        "ip_local_port_range is {}-{}, and {reserved} of these ports are reserved: {} connections, no more.",
        range.low,
        range.high,
        grouped(ports.into())
    ))?;
    let listeners = [stage::listen_long(first)?, stage::listen_long(second)?];
    session.workers.serve(&listeners[0], 2 * ports)?;
    session.workers.serve(&listeners[1], ports)?;
    let one = session.workers.connect(Connect { to: first, most: 1, bind: ClientBind::Nothing })?.opened;
    let left = session.predicted(LOCALHOST, first)?;
    if let Some(left) = left {
        session.observer(format!("{} more connect()s will succeed, then EADDRNOTAVAIL.", grouped(left.into())))?;
    }

    session.step("Connect until the kernel refuses. From half of the range on, connect() is slow: see lab cliff.")?;
    let rest = session.connect_until_refused(Connect { to: first, most: 0, bind: ClientBind::Nothing }, ports)?;
    session.kernel(format!(
        "{} connections, then connect(): {}.",
        grouped((one + rest.opened).into()),
        refusal(rest.errno())
    ))?;
    session.check(Check::equal(
        "connections to the first destination",
        ports,
        value(left.map(|left| left + one)),
        one + rest.opened,
    ));
    let predicted =
        session.predicted(LOCALHOST, first)?.map(|left| if left == 0 { "EADDRNOTAVAIL" } else { "works" }.into());
    session.check(Check::equal("the next connect()", "EADDRNOTAVAIL", predicted, outcome(rest.errno())));

    session.step(format!("The client has no port left for {first}. Now a second destination: {second}."))?;
    session.theory("The destination port differs: connect() can use every local port a second time.")?;
    again(
        session,
        "to a second destination",
        Connect { to: second, most: ports, bind: ClientBind::Nothing },
        LOCALHOST,
        ports,
    )?;

    session.step(format!("Back to the first destination, {first}, from a second client address: {other_source}."))?;
    session.theory("The client's ip differs: connect() can use every local port a third time.")?;
    let connect = Connect { to: first, most: ports, bind: ClientBind::Address(other_source) };
    again(session, "from a second address", connect, other_source, ports)
}

/// Connects until the kernel refuses, and compares the count with observer's prediction after the first connection.
fn again(session: &mut Session<'_>, what: &str, connect: Connect, from: Ipv4Addr, ports: u32) -> anyhow::Result<()> {
    let one = session.workers.connect(Connect { most: 1, ..connect })?.opened;
    let left = session.predicted(from, connect.to)?;
    if let Some(left) = left {
        session.observer(format!("After one connection, {} more will succeed.", grouped(left.into())))?;
    }
    let rest = session.connect_until_refused(connect, ports)?;
    session.kernel(format!("{} connections, then {}.", grouped((one + rest.opened).into()), refusal(rest.errno())))?;
    session.check(Check::equal(
        format!("connections {what}"),
        ports,
        value(left.map(|left| left + one)),
        one + rest.opened,
    ));
    Ok(())
}
