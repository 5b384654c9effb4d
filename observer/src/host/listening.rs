//! Who listens, by /proc: for errors that say who has an address.

use std::{collections::BTreeSet, path::Path};

use super::{open_sockets, text};
use crate::model::units::Process;

/// The state LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";
/// `SO_ACCEPTCON` (include/uapi/linux/net.h) among the flags of /proc/net/unix.
const ACCEPTS: &str = "00010000";

/// A process of this network namespace that listens on a port.
#[must_use]
pub fn on_port(port: u16) -> Option<Process> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    owner(&tables.into_iter().flat_map(|table| listeners(&text::string(table).unwrap_or_default(), port)).collect())
}

/// A process that listens on a Unix socket.
#[must_use]
pub fn on_path(path: &Path) -> Option<Process> {
    owner(&unix_listeners(&text::string("/proc/self/net/unix").unwrap_or_default(), path))
}

fn owner(inodes: &BTreeSet<u64>) -> Option<Process> {
    let mut owner = None;
    if !inodes.is_empty() {
        open_sockets::sockets(|socket| {
            if inodes.contains(&socket.inode) {
                owner.get_or_insert(socket.by);
            }
        });
    }
    owner
}

/// Inodes of the listeners of a port.
pub(super) fn listeners(table: &str, port: u16) -> BTreeSet<u64> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = columns.get(1)?.ends_with(&suffix) && *columns.get(3)? == LISTEN;
        columns.get(9)?.parse().ok().filter(|_| is_it)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

pub(super) fn unix_listeners(table: &str, path: &Path) -> BTreeSet<u64> {
    let inode = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let (flags, inode) = (columns.nth(3)?, columns.nth(2)?);
        let is_it = flags == ACCEPTS && columns.next().is_some_and(|name| Path::new(name) == path);
        inode.parse().ok().filter(|_| is_it)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::unix::net::UnixListener,
    };

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port_and_by_its_path() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(on_port(port).unwrap().pid.0, std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        assert_eq!(on_path(&path).unwrap().pid.0, std::process::id());
        drop((listener, unix));
        assert_eq!((on_port(port), on_path(&path)), (None, None));
    }
}
