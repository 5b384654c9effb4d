//! The private network namespace of a lab. This whole process enters it, and the workers inherit it. Nothing else keeps
//! it open, and it ends with the last of them. It has no name and no mount, and needs no cleanup.

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

/// The usual loopback address, which connect() chooses towards 127.0.0.0/8.
pub(super) const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Moves the calling process into a new network namespace with `lo` up. Call it before the process has a second thread:
/// later threads start inside, and without rights the kernel requires a single-threaded process. Returns
/// whether the process may use BPF there.
pub(super) fn enter() -> anyhow::Result<bool> {
    // SAFETY: this splits off a namespace only, and no file table.
    if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
        ensure!(error == rustix::io::Errno::PERM, "make a network namespace: {}", errno::describe(&error.into()));
        enter_user_namespace().context("make a network namespace as root, or a user namespace as anybody")?;
    }
    link::set_up("lo").context("bring lo up")?;
    // Check inside the namespace: rights in a user namespace are not enough for BPF.
    Ok(engine::require_rights().is_ok())
}

/// The current reading of the namespace.
pub(super) fn read() -> NamespaceReading {
    netns::read(&std::collections::BTreeSet::new()).namespace
}

/// `net.ipv4.ip_local_port_range`
pub(super) fn range() -> anyhow::Result<PortRange> {
    read().port_range.context("read net.ipv4.ip_local_port_range")
}

/// Narrows the range to at most `ports` ports, an even number: in an odd range connect() may skip the last port.
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

/// A listening socket with the longest queue that the namespace allows.
pub(super) fn listen_long(at: SocketAddrV4) -> anyhow::Result<Socket> {
    let backlog = read().somaxconn.unwrap_or(128);
    listen(at, i32::try_from(backlog).unwrap_or(i32::MAX)).with_context(|| format!("listen on {at}"))
}

/// `count` ports for servers, outside the range of connect().
pub(super) fn server_ports(count: u16) -> anyhow::Result<Vec<u16>> {
    let PortRange { low, high } = range()?;
    let outside = (7000..=u16::MAX).chain(1024..7000).filter(|port| !(low..=high).contains(port));
    let ports: Vec<u16> = outside.take(count.into()).collect();
    ensure!(ports.len() == usize::from(count), "the range {low}-{high} leaves no ports for servers");
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

/// Enters a user namespace in which this user is root, and its network namespace. It needs no rights outside.
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
