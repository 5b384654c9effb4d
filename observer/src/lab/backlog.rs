//! A full accept queue, as the clients and the server see it.

use std::{
    io::ErrorKind,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::Check,
    session::{Session, queue, value, wait_until},
    stage::{self, LOCALHOST, listen},
    table,
};
use crate::model::{
    limit::LimitKind,
    snapshot::{Direction, Snapshot},
    units::TcpState,
};

/// The backlog of listen().
const BACKLOG: u32 = 4;

pub(super) static LAB: Lab = Lab {
    name: "backlog",
    claim: "a full accept queue refuses nobody: clients in the queue are connected, later clients wait and retry",
    theory: &[
        "The kernel completes handshakes itself and puts the connections into the listener's accept queue. accept() \
         only takes them out. The queue holds backlog + 1 connections, at most net.core.somaxconn + 1.",
        "A client whose connection is in the queue is connected. It may send data, although the server program does \
         not know the connection yet.",
        "When the queue is full, the kernel drops the client's SYN and sends no answer. The client stays in SYN_SENT \
         and retries after 1, 2, 4, ... seconds. The kernel counts ListenOverflows and ListenDrops.",
        "To its clients, a slow server looks like a slow network. Call accept() faster. A longer queue \
         only helps with bursts.",
    ],
    limits: &[LimitKind::AcceptQueue, LimitKind::SynQueue],
    scale: Scale { least: 8, usual: 12, most: 100, shrinks: false },
    needs: |scale| Ok(Needs { processes: 0, ..Needs::of_connections(scale) }),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let clients = session.scale;
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let limit = stage::read().somaxconn.unwrap_or(BACKLOG).min(BACKLOG);
    let (queued, waiting) = (limit + 1, clients - limit - 1);

    session.step(format!("A server calls listen() on {at} with a backlog of {BACKLOG}, and never calls accept()."))?;
    session.theory(format!("Its accept queue holds {queued} connections: backlog + 1."))?;
    let listener = listen(at, i32::try_from(BACKLOG)?)?;
    listener.set_nonblocking(true)?;

    session.step(format!("{clients} clients connect."))?;
    session.theory(format!("{queued} clients get a connection, {waiting} wait in SYN_SENT. None gets an error."))?;
    let (overflows, drops) = (stage::counter("ListenOverflows")?, stage::counter("ListenDrops")?);
    let sockets = (0..clients).map(|_| start_connect(at)).collect::<Result<Vec<_>, _>>()?;
    wait_until("the SYNs of all clients", || {
        Ok(states(at)?[1] == u64::from(waiting) || states(at)?[0] == u64::from(queued))
    })?;
    let [established, syn_sent] = states(at)?;
    session.kernel(format!("{established} clients are ESTABLISHED, {syn_sent} are in SYN_SENT."))?;
    let counted =
        session.observed(|it| Some((outbound(it, TcpState::Established)?, outbound(it, TcpState::SynSent)?)))?;
    session.check(Check::equal("clients in ESTABLISHED", queued, value(counted.map(|it| it.0)), established));
    session.check(Check::equal("clients in SYN_SENT", waiting, value(counted.map(|it| it.1)), syn_sent));

    session.step("What can the clients do, and what does the kernel count?")?;
    session.theory("Clients in the queue can send data already. The kernel has dropped the SYNs of the others.")?;
    let mut silent: Vec<&Socket> = sockets.iter().collect();
    let can_send = u32::try_from(send_hello(&mut silent)?)?;
    let (overflows, drops) = (stage::counter("ListenOverflows")? - overflows, stage::counter("ListenDrops")? - drops);
    session.kernel(format!(
        "{can_send} clients have sent data that no program reads yet. SYNs dropped so far: {drops} \
         (ListenOverflows {overflows})."
    ))?;
    let in_queue = session.observed(|it| queue(it, at))?;
    if let Some(in_queue) = in_queue {
        session.observer(format!("the accept queue of {at} holds {in_queue} of {queued} connections: full."))?;
    }
    session.check(Check::equal("clients that can send", queued, None, can_send));
    session.check(Check::above("SYNs dropped", u64::from(waiting) - 1, drops));

    session.step("Now the server calls accept() until the queue is empty.")?;
    let mut accepted = accept_all(&listener)?;
    let first = u32::try_from(accepted.len())?;
    session.kernel(format!("accept() gave {first} connections: the whole queue."))?;
    session.check(Check::equal("connections in the queue", queued, value(in_queue), first));
    session
        .theory(format!("The other {waiting} clients retry by themselves, a second or more after their last SYN."))?;
    wait_until("the clients that retry", || {
        // Under a flood of SYNs the kernel stores none of them (SYN cookies). A client may then be ESTABLISHED before
        // the server's end exists. Data from the client creates that end.
        send_hello(&mut silent)?;
        accepted.extend(accept_all(&listener)?);
        Ok(accepted.len() >= sockets.len())
    })?;
    session.kernel(format!("The server has accepted all {} clients. No client ever got an error.", accepted.len()))?;
    session.check(Check::equal("accepted in the end", clients, None, u32::try_from(accepted.len())?));
    for client in sockets {
        client.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// A client whose connect() does not block.
fn start_connect(to: SocketAddrV4) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SocketAddr::from(to).into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Sends data from each client in `silent` and removes those that succeed. Returns how many did.
fn send_hello(silent: &mut Vec<&Socket>) -> std::io::Result<usize> {
    let before = silent.len();
    let mut still = Vec::new();
    for client in silent.drain(..) {
        match client.send(b"hello") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => still.push(client),
            Err(error) => return Err(error),
        }
    }
    *silent = still;
    Ok(before - silent.len())
}

/// All connections of the queue.
fn accept_all(listener: &Socket) -> std::io::Result<Vec<Socket>> {
    let mut accepted = Vec::new();
    loop {
        match listener.accept() {
            Ok((socket, _)) => accepted.push(socket),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(accepted),
            Err(error) => return Err(error),
        }
    }
}

/// How many clients of a server are in ESTABLISHED and in SYN_SENT, from the kernel's table.
fn states(server: SocketAddrV4) -> std::io::Result<[u64; 2]> {
    let mut counts = [0; 2];
    table::each(|row| {
        if row.remote == server {
            counts[0] += u64::from(row.state == TcpState::Established);
            counts[1] += u64::from(row.state == TcpState::SynSent);
        }
    })?;
    Ok(counts)
}

/// How many clients are in a state, as observer counts.
fn outbound(snapshot: &Snapshot, state: TcpState) -> Option<u32> {
    let row = snapshot.endpoints.iter().find(|row| row.key.direction == Direction::Outbound)?;
    Some(row.states.get(state))
}
