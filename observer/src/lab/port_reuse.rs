//! One local port for several destinations: the kernel does it by default, and bind() prevents it.

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
    worker::request::{ClientBind, CloseWith, Connect},
};
use crate::model::{
    limit::LimitKind,
    units::{TcpState, grouped},
};

pub(super) static LAB: Lab = Lab {
    name: "port-reuse",
    claim: "the kernel uses one local port for several destinations by default; a bind() before connect() prevents \
            that, unless IP_BIND_ADDRESS_NO_PORT leaves the port to connect()",
    theory: &[
        "connect() knows the destination when it chooses a local port. A port that is in use towards another \
         destination is as good as a free one: the four numbers still differ. No socket option is needed.",
        "bind() with port 0 must choose before it knows the destination. It takes a port that no socket has. While the \
         socket keeps the port, connect() skips that port for every destination.",
        "IP_BIND_ADDRESS_NO_PORT (Linux 4.2) lets bind() fix the source address alone and leaves the port to \
         connect(). Programs that choose a source address, such as proxies, need it.",
        "To bind the same port number for two destinations, both sockets need SO_REUSEADDR before bind(). Even then no \
         two connections may share all four numbers.",
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
        session.workers.serve(listener, ports)?;
    }
    by_default(session, &to[..3], ports)?;
    bind_before_connect(session, &to[..2], ports)?;
    bind_address_no_port(session, &to[..2], ports)?;
    by_number(session, &to[..2], servers[3])
}

/// Three destinations, no socket option.
fn by_default(session: &mut Session<'_>, to: &[SocketAddrV4], ports: u32) -> anyhow::Result<()> {
    session.step(format!(
        "Three destinations: {}, {} and {}. connect() has {} ports. Connect to each destination until the kernel \
         refuses.",
        to[0],
        to[1],
        to[2],
        grouped(ports.into())
    ))?;
    session.theory(format!("Each destination can use every port: {} connections.", grouped((3 * ports).into())))?;
    let mut opened = 0;
    for destination in to {
        opened +=
            session.workers.connect(Connect { to: *destination, most: ports + 1, bind: ClientBind::Nothing })?.opened;
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
fn bind_before_connect(session: &mut Session<'_>, to: &[SocketAddrV4], ports: u32) -> anyhow::Result<()> {
    session.step("The same, but every client calls bind() with its address and port 0 before connect().")?;
    session.theory(format!(
        "bind() does not know the destination. It gives each port once: {} connections, whatever the destination.",
        grouped(ports.into())
    ))?;
    let with_bind = |to| Connect { to, most: ports + 1, bind: ClientBind::AddressAndPort(LOCALHOST) };
    let first = session.workers.connect(with_bind(to[0]))?;
    session.kernel(format!(
        "To {}: {} connections, then bind(): {}.",
        to[0],
        grouped(first.opened.into()),
        refusal(first.errno())
    ))?;
    let second = session.workers.connect(with_bind(to[1]))?;
    session.kernel(format!("To {}: {}, bind(): {}.", to[1], second.opened, refusal(second.errno())))?;
    let left = session.predicted(LOCALHOST, to[0])?;
    if let Some(left) = left {
        session.observer(format!("{left} ports left for connect(): bind() has taken them."))?;
    }
    let plain = session.workers.connect(Connect { to: to[1], most: 1, bind: ClientBind::Nothing })?;
    session.kernel(format!("A plain connect() to {}: {}.", to[1], refusal(plain.errno())))?;
    session.check(Check::equal("connections after bind() to port 0", ports, None, first.opened));
    session.check(Check::equal("the bind() after these", "EADDRINUSE", None, outcome(first.errno())));
    session.check(Check::equal("then to another destination", 0_u32, None, second.opened));
    session.check(Check::equal("then a plain connect()", 0_u32, value(left), plain.opened));
    end(session)
}

/// `IP_BIND_ADDRESS_NO_PORT`.
fn bind_address_no_port(session: &mut Session<'_>, to: &[SocketAddrV4], ports: u32) -> anyhow::Result<()> {
    session.step("The same bind(), but with the socket option IP_BIND_ADDRESS_NO_PORT.")?;
    session.theory(format!(
        "bind() fixes the address alone, and connect() chooses the port: {} connections to each destination again.",
        grouped(ports.into())
    ))?;
    for (destination, name) in to.iter().zip(["the first", "the second"]) {
        let connect = Connect { to: *destination, most: 1, bind: ClientBind::Address(LOCALHOST) };
        let one = session.workers.connect(connect)?.opened;
        let left = session.predicted(LOCALHOST, *destination)?;
        let rest = session.workers.connect(Connect { most: ports + 1, ..connect })?;
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

/// The same port number twice, with and without `SO_REUSEADDR`.
fn by_number(session: &mut Session<'_>, to: &[SocketAddrV4], port: u16) -> anyhow::Result<()> {
    session.step(format!("Now two sockets bind the same local port number, {port}, for two destinations."))?;
    session.theory("bind() of the second socket fails, unless both have set SO_REUSEADDR.")?;
    let plain = bound(port, false)?;
    plain.connect(&to[0].into())?;
    let refused = bound(port, false).err().and_then(|error| error.raw_os_error());
    session.kernel(format!("Without SO_REUSEADDR, bind() of the second socket: {}.", refusal(refused)))?;
    session.check(Check::equal("the same port number by bind()", "EADDRINUSE", None, outcome(refused)));
    plain.set_linger(Some(std::time::Duration::ZERO))?;
    drop(plain);

    let (first, second, third) = (bound(port, true)?, bound(port, true)?, bound(port, true)?);
    first.connect(&to[0].into())?;
    let other = second.connect(&to[1].into()).err().and_then(|error| error.raw_os_error());
    let same = third.connect(&to[0].into()).err().and_then(|error| error.raw_os_error());
    session.kernel(format!("With it, both bind. connect() to the other destination: {}.", refusal(other)))?;
    session.theory("A third socket to the first destination would have the same four numbers as the first.")?;
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
    session.workers.close(CloseWith::Reset)?;
    wait_until_closed()
}
