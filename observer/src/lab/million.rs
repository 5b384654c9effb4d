//! As many connections as memory and file descriptors allow.

use std::{net::Ipv4Addr, net::SocketAddrV4};

use anyhow::Context as _;

use super::{
    Lab, Scale, anywhere,
    needs::{self, Needs, bytes},
    report::Check,
    session::{Session, inbound, value},
    stage::{self, LOCALHOST},
    table,
    worker::request::{ClientBind, Connect},
};
use crate::{
    host::{
        memory,
        text::{self, Reads},
    },
    model::{
        limit::LimitKind,
        units::{PortRange, TcpState, grouped},
    },
};

pub(super) static LAB: Lab = Lab {
    name: "million",
    claim: "memory and file descriptors limit the number of connections, not port numbers",
    theory: &[
        "Port numbers limit only the connections between one client address and one server address. Every further \
         client address brings its own ports.",
        "Each end of a connection is a socket in the kernel: about 3.9 kB on 64-bit Linux while it is idle (the TCP \
         socket itself, its inode, its file and its directory entry). With both ends on one machine, it is twice that. \
         Data that was sent and not yet read adds to it.",
        "Each end also takes a file descriptor of its process. `ulimit -n` limits each process, and fs.file-max limits \
         all together. More processes can hold more.",
    ],
    limits: &[LimitKind::SocketMemory, LimitKind::ProcessFiles, LimitKind::HostFiles],
    scale: Scale { least: 1_000, usual: 1_000_000, most: 1_000_000, shrinks: true },
    needs,
    may_run: anywhere,
    run,
};

/// One client process for each source address, and as many servers as the connections need.
pub(super) fn needs(scale: u32) -> anyhow::Result<Needs> {
    let needs = Needs::of_connections(scale);
    let clients = u32::try_from(plan(scale, SocketAddrV4::new(LOCALHOST, 0), stage::range()?).len())?;
    Ok(Needs { processes: needs.processes / 2 + clients, ..needs })
}

/// Splits `connections` over as many source addresses as they need, so that none uses more than the fast half of its
/// ports.
pub(super) fn plan(connections: u32, to: SocketAddrV4, range: PortRange) -> Vec<Connect> {
    let most_each = (range.size() / 2).min(needs::room()).max(1);
    let sources = connections.div_ceil(most_each);
    let share = |source: u32| connections / sources + u32::from(source < connections % sources);
    let first = u32::from(Ipv4Addr::new(127, 0, 1, 1));
    (0..sources)
        .map(|source| Connect { to, most: share(source), bind: ClientBind::Address(Ipv4Addr::from(first + source)) })
        .collect()
}

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let connections = session.scale;
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let range = stage::range()?;
    let requests = plan(connections, at, range);
    let before = Memory::read()?;

    session.step(format!(
        "One server address, {at}. {} client addresses open {} connections to it, all at the same time.",
        requests.len(),
        grouped(connections.into())
    ))?;
    session.theory(format!(
        "Ports do not limit this: {} client addresses have {} ports each.",
        requests.len(),
        grouped(range.size().into())
    ))?;
    let per_socket = memory::per_socket(&Reads::default());
    if let Some(per_socket) = per_socket {
        session.theory(format!(
            "Memory does: {} bytes a socket (/proc/slabinfo), two sockets a connection: {}.",
            grouped(per_socket),
            bytes(2 * per_socket * u64::from(connections))
        ))?;
    }
    let listener = stage::listen_long(at)?;
    session.workers.serve(&listener, connections)?;
    let opened = session.connect_at_once(at, &requests)?;
    session.kernel(format!("{} connect()s succeeded.", grouped(opened.into())))?;

    session.step("Count the connections and measure their memory.")?;
    let accepted = session.workers.accepted(connections)?;
    let listed = table::count(at, TcpState::Established)?;
    let after = Memory::read()?;
    let counted = session.observed(|it| inbound(it, at).map(|row| row.states.get(TcpState::Established)))?;
    session.kernel(format!("/proc/net/tcp lists {} ESTABLISHED sockets of {at}.", grouped(listed)))?;
    if let Some(counted) = counted {
        session.observer(format!("{} connections on {at}.", grouped(counted.into())))?;
    }
    let each = |now: u64, then: u64| now.saturating_sub(then) / u64::from(opened.max(1));
    session.kernel(format!(
        "Kernel memory grew by {}: {} bytes a connection, both ends.",
        bytes(after.slab.saturating_sub(before.slab)),
        grouped(each(after.slab, before.slab))
    ))?;
    session.check(Check::equal("connections opened", connections, None, opened));
    session.check(Check::equal("accepted on one port", connections, None, accepted.count));
    session.check(Check::equal("established on one port", connections, value(counted), listed));
    session.measurement("kernel memory per connection (Slab)", each(after.slab, before.slab), "bytes");
    session.measurement("all memory per connection (MemAvailable)", each(before.available, after.available), "bytes");
    if let Some(per_socket) = per_socket {
        session.measurement("the same, from /proc/slabinfo", 2 * per_socket, "bytes");
    }
    Ok(())
}

/// What /proc/meminfo says, in bytes.
struct Memory {
    slab: u64,
    available: u64,
}

impl Memory {
    fn read() -> anyhow::Result<Self> {
        let text = text::string("/proc/meminfo").context("read /proc/meminfo")?;
        let kilobytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            number.map(|kilobytes| kilobytes * 1024).with_context(|| format!("no {name} in /proc/meminfo"))
        };
        Ok(Self { slab: kilobytes("Slab")?, available: kilobytes("MemAvailable")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_share_all_connections_and_stay_in_the_fast_half() {
        let range = PortRange { low: 32_768, high: 60_999 };
        for connections in [1, 1_000, 65_537, 100_000, 1_000_000] {
            let requests = plan(connections, SocketAddrV4::new(LOCALHOST, 7000), range);
            assert_eq!(requests.iter().map(|request| request.most).sum::<u32>(), connections);
            assert!(requests.iter().all(|request| request.most <= range.size() / 2));
        }
    }
}
