//! The limit of file descriptors of a process.

use std::net::SocketAddrV4;

use super::{
    Lab, Scale, anywhere,
    needs::Needs,
    report::{Check, outcome, refusal},
    session::{Session, queue, value},
    stage::{self, LOCALHOST},
    table,
    worker::{
        Role,
        order::{Bind, Connect},
    },
};
use crate::model::{
    failure::FailureKind,
    limit::{Limit, LimitKind, Scope},
    snapshot::Snapshot,
    units::{Pid, TcpState},
};

pub(super) static LAB: Lab = Lab {
    name: "fd-limit",
    claim: "a process ends at its own limit of file descriptors (ulimit -n), long before any number of ports does",
    theory: &[
        "Every socket is a file descriptor of its process. The soft RLIMIT_NOFILE (`ulimit -n`) bounds them: often 1,024. \
         At the limit socket(), accept() and open() fail with EMFILE, \"too many open files\".",
        "A server at its limit does not refuse its clients. The kernel completes their handshakes and puts them into the \
         accept queue: they believe to be connected, and wait.",
        "The limit belongs to one process, and can be raised while it runs (prlimit), up to its hard limit. Other \
         processes have limits of their own. All together are bounded by fs.file-max (see file-max).",
    ],
    limits: &[LimitKind::ProcessFiles, LimitKind::HostFiles],
    scale: Scale { least: 32, usual: 64, most: 1_000, shrinks: false },
    needs: |scale| Ok(Needs::of_connections(2 * scale)),
    may_run: anywhere,
    run,
};

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let limit = session.scale;
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let listener = stage::listen_long(at)?;
    session.crew.serve(&listener, 4 * limit)?;

    session.step(format!("A client process whose limit is {limit} descriptors connects as often as it can."))?;
    let (client, open) = session.crew.limit_files(Role::Client, limit.into())?;
    let open = u32::try_from(open)?;
    session
        .theory(format!("It has {open} descriptors open already: {limit} - {open} = {} connections.", limit - open))?;
    let clients = session.crew.connect(Connect { to: at, most: 2 * limit, bind: Bind::Nothing })?;
    session.kernel(format!("{} connections, then socket(): {}.", clients.opened, refusal(clients.errno())))?;
    let full = session.observed(|it| full_limit(it, client).map(|limit| limit.used))?;
    let told = session.observed(|it| refused(it, client, "socket"))?;
    if let Some(used) = full {
        session.observer(format!("process {client} has {used} of {limit} descriptors, and was refused a socket."))?;
    }
    session.check(Check::equal("connections of the client", limit - open, None, clients.opened));
    session.check(Check::equal("its next socket()", "EMFILE", told.map(Into::into), outcome(clients.errno())));
    session.check(Check::equal("descriptors at the end", limit, value(full), open + clients.opened));

    session.step("Now the server: it gets a limit too, and more clients come than it has descriptors for.")?;
    let held = session.crew.accepted(clients.opened)?.held;
    let (server, open) = session.crew.limit_files(Role::Server, (4 * limit).into())?;
    let room = limit / 2;
    let soft = open + u64::from(room);
    session.crew.limit_files(Role::Server, soft)?;
    session.theory(format!(
        "It has {open} descriptors open, {held} of them connections, and its limit is {soft} now: accept() gives {room} \
         more, then EMFILE. But of {limit} further clients every connect() succeeds: the kernel answers for the server."
    ))?;
    // The first client process is full: another one connects.
    session.crew.new_client()?;
    let more = session.crew.connect(Connect { to: at, most: limit, bind: Bind::Nothing })?;
    let stuck = session.crew.accepted(held + limit)?;
    let established = table::count(at, TcpState::Established)?;
    let waiting = established - u64::from(stuck.held);
    session.kernel(format!("{} of {limit} connect()s succeeded.", more.opened))?;
    session.kernel(format!(
        "accept() gave {} more, then {}. {waiting} clients wait in the queue and believe to be served.",
        stuck.held - held,
        refusal(stuck.refused.as_ref().map(|refused| refused.errno))
    ))?;
    let queued = session.observed(|it| queue(it, at))?;
    let told = session.observed(|it| refused(it, server, "accept"))?;
    if let Some(queued) = queued {
        session
            .observer(format!("process {server} was refused by EMFILE; {queued} connections in its accept queue."))?;
    }
    session.check(Check::equal("clients whose connect() succeeds", limit, None, more.opened));
    session.check(Check::equal("of these accepted", room, None, stuck.held - held));
    let errno = stuck.refused.as_ref().map(|refused| refused.errno);
    session.check(Check::equal("the server's next accept()", "EMFILE", told.map(Into::into), outcome(errno)));
    session.check(Check::equal("clients in the accept queue", limit - room, value(queued), waiting));

    session.step(format!("The server's limit is raised to {} while it runs.", 4 * limit))?;
    session.theory("accept() works again, and those who waited are served.")?;
    session.crew.limit_files(Role::Server, (4 * limit).into())?;
    let after = session.crew.accepted(held + limit)?;
    session.kernel(format!("The server holds {} connections.", after.held))?;
    session.check(Check::equal("accepted after raising the limit", held + limit, None, after.held));
    Ok(())
}

/// The limit of a process, once it is reached: descriptors are looked at every second.
fn full_limit(snapshot: &Snapshot, pid: u32) -> Option<&Limit> {
    let is_its = |limit: &&Limit| (limit.kind, limit.scope) == (LimitKind::ProcessFiles, Scope::Process(Pid(pid)));
    snapshot.limits.iter().find(is_its).filter(|limit| limit.used >= limit.maximum)
}

/// The error that a process was told to have got from this call.
fn refused(snapshot: &Snapshot, pid: u32, call: &str) -> Option<&'static str> {
    let row = snapshot.failures.iter().find(|row| {
        let key = &row.key;
        let is_its = key.process.is_some_and(|process| process.pid == Pid(pid));
        // accept() is accept4() to the kernel.
        key.kind == FailureKind::ProcessFds && is_its && key.call.is_some_and(|name| name.starts_with(call))
    })?;
    row.key.kind.errno()
}
