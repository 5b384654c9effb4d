//! The accept queue, and what each side believes when it is full.

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

/// What listen() is given.
const BACKLOG: u32 = 4;

pub(super) static LAB: Lab = Lab {
    name: "backlog",
    claim: "a full accept queue refuses nobody: clients in it believe to be connected, clients behind it wait and retry",
    theory: &[
        "The kernel completes handshakes by itself and puts the connections into the listener's accept queue. accept() \
         only takes them out. The queue holds listen()'s backlog and one more, at most net.core.somaxconn and one more.",
        "A client whose connection is in the queue has connected: it may send, although the server's program knows \
         nothing of it yet.",
        "When the queue is full, the kernel throws the client's SYN away and says nothing. The client stays in SYN_SENT \
         and tries again after 1 second, 2, 4, ...; the kernel counts ListenOverflows and ListenDrops.",
        "So a slow server is seen by its clients as a slow network. The remedy is to call accept() faster; a longer queue \
         only helps against bursts.",
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

    session.step(format!("A server calls listen() on {at} with a backlog of {BACKLOG}, and then never accept()."))?;
    session.theory(format!("Its accept queue holds {queued} connections: the backlog and one more."))?;
    let listener = listen(at, i32::try_from(BACKLOG)?)?;
    listener.set_nonblocking(true)?;

    session.step(format!("{clients} clients connect."))?;
    session.theory(format!(
        "{queued} will believe to be connected, {waiting} will wait in SYN_SENT. None gets an error."
    ))?;
    let (overflows, drops) = (stage::counter("ListenOverflows")?, stage::counter("ListenDrops")?);
    let sockets = (0..clients).map(|_| start_connect(at)).collect::<Result<Vec<_>, _>>()?;
    wait_until("the SYNs of all clients", || {
        Ok(states(at)?[1] == u64::from(waiting) || states(at)?[0] == u64::from(queued))
    })?;
    let [established, syn_sent] = states(at)?;
    session.kernel(format!("{established} clients are ESTABLISHED, {syn_sent} are in SYN_SENT."))?;
    let seen = session.observed(|it| Some((outbound(it, TcpState::Established)?, outbound(it, TcpState::SynSent)?)))?;
    session.check(Check::equal(
        "clients that believe to be connected",
        queued,
        value(seen.map(|seen| seen.0)),
        established,
    ));
    session.check(Check::equal("clients that wait in SYN_SENT", waiting, value(seen.map(|seen| seen.1)), syn_sent));

    session.step("What the clients can do, and what the kernel counts.")?;
    session.theory("Who is in the queue can send already. Who is not was dropped without a word.")?;
    let mut silent: Vec<&Socket> = sockets.iter().collect();
    let can_send = u32::try_from(say_hello(&mut silent)?)?;
    let (overflows, drops) = (stage::counter("ListenOverflows")? - overflows, stage::counter("ListenDrops")? - drops);
    session.kernel(format!(
        "{can_send} clients have sent data that no program will read for now. SYNs thrown away so far: {drops} \
         (ListenOverflows {overflows})."
    ))?;
    let in_queue = session.observed(|it| queue(it, at))?;
    if let Some(in_queue) = in_queue {
        session.observer(format!("the accept queue of {at} has {in_queue} of {queued}: full."))?;
    }
    session.check(Check::equal("clients that can send", queued, None, can_send));
    session.check(Check::above("SYNs thrown away", u64::from(waiting) - 1, drops));

    session.step("At last the server calls accept() until nothing is there.")?;
    let mut accepted = accept_all(&listener)?;
    let first = u32::try_from(accepted.len())?;
    session.kernel(format!("accept() gave {first} connections: that was the queue."))?;
    session.check(Check::equal("connections in the queue", queued, value(in_queue), first));
    session.theory(format!("The other {waiting} try again by themselves, a second or more after their last SYN."))?;
    wait_until("the clients that try again", || {
        // Under a flood of SYNs the kernel keeps no note of them (SYN cookies): a client may believe to be connected
        // before the server's end exists. What it sends then makes it.
        say_hello(&mut silent)?;
        accepted.extend(accept_all(&listener)?);
        Ok(accepted.len() >= sockets.len())
    })?;
    session.kernel(format!(
        "All {} clients are served now. None was ever told that there was a problem.",
        accepted.len()
    ))?;
    session.check(Check::equal("served in the end", clients, None, u32::try_from(accepted.len())?));
    for client in sockets {
        client.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// A client that does not wait for its connect().
fn start_connect(to: SocketAddrV4) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SocketAddr::from(to).into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Lets clients send that have not yet; those that still cannot remain. Returns how many have sent.
fn say_hello(silent: &mut Vec<&Socket>) -> std::io::Result<usize> {
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

/// All that wait in the queue.
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

/// How many clients of a server are in ESTABLISHED and in SYN_SENT, by the kernel's table.
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
