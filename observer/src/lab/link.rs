//! Network interfaces of the calling thread's namespace, via `ioctl`: the host may lack `ip`.

use std::{io, mem, net::Ipv4Addr};

use rustix::fd::AsRawFd as _;
use socket2::{Domain, SockAddr, Socket, Type};

/// Brings an interface up.
pub(super) fn set_up(interface: &str) -> io::Result<()> {
    let mut request = request(interface)?;
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    carry_out(libc::SIOCSIFFLAGS, &request)
}

/// Gives an interface an IPv4 address. `lo:1` names a further address of `lo`.
pub(super) fn add_address(interface: &str, ip: Ipv4Addr) -> io::Result<()> {
    let mut request = request(interface)?;
    let address = SockAddr::from(std::net::SocketAddrV4::new(ip, 0));
    // SAFETY: a `SockAddr` made of an IPv4 address begins with a whole `sockaddr_in`, which is as long as a `sockaddr`.
    request.ifr_ifru.ifru_addr = unsafe { *address.as_ptr().cast::<libc::sockaddr>() };
    carry_out(libc::SIOCSIFADDR, &request)
}

fn request(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: every bit pattern of `ifreq` is valid, zeros too.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: it ends the name.
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn carry_out(what: libc::Ioctl, request: &libc::ifreq) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: both requests read one `ifreq`, which outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_ref(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
