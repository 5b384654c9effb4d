//! One local port, several destinations: what the kernel does unasked, and what bind() takes away.

use std::net::{SocketAddr, SocketAddrV4};

use rustc_hash::FxHashSet;
use socket2::{Domain, Socket, Type};

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, outcome, refusal},
    session::{Session, value, wait_until_closed},
    stage::{self, LOCALHOST},
    table,
    worker::order::{Bind, Connect, Goodbye},
};
use crate::model::{
    limit::LimitKind,
    units::{TcpState, grouped},
};

pub(super) static LAB: Lab = Lab {
    name: "port-reuse",
    claim: "the kernel gives one local port to several destinations unasked; a bind() before connect() takes that away, \
            unless IP_BIND_ADDRESS_NO_PORT leaves the port to connect()",
    theory: &[
        "connect() chooses a local port when it already knows the destination. A port that is in use towards another \
         destination is as good as a free one: the four numbers still differ. No socket option is needed for that.",
        "bind() with port 0 has to choose before the destination is known. So it takes a port that nobody has, and while \
         it holds the port connect() passes it over, for every destination.",
        "IP_BIND_ADDRESS_NO_PORT (Linux 4.2) lets bind() fix the source address alone and leaves the port to connect(). \
         Programs that choose a source address, such as proxies, want it.",
        "To use a port by its number for two destinations, both sockets need SO_REUSEADDR before bind(). Even so no two \
         connections may have all four numbers the same.",
    ],
    limits: &[LimitKind::Ports],
    scale: Scale { least: 100, usual: 1_000, most: 5_000, shrinks: false },
    needs: |scale| Ok(Needs::of_connections(3 * scale)),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let ports = stage::narrow_range(session.scale)?.size();
    let servers = stage::server_ports(4)?;
    let to: Vec<SocketAddrV4> = servers.iter().map(|port| SocketAddrV4::new(LOCALHOST, *port)).collect();
    let listeners = to[..3].iter().map(|at| stage::listen_long(*at)).collect::<Result<Vec<_>, _>>()?;
    for listener in &listeners {
        session.crew.serve(listener, ports)?;
    }
    unasked(session, &to[..3], ports)?;
    bound_early(session, &to[..2], ports)?;
    bound_late(session, &to[..2], ports)?;
    by_number(session, &to[..2], servers[3])
}

/// Three destinations, no option.
fn unasked(session: &mut Session<'_>, to: &[SocketAddrV4], ports: u32) -> anyhow::Result<()> {
    session.step(format!(
        "Three destinations: {}, {} and {}. connect() has {} ports to give. Connect to each as often as it goes.",
        to[0],
        to[1],
        to[2],
        grouped(ports.into())
    ))?;
    session.theory(format!("Each destination can use every port: {} connections.", grouped((3 * ports).into())))?;
    let mut opened = 0;
    for destination in to {
        opened += session.crew.connect(Connect { to: *destination, most: ports + 1, bind: Bind::Nothing })?.opened;
    }
    let mut used: FxHashSet<u16> = FxHashSet::default();
    table::each(|row| {
        if row.state == TcpState::Established && to.contains(&row.remote) {
            used.insert(row.local.port());
        }
    })?;
    let used = u32::try_from(used.len())?;
    session.kernel(format!("{} connections on {} ports.", grouped(opened.into()), grouped(used.into())))?;
    let counted = session.observed(|it| {
        let rows = it.endpoints.iter().filter(|row| row.key.local_port.is_none());
        Some(rows.map(|row| row.states.get(TcpState::Established)).sum::<u32>())
    })?;
    session.check(Check::equal("connections to three destinations", 3 * ports, value(counted), opened));
    session.check(Check::equal("local ports that they use", ports, None, used));
    end(session)
}

/// bind() to port 0 before connect().
fn bound_early(session: &mut Session<'_>, to: &[SocketAddrV4], ports: u32) -> anyhow::Result<()> {
    session.step("The same, but every client calls bind() with its address and port 0 before it connects.")?;
    session.theory(format!(
        "bind() does not know the destination, so it gives each port once: {} connections, whatever the destination.",
        grouped(ports.into())
    ))?;
    let early = |to| Connect { to, most: ports + 1, bind: Bind::AddressAndPort(LOCALHOST) };
    let first = session.crew.connect(early(to[0]))?;
    session.kernel(format!(
        "To {}: {} connections, then bind(): {}.",
        to[0],
        grouped(first.opened.into()),
        refusal(first.errno())
    ))?;
    let second = session.crew.connect(early(to[1]))?;
    session.kernel(format!("To {}: {}, bind(): {}.", to[1], second.opened, refusal(second.errno())))?;
    let left = session.foretold(LOCALHOST, to[0])?;
    if let Some(left) = left {
        session.observer(format!("{left} ports left for connect(): all of them are taken by bind()."))?;
    }
    let plain = session.crew.connect(Connect { to: to[1], most: 1, bind: Bind::Nothing })?;
    session.kernel(format!("A plain connect() to {}: {}.", to[1], refusal(plain.errno())))?;
    session.check(Check::equal("connections after bind() to port 0", ports, None, first.opened));
    session.check(Check::equal("what ends that", "EADDRINUSE", None, outcome(first.errno())));
    session.check(Check::equal("to another destination after that", 0_u32, None, second.opened));
    session.check(Check::equal("a plain connect() after that", 0_u32, value(left), plain.opened));
    end(session)
}

/// `IP_BIND_ADDRESS_NO_PORT`.
fn bound_late(session: &mut Session<'_>, to: &[SocketAddrV4], ports: u32) -> anyhow::Result<()> {
    session.step("The same bind(), but with the socket option IP_BIND_ADDRESS_NO_PORT.")?;
    session.theory(format!(
        "bind() fixes the address alone, connect() chooses the port: {} connections to each destination again.",
        grouped(ports.into())
    ))?;
    for (destination, name) in to.iter().zip(["the first", "the second"]) {
        let late = Connect { to: *destination, most: 1, bind: Bind::Address(LOCALHOST) };
        let one = session.crew.connect(late)?.opened;
        let left = session.foretold(LOCALHOST, *destination)?;
        let rest = session.crew.connect(Connect { most: ports + 1, ..late })?;
        if let Some(left) = left {
            session.observer(format!("After one connection to {destination}: {} left.", grouped(left.into())))?;
        }
        session.kernel(format!("To {destination}: {} connections.", grouped((one + rest.opened).into())))?;
        session.check(Check::equal(
            format!("with the option, to {name} destination"),
            ports,
            value(left.map(|left| left + one)),
            one + rest.opened,
        ));
    }
    end(session)
}

/// A port by its number, with and without `SO_REUSEADDR`.
fn by_number(session: &mut Session<'_>, to: &[SocketAddrV4], port: u16) -> anyhow::Result<()> {
    session.step(format!("Now by hand: two sockets are to use the same local port, {port}, for two destinations."))?;
    session.theory("bind() of the second fails, unless both have set SO_REUSEADDR.")?;
    let plain = bound(port, false)?;
    plain.connect(&to[0].into())?;
    let refused = bound(port, false).err().and_then(|error| error.raw_os_error());
    session.kernel(format!("Without SO_REUSEADDR bind() of the second: {}.", refusal(refused)))?;
    session.check(Check::equal("the same port by bind()", "EADDRINUSE", None, outcome(refused)));
    plain.set_linger(Some(std::time::Duration::ZERO))?;
    drop(plain);

    let (first, second, third) = (bound(port, true)?, bound(port, true)?, bound(port, true)?);
    first.connect(&to[0].into())?;
    let other = second.connect(&to[1].into()).err().and_then(|error| error.raw_os_error());
    let same = third.connect(&to[0].into()).err().and_then(|error| error.raw_os_error());
    session.kernel(format!("With it both bind; connect() to the other destination: {}.", refusal(other)))?;
    session.theory("A third one, to the first destination, would have the same four numbers as the first.")?;
    session.kernel(format!("connect(): {}.", refusal(same)))?;
    session.check(Check::equal("with SO_REUSEADDR, another destination", "works", None, outcome(other)));
    session.check(Check::equal("with SO_REUSEADDR, the same four numbers", "EADDRNOTAVAIL", None, outcome(same)));
    Ok(())
}

fn bound(port: u16, reuse_address: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(reuse_address)?;
    socket.bind(&SocketAddr::from((LOCALHOST, port)).into())?;
    Ok(socket)
}

fn end(session: &mut Session<'_>) -> anyhow::Result<()> {
    session.crew.close(Goodbye::Reset)?;
    wait_until_closed()
}
