//! The four numbers of a connection, changed one at a time, and the fifth: the protocol.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use socket2::{Domain, Socket, Type};

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, outcome, refusal},
    session::{Session, value},
    stage::{self, LOCALHOST},
};
use crate::model::{
    limit::LimitKind,
    units::{TcpState, grouped, grouped_digits},
};

pub(super) static LAB: Lab = Lab {
    name: "four-tuple",
    claim: "two connections need to differ in only one of four numbers: local ip, local port, remote ip, remote port",
    theory: &[
        "The kernel finds a packet's socket with four numbers: local ip, local port, remote ip, remote port. Two \
         connections may share any three of them.",
        "An IPv4 address has 32 bits and a port has 16. With all four numbers free: 2^(32+16+32+16) = 2^96 \
         connections. With ONE local ip: 2^64. With one local ip and port, as a listener has: 2^48. With the remote ip \
         fixed too: 2^16 = 65,536. The myth comes from there.",
        "There is a fifth number: the protocol. TCP and UDP have separate tables. Both can use the same four numbers \
         at the same time.",
    ],
    limits: &[LimitKind::Ports],
    scale: Scale { least: 5, usual: 5, most: 5, shrinks: false },
    needs: |scale| Ok(Needs { processes: 0, ..Needs::of_connections(scale) }),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let ports = stage::server_ports(4)?;
    let (server, other_server, client_port, other_port) = (ports[0], ports[1], ports[2], ports[3]);
    let (a, b, c, d) =
        (LOCALHOST, Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4));

    session.step("How many connections are possible? The arithmetic, with this namespace's numbers.")?;
    for (power, number, words) in [
        (96, 1_u128 << 96, "all four numbers free"),
        (64, 1 << 64, "one local ip"),
        (48, 1 << 48, "one local ip and port: a listener"),
        (16, 1 << 16, "one local ip and port, one remote ip: the myth"),
    ] {
        session.theory(format!("2^{power} = {} ({words})", grouped_digits(&number.to_string())))?;
    }
    session.kernel(format!(
        "connect() chooses the client's port from {} ports here (ip_local_port_range): that many connections from one \
         ip to one destination.",
        grouped(stage::range()?.size().into())
    ))?;

    let listeners =
        [(b, server), (b, other_server), (d, server)].map(|(ip, port)| stage::listen_long(SocketAddrV4::new(ip, port)));
    let listeners = listeners.into_iter().collect::<Result<Vec<_>, _>>()?;
    let base = (SocketAddrV4::new(a, client_port), SocketAddrV4::new(b, server));
    session.step(format!(
        "A first connection: {} -> {}. Then others, each of which differs from it in ONE number.",
        base.0, base.1
    ))?;
    session.theory("Each is another connection: all work.")?;
    let mut open = Vec::new();
    for (what, from, to) in [
        ("the first connection", base.0, base.1),
        ("another local ip", SocketAddrV4::new(c, client_port), base.1),
        ("another local port", SocketAddrV4::new(a, other_port), base.1),
        ("another remote ip", base.0, SocketAddrV4::new(d, server)),
        ("another remote port", base.0, SocketAddrV4::new(b, other_server)),
    ] {
        let connected = connect(from, to);
        let errno = connected.as_ref().err().and_then(std::io::Error::raw_os_error);
        session.kernel(format!("{from} -> {to}: {} ({what}).", refusal(errno)))?;
        session.check(Check::equal(what, "works", None, outcome(errno)));
        open.extend(connected);
    }
    let counted = session.observed(|it| {
        let rows = it.endpoints.iter().filter(|row| row.key.local_port.is_none());
        Some(rows.map(|row| row.states.get(TcpState::Established)).sum::<u32>())
    })?;
    if let Some(counted) = counted {
        session.observer(format!("{counted} connections."))?;
    }
    session.check(Check::equal("connections at the same time", 5_u32, value(counted), u32::try_from(open.len())?));

    session.step("And one that differs in NO number.")?;
    session.theory("The kernel could not distinguish its packets from the first connection's: it refuses.")?;
    let errno = connect(base.0, base.1).err().and_then(|error| error.raw_os_error());
    session.kernel(format!("{} -> {} a second time: {}.", base.0, base.1, refusal(errno)))?;
    session.check(Check::equal("the same four numbers again", "EADDRNOTAVAIL", None, outcome(errno)));

    session.step("The fifth number: UDP uses the same four numbers while TCP uses them.")?;
    session.theory("TCP and UDP have separate tables: it works.")?;
    let errno = datagrams(base.0, base.1).err().and_then(|error| error.raw_os_error());
    session.kernel(format!("UDP {} -> {}: {}.", base.0, base.1, refusal(errno)))?;
    session.check(Check::equal("the same four numbers over UDP", "works", None, outcome(errno)));
    drop((open, listeners));
    Ok(())
}

/// Opens a connection between these addresses. Several connections may bind the same one.
fn connect(from: SocketAddrV4, to: SocketAddrV4) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Sends a datagram between these addresses and receives it.
fn datagrams(from: SocketAddrV4, to: SocketAddrV4) -> std::io::Result<()> {
    let server = UdpSocket::bind(to)?;
    server.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let client = UdpSocket::bind(from)?;
    client.connect(to)?;
    client.send(b"hello")?;
    match server.recv_from(&mut [0; 8])? {
        (5, peer) if peer == from.into() => Ok(()),
        other => Err(std::io::Error::other(format!("received another datagram: {other:?}"))),
    }
}
