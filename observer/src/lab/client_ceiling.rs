//! Where a client really ends: the ephemeral ports towards one destination.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, outcome, refusal},
    session::{Session, value},
    stage::{self, LOCALHOST},
    worker::order::{Bind, Connect},
};
use crate::model::{limit::LimitKind, units::grouped};

pub(super) static LAB: Lab = Lab {
    name: "client-ceiling",
    claim: "one client address opens as many connections to one destination as its port range has ports, and no more; a \
            second destination or a second client address gives the whole range again",
    theory: &[
        "Between one client address and one destination (ip and port), three of the four numbers are fixed. Only the \
         client's port is left, and connect() chooses it from net.ipv4.ip_local_port_range, less the ports of \
         ip_local_reserved_ports and those that somebody took by bind() or listen().",
        "When none is left, connect() fails at once with EADDRNOTAVAIL. Nothing is sent.",
        "The bound is for each destination on its own. Another destination port, another destination ip or another client \
         ip changes one of the fixed numbers, and all ports can be used once more.",
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

    session.step(format!("A client at {LOCALHOST}, a server at {first}. One connection to begin with."))?;
    if range != before {
        session.theory(format!(
            "--scale has narrowed the port range of this namespace from {}-{} to {}-{}.",
            before.low, before.high, range.low, range.high
        ))?;
    }
    session.theory(format!(
        "ip_local_port_range is {}-{}, {reserved} of them reserved: {} connections, no more.",
        range.low,
        range.high,
        grouped(ports.into())
    ))?;
    let listeners = [stage::listen_long(first)?, stage::listen_long(second)?];
    session.crew.serve(&listeners[0], 2 * ports)?;
    session.crew.serve(&listeners[1], ports)?;
    let one = session.crew.connect(Connect { to: first, most: 1, bind: Bind::Nothing })?.opened;
    let left = session.foretold(LOCALHOST, first)?;
    if let Some(left) = left {
        session.observer(format!("{} more connect()s will succeed, then EADDRNOTAVAIL.", grouped(left.into())))?;
    }

    session.step("Connect until the kernel refuses. From the middle on it gets slow: see the lab `cliff`.")?;
    let rest = session.connect_until_refused(Connect { to: first, most: 0, bind: Bind::Nothing }, ports)?;
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
    let foretold =
        session.foretold(LOCALHOST, first)?.map(|left| if left == 0 { "EADDRNOTAVAIL" } else { "works" }.into());
    session.check(Check::equal("the next connect()", "EADDRNOTAVAIL", foretold, outcome(rest.errno())));

    session.step(format!("The client has no port left for {first}. Now a second destination: {second}."))?;
    session.theory("The destination's port is another: every local port can be used a second time.")?;
    again(session, "a second destination", Connect { to: second, most: ports, bind: Bind::Nothing }, LOCALHOST, ports)?;

    session.step(format!("Back to the first destination, {first}, from a second client address: {other_source}."))?;
    session.theory("The client's ip is another: every local port can be used a third time.")?;
    let connect = Connect { to: first, most: ports, bind: Bind::Address(other_source) };
    again(session, "from a second address", connect, other_source, ports)
}

/// Connects until it is refused, and compares that with what was foretold after the first connection.
fn again(session: &mut Session<'_>, what: &str, connect: Connect, from: Ipv4Addr, ports: u32) -> anyhow::Result<()> {
    let one = session.crew.connect(Connect { most: 1, ..connect })?.opened;
    let left = session.foretold(from, connect.to)?;
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
