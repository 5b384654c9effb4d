//! As many connections as memory and descriptors allow.

use std::{net::Ipv4Addr, net::SocketAddrV4};

use anyhow::Context as _;

use super::{
    Lab, Scale, anywhere,
    needs::{self, Needs, bytes},
    report::Check,
    session::{Session, inbound, value},
    stage::{self, LOCALHOST},
    table,
    worker::order::{Bind, Connect},
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
    claim: "what bounds the number of connections is memory and descriptors, not port numbers",
    theory: &[
        "Port numbers bound only the connections between one client address and one server address. Every further client \
         address brings all its ports with it.",
        "Each end of a connection costs the kernel a socket: on 64-bit Linux some 3.9 kB while it is idle (the TCP socket \
         itself, its inode, its file and its directory entry). When both ends are on one machine, that is twice as much. \
         What is sent and not yet read comes on top.",
        "Each end also costs a file descriptor of its process: `ulimit -n` bounds each process, fs.file-max all of them \
         together. More processes hold more.",
    ],
    limits: &[LimitKind::SocketMemory, LimitKind::ProcessFiles, LimitKind::HostFiles],
    scale: Scale { least: 1_000, usual: 1_000_000, most: 1_000_000, shrinks: true },
    needs,
    may_run: anywhere,
    run,
};

/// A client process for each source address, servers by their room.
pub(super) fn needs(scale: u32) -> anyhow::Result<Needs> {
    let needs = Needs::of_connections(scale);
    let clients = u32::try_from(plan(scale, SocketAddrV4::new(LOCALHOST, 0), stage::range()?).len())?;
    Ok(Needs { processes: needs.processes / 2 + clients, ..needs })
}

/// `connections` from as many source addresses as they need, so that none uses more than the cheap half of its ports.
pub(super) fn plan(connections: u32, to: SocketAddrV4, range: PortRange) -> Vec<Connect> {
    let most_each = (range.size() / 2).min(needs::room()).max(1);
    let sources = connections.div_ceil(most_each);
    let share = |source: u32| connections / sources + u32::from(source < connections % sources);
    let first = u32::from(Ipv4Addr::new(127, 0, 1, 1));
    (0..sources)
        .map(|source| Connect { to, most: share(source), bind: Bind::Address(Ipv4Addr::from(first + source)) })
        .collect()
}

fn run(session: &mut Session<'_>) -> anyhow::Result<()> {
    let connections = session.scale;
    let at = SocketAddrV4::new(LOCALHOST, stage::server_ports(1)?[0]);
    let range = stage::range()?;
    let orders = plan(connections, at, range);
    let before = Memory::read()?;

    session.step(format!(
        "One server address, {at}. {} client addresses open {} connections to it, all at the same time.",
        orders.len(),
        grouped(connections.into())
    ))?;
    session.theory(format!(
        "Ports are no bound: {} client addresses have {} ports each.",
        orders.len(),
        grouped(range.size().into())
    ))?;
    let foretold = memory::per_socket(&Reads::default());
    if let Some(per_socket) = foretold {
        session.theory(format!(
            "Memory is one: {} bytes a socket by the kernel's own books (/proc/slabinfo), two sockets a connection: {}.",
            grouped(per_socket),
            bytes(2 * per_socket * u64::from(connections))
        ))?;
    }
    let listener = stage::listen_long(at)?;
    session.crew.serve(&listener, connections)?;
    let opened = session.connect_at_once(at, &orders)?;
    session.kernel(format!("{} connect()s succeeded.", grouped(opened.into())))?;

    session.step("Count them, and weigh them.")?;
    let accepted = session.crew.accepted(connections)?;
    let listed = table::count(at, TcpState::Established)?;
    let after = Memory::read()?;
    let counted = session.observed(|it| inbound(it, at).map(|row| row.states.get(TcpState::Established)))?;
    session.kernel(format!("{} sockets of {at} are listed as ESTABLISHED.", grouped(listed)))?;
    if let Some(counted) = counted {
        session.observer(format!("{} connections on {at}.", grouped(counted.into())))?;
    }
    let each = |now: u64, then: u64| now.saturating_sub(then) / u64::from(opened.max(1));
    session.kernel(format!(
        "Kernel memory has grown by {}: {} bytes a connection, both ends.",
        bytes(after.slab.saturating_sub(before.slab)),
        grouped(each(after.slab, before.slab))
    ))?;
    session.check(Check::equal("connections opened", connections, None, opened));
    session.check(Check::equal("accepted on one port", connections, None, accepted.held));
    session.check(Check::equal("established on one port", connections, value(counted), listed));
    session.fact("kernel memory a connection (Slab)", each(after.slab, before.slab), "bytes");
    session.fact("all memory a connection (MemAvailable)", each(before.available, after.available), "bytes");
    if let Some(per_socket) = foretold {
        session.fact("the same by /proc/slabinfo", 2 * per_socket, "bytes");
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
    fn the_shares_of_the_sources_add_up_and_stay_cheap() {
        let range = PortRange { low: 32_768, high: 60_999 };
        for connections in [1, 1_000, 65_537, 100_000, 1_000_000] {
            let orders = plan(connections, SocketAddrV4::new(LOCALHOST, 7000), range);
            assert_eq!(orders.iter().map(|order| order.most).sum::<u32>(), connections);
            assert!(orders.iter().all(|order| order.most <= range.size() / 2));
        }
    }
}
