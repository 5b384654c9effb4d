//! accept() takes a file descriptor and no port.

use std::net::SocketAddrV4;

use rustc_hash::FxHashSet;

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, outcome, refusal},
    session::{Session, inbound, value},
    stage::{self, LOCALHOST},
    table,
    worker::request::{ClientBind, Connect},
};
use crate::model::{
    limit::LimitKind,
    units::{TcpState, grouped},
};

pub(super) static LAB: Lab = Lab {
    name: "accept",
    claim: "accepted connections share the listener's address and take no port of their own",
    theory: &[
        "accept() makes a new socket for each connection, but no new address. The socket has the listener's local ip \
         and port. `ss` and getsockname() show it.",
        "connect() chooses ephemeral ports (ip_local_port_range), at the client. A server that only accepts uses \
         none, however many clients it has. Each accepted connection takes a file descriptor and memory.",
        "A proxy does both. It accepts from its users and uses no port for them. It connects to its backends and uses \
         one port for each connection.",
    ],
    limits: &[LimitKind::ProcessFiles, LimitKind::AcceptQueue],
    scale: Scale { least: 10, usual: 1_000, most: 10_000, shrinks: false },
    needs: |scale| Ok(Needs::of_connections(scale)),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let range = stage::narrow_range(session.scale)?;
    let ports = range.size();
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let all = Connect { to: at, most: ports, bind: ClientBind::Nothing };

    session.step(format!(
        "In this namespace connect() has only {} ports: {}-{}. A server listens on {at}, outside that range.",
        grouped(ports.into()),
        range.low,
        range.high
    ))?;
    session.theory("If accept() took a port of this range, server and clients would share it: half for each.")?;
    let listener = stage::listen_long(at)?;
    session.workers.serve(&listener, ports)?;

    session.step(format!("Clients connect {} times: once for each port of the range.", grouped(ports.into())))?;
    let opened = session.workers.connect(all)?.opened;
    let accepted = session.workers.accepted(opened)?;
    session.kernel(format!(
        "{} connect()s succeeded, and accept() gave the server {} sockets.",
        grouped(opened.into()),
        grouped(accepted.count.into())
    ))?;
    let counted = session.observed(|it| inbound(it, at).map(|row| row.states.get(TcpState::Established)))?;
    if let Some(counted) = counted {
        session.observer(format!("ONE row for the server, {at}, with {} connections.", grouped(counted.into())))?;
    }

    session
        .step("Look at the addresses: getsockname() of each accepted socket, and every port in the kernel's table.")?;
    let mut local_ports: FxHashSet<u16> = FxHashSet::default();
    let mut sockets = 0_u32;
    table::each(|row| {
        sockets += 1;
        local_ports.insert(row.local.port());
    })?;
    let different = u32::try_from(local_ports.len())?;
    let addresses = u32::try_from(accepted.locals.len())?;
    session.theory(format!("{} ports for the clients and 1 for the server.", grouped(ports.into())))?;
    session.kernel(format!(
        "{} sockets use {} different local ports. All accepted sockets have the same address: {}.",
        grouped(sockets.into()),
        grouped(different.into()),
        accepted.locals.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    ))?;

    session.step("The clients use the whole range. One more connect():")?;
    let left = session.predicted(LOCALHOST, at)?;
    if let Some(left) = left {
        session.observer(format!("{left} ports left towards {at}."))?;
    }
    let one_more = session.workers.connect(Connect { most: 1, ..all })?;
    session.kernel(format!("connect(): {}.", refusal(one_more.errno())))?;

    session.check(Check::equal("connections accepted", ports, value(counted), accepted.count));
    session.check(Check::equal("addresses of the accepted sockets", 1_u32, None, addresses));
    session.check(Check::equal("different local ports in use", ports + 1, None, different));
    let predicted = left.map(|left| if left == 0 { "EADDRNOTAVAIL" } else { "works" }.into());
    session.check(Check::equal("one more connect()", "EADDRNOTAVAIL", predicted, outcome(one_more.errno())));
    Ok(())
}
