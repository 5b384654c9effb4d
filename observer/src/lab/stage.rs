//! The private network namespace of a lab: entered by this whole process and inherited by its workers, held by nothing
//! but them, and gone with the last of them. There is no name, no mount, and nothing to be undone.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use socket2::{Domain, Socket, Type};

use super::link;
use crate::{
    engine, errno,
    host::{mib, netns, text},
    model::{namespace::NamespaceReading, units::PortRange},
};

/// Loopback's usual address: what connect() chooses towards 127.0.0.0/8.
pub(super) const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Moves the calling process into a new network namespace with `lo` up. To be called before it has a second thread:
/// threads that are started later are inside, and without rights the kernel asks for a process of one thread. Returns
/// whether the process may use BPF there.
pub(super) fn enter() -> anyhow::Result<bool> {
    // SAFETY: only namespaces are split off; the file table is not.
    if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
        ensure!(error == rustix::io::Errno::PERM, "make a network namespace: {}", errno::describe(&error.into()));
        enter_user_namespace().context("make a network namespace as root, or a user namespace as anybody")?;
    }
    link::set_up("lo").context("bring lo up")?;
    // Asked inside: rights in a user namespace are not enough for BPF.
    Ok(engine::require_rights().is_ok())
}

/// What the namespace is now.
pub(super) fn read() -> NamespaceReading {
    netns::read(&std::collections::BTreeSet::new()).namespace
}

/// `net.ipv4.ip_local_port_range`
pub(super) fn range() -> anyhow::Result<PortRange> {
    read().port_range.context("read net.ipv4.ip_local_port_range")
}

/// Narrows the range to at most `ports` ports, an even number: of an odd one, a connect() may miss the last port.
pub(super) fn narrow_range(ports: u32) -> anyhow::Result<PortRange> {
    let PortRange { low, high } = range()?;
    let size = (u32::from(high) - u32::from(low) + 1).min(ports) & !1;
    let high = u16::try_from(u32::from(low) + size.max(2) - 1).context("narrow the port range")?;
    set_sysctl("ipv4/ip_local_port_range", &format!("{low} {high}"))?;
    Ok(PortRange { low, high })
}

/// Sets a sysctl below `net` of this namespace.
pub(super) fn set_sysctl(name: &str, value: &str) -> anyhow::Result<()> {
    fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| format!("set net/{name} to {value}"))
}

/// A counter of the group `TcpExt` of /proc/net/netstat.
pub(super) fn counter(name: &str) -> anyhow::Result<u64> {
    let text = text::string("/proc/thread-self/net/netstat").context("read /proc/net/netstat")?;
    mib::counter(&text, "TcpExt", name).with_context(|| format!("no {name} in /proc/net/netstat"))
}

/// A listening socket with as long a queue as the namespace allows.
pub(super) fn listen_long(at: SocketAddrV4) -> anyhow::Result<Socket> {
    let backlog = read().somaxconn.unwrap_or(128);
    listen(at, i32::try_from(backlog).unwrap_or(i32::MAX)).with_context(|| format!("listen on {at}"))
}

/// `count` ports that connect() does not choose: for servers.
pub(super) fn server_ports(count: u16) -> anyhow::Result<Vec<u16>> {
    let PortRange { low, high } = range()?;
    let outside = (7000..=u16::MAX).chain(1024..7000).filter(|port| !(low..=high).contains(port));
    let ports: Vec<u16> = outside.take(count.into()).collect();
    ensure!(ports.len() == usize::from(count), "the range {low}-{high} leaves no ports to servers");
    Ok(ports)
}

/// A listening socket.
pub(super) fn listen(at: SocketAddrV4, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// A user namespace in which this user is root, and a network namespace of it: no rights are needed outside.
fn enter_user_namespace() -> anyhow::Result<()> {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    // SAFETY: as above.
    match unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) } {
        Ok(()) => {}
        Err(error @ (rustix::io::Errno::PERM | rustix::io::Errno::NOSPC)) => {
            bail!("this host lets only root make namespaces ({}): run it as root", errno::describe(&error.into()))
        }
        Err(error) => return Err(error.into()),
    }
    fs::write("/proc/self/setgroups", "deny").context("write /proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw())).context("write /proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw())).context("write /proc/self/gid_map")
}
