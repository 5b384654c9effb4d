//! The fd limit of a process.

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
        request::{ClientBind, Connect},
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
    claim: "a process reaches its own limit of file descriptors (ulimit -n) long before any limit of ports",
    theory: &[
        "Every socket is a file descriptor of its process. The soft RLIMIT_NOFILE (`ulimit -n`) limits them, often to \
         1,024. At the limit socket(), accept() and open() fail with EMFILE, \"too many open files\".",
        "A server at its limit does not refuse its clients. The kernel completes their handshakes and puts them into \
         the accept queue: they are connected, and wait.",
        "The limit belongs to one process. prlimit raises it while the process runs, up to the hard limit. Other \
         processes have their own limits. fs.file-max limits all processes together (see file-max).",
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
    session.workers.serve(&listener, 4 * limit)?;

    session.step(format!("A client process with a limit of {limit} descriptors connects as often as it can."))?;
    let (client, open) = session.workers.limit_files(Role::Client, limit.into())?;
    let open = u32::try_from(open)?;
    session
        .theory(format!("It has {open} descriptors open already: {limit} - {open} = {} connections.", limit - open))?;
    let clients = session.workers.connect(Connect { to: at, most: 2 * limit, bind: ClientBind::Nothing })?;
    session.kernel(format!("{} connections, then socket(): {}.", clients.opened, refusal(clients.errno())))?;
    let full = session.observed(|it| full_limit(it, client).map(|limit| limit.used))?;
    let reported = session.observed(|it| refused(it, client, "socket"))?;
    if let Some(used) = full {
        session.observer(format!("process {client} uses {used} of {limit} descriptors, and its socket() failed."))?;
    }
    session.check(Check::equal("connections of the client", limit - open, None, clients.opened));
    session.check(Check::equal("its next socket()", "EMFILE", reported.map(Into::into), outcome(clients.errno())));
    session.check(Check::equal("descriptors at the end", limit, value(full), open + clients.opened));

    session.step("Now the server: it gets a limit too, and more clients come than it has descriptors for.")?;
    let accepted = session.workers.accepted(clients.opened)?.count;
    let (server, open) = session.workers.limit_files(Role::Server, (4 * limit).into())?;
    let room = limit / 2;
    let soft = open + u64::from(room);
    session.workers.limit_files(Role::Server, soft)?;
    session.theory(format!(
        "It has {open} descriptors open, {accepted} of them connections, and its limit is {soft} now: accept() gives \
         {room} more, then EMFILE. But every connect() of {limit} more clients succeeds: the kernel answers for the \
         server."
    ))?;
    // The first client process has no fd left: start another one.
    session.workers.new_client()?;
    let more = session.workers.connect(Connect { to: at, most: limit, bind: ClientBind::Nothing })?;
    let stuck = session.workers.accepted(accepted + limit)?;
    let established = table::count(at, TcpState::Established)?;
    let waiting = established - u64::from(stuck.count);
    session.kernel(format!("{} of {limit} connect()s succeeded.", more.opened))?;
    session.kernel(format!(
        "accept() gave {} more, then {}. {waiting} clients are connected and wait in the queue.",
        stuck.count - accepted,
        refusal(stuck.refused.as_ref().map(|refused| refused.errno))
    ))?;
    let queued = session.observed(|it| queue(it, at))?;
    let reported = session.observed(|it| refused(it, server, "accept"))?;
    if let Some(queued) = queued {
        session.observer(format!(
            "accept() of process {server} failed with EMFILE. Its accept queue holds {queued} connections."
        ))?;
    }
    session.check(Check::equal("clients whose connect() succeeds", limit, None, more.opened));
    session.check(Check::equal("accepted clients among these", room, None, stuck.count - accepted));
    let errno = stuck.refused.as_ref().map(|refused| refused.errno);
    session.check(Check::equal("the server's next accept()", "EMFILE", reported.map(Into::into), outcome(errno)));
    session.check(Check::equal("clients in the accept queue", limit - room, value(queued), waiting));

    session.step(format!("Raise the server's limit to {} while it runs.", 4 * limit))?;
    session.theory("accept() works again and takes the waiting clients.")?;
    session.workers.limit_files(Role::Server, (4 * limit).into())?;
    let after = session.workers.accepted(accepted + limit)?;
    session.kernel(format!("The server has accepted {} connections.", after.count))?;
    session.check(Check::equal("accepted after raising the limit", accepted + limit, None, after.count));
    Ok(())
}

/// The fd limit of a process, once the process has reached it. The engine reads fd counts every second.
fn full_limit(snapshot: &Snapshot, pid: u32) -> Option<&Limit> {
    let is_its = |limit: &&Limit| (limit.kind, limit.scope) == (LimitKind::ProcessFiles, Scope::Process(Pid(pid)));
    snapshot.limits.iter().find(is_its).filter(|limit| limit.used >= limit.maximum)
}

/// The error that observer reports for this call of a process.
fn refused(snapshot: &Snapshot, pid: u32, call: &str) -> Option<&'static str> {
    let row = snapshot.failures.iter().find(|row| {
        let key = &row.key;
        let is_its = key.process.is_some_and(|process| process.pid == Pid(pid));
        // accept() is accept4() to the kernel.
        key.kind == FailureKind::ProcessFds && is_its && key.call.is_some_and(|name| name.starts_with(call))
    })?;
    row.key.kind.errno()
}
