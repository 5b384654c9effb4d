//! The myth: a port has 16 bits, so a server can have 65,536 connections.

use std::net::SocketAddrV4;

use rustc_hash::FxHashSet;

use super::{
    Lab, Scale, anywhere, million,
    report::Check,
    session::{Session, inbound, value},
    stage::{self, LOCALHOST},
    table,
};
use crate::model::{
    limit::LimitKind,
    units::{TcpState, grouped},
};

/// The number of values of a port number.
const MYTH: u32 = 1 << 16;

pub(super) static LAB: Lab = Lab {
    name: "myth",
    claim: "one listening port holds more than 65,536 connections at the same time",
    theory: &[
        "Four numbers identify a connection: local ip, local port, remote ip, remote port. Two connections are \
         different when one of the four differs.",
        "All connections to one listener share its ip and its port. Only the client's ip and port distinguish them: \
         2^32 addresses with 2^16 ports each make 2^48 (281,474,976,710,656) connections to one listening port.",
        "65,536 limits something else: the connections from ONE client address to ONE server address, where only the \
         client's port can differ. Linux gives a client fewer than that (see client-ceiling).",
    ],
    limits: &[LimitKind::Ports, LimitKind::ProcessFiles],
    scale: Scale { least: MYTH + 1, usual: 100_000, most: 500_000, shrinks: false },
    needs: million::needs,
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let connections = session.scale;
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let range = stage::range()?;
    let requests = million::plan(connections, at, range);

    session.step(format!("A server listens on ONE address and ONE port: {at}."))?;
    session.theory(
        "The myth: a port number has 16 bits, so 65,536 connections are the limit. The rule: four numbers identify a \
         connection, and two of them are the client's.",
    )?;
    let listener = stage::listen_long(at)?;
    session.workers.serve(&listener, connections)?;
    session.kernel("It listens. It needs one socket and one port for that, and no further port.")?;

    session.step(format!(
        "Clients at {} addresses connect to it: {} connections in all.",
        requests.len(),
        grouped(connections.into())
    ))?;
    session.theory(format!(
        "Each client address has its own {} ports here (ip_local_port_range {}-{}). {} addresses have {} together: \
         more than enough.",
        grouped(range.size().into()),
        range.low,
        range.high,
        requests.len(),
        grouped(u64::from(range.size()) * requests.len() as u64)
    ))?;
    let opened = session.connect_at_once(at, &requests)?;
    session.kernel(format!("{} connect()s succeeded. None failed at 65,536.", grouped(opened.into())))?;

    session.step("All connections stay open. Count them in independent ways.")?;
    let accepted = session.workers.accepted(connections)?;
    let mut clients: FxHashSet<SocketAddrV4> = FxHashSet::default();
    table::each(|row| {
        if row.local == at && row.state == TcpState::Established {
            clients.insert(row.remote);
        }
    })?;
    let different = u32::try_from(clients.len())?;
    let ends = stage::read().established_or_close_wait.unwrap_or(0);
    let live = session.live(|it| inbound(it, at).map(|row| row.states.get(TcpState::Established)))?;
    let counted = session.observed(|it| inbound(it, at).map(|row| row.states.get(TcpState::Established)))?;
    session.kernel(format!("accept() gave the server {} connections.", grouped(accepted.count.into())))?;
    session.kernel(format!(
        "/proc/net/tcp lists {} different clients of {at}. CurrEstab counts {} ends: two for each connection.",
        grouped(different.into()),
        grouped(ends.into())
    ))?;
    if let Some((live, counted)) = live.zip(counted) {
        session.observer(format!(
            "{} connections from eBPF events alone, {} after a scan of the kernel's table.",
            grouped(live.into()),
            grouped(counted.into())
        ))?;
    }
    session.check(Check::above(format!("connections on {at}"), MYTH.into(), different.into()));
    session.check(Check::equal("different clients in /proc/net/tcp", connections, value(counted), different));
    session.check(Check::equal("accepted by the server", connections, value(counted), accepted.count));
    session.check(Check::equal("ends in CurrEstab", 2 * connections, None, ends));
    session.check(Check::equal(
        "local addresses of accepted sockets",
        1_u32,
        None,
        u32::try_from(accepted.locals.len())?,
    ));
    Ok(())
}
