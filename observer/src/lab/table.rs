//! The kernel's own table of TCP sockets over IPv4 (/proc/net/tcp), with which labs compare all counts.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::host::text;
use crate::model::units::TcpState;

/// A socket of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its local address.
    pub(super) local: SocketAddrV4,
    /// Its remote address.
    pub(super) remote: SocketAddrV4,
    /// Its state.
    pub(super) state: TcpState,
}

/// Calls `look` with every socket of the calling thread's namespace.
pub(super) fn each(mut look: impl FnMut(Row)) -> io::Result<()> {
    text::each_line("/proc/thread-self/net/tcp", |line| parse(line).map_or((), &mut look))
}

/// How many sockets have this local address and this state.
pub(super) fn count(local: SocketAddrV4, state: TcpState) -> io::Result<u64> {
    let mut count = 0;
    each(|row| count += u64::from(row.local == local && row.state == state))?;
    Ok(count)
}

/// "  0: 0100007F:1B58 0200007F:8001 01 00000000:00000000 …": addresses as the bytes lie in memory, ports as numbers.
fn parse(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace().skip(1);
    let address = |word: &str| {
        let (ip, port) = word.split_once(':')?;
        let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
        Some(SocketAddrV4::new(ip, u16::from_str_radix(port, 16).ok()?))
    };
    let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
    Some(Row { local, remote, state: TcpState::from_kernel(u8::from_str_radix(words.next()?, 16).ok()?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_the_kernel() {
        let line = "   0: 0100007F:1B58 0200007F:8001 01 00000000:00000000 00:00000000 00000000     0        0 123 1";
        let row = parse(line).unwrap();
        assert_eq!((row.local.port(), row.remote.port(), row.state), (7000, 0x8001, TcpState::Established));
        if cfg!(target_endian = "little") {
            assert_eq!((*row.local.ip(), *row.remote.ip()), (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)));
        }
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
    }
}
