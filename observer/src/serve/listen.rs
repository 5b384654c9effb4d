//! Listening sockets: bound by the engine process, or passed by the service manager. The HTTP process only accepts.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::{
    fs::Mode,
    io::ioctl_fionbio,
    net::{
        AddressFamily, SocketType,
        sockopt::{socket_acceptconn, socket_domain, socket_type},
    },
};

use super::bounds;
use crate::{errno, host::listening};

/// Mode of a Unix socket: its owner and group may connect.
const UNIX_MODE: u32 = 0o660;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `ADDRESS:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl ListenAddress {
    /// As many ports as Linux's default ephemeral range has, and outside of it.
    pub const DEFAULT: Self = Self::Tcp(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 28232));
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "neither an IP address with a port (127.0.0.1:28232, [::1]:28232) nor unix:PATH".to_owned()
            }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", errno::printable(path)),
        }
    }
}

/// A socket file that goes with this process.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another socket may have taken the name since.
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A listening socket.
#[derive(Debug)]
struct Listening {
    fd: OwnedFd,
    address: ListenAddress,
    /// Removed when this is dropped.
    file: Option<SocketFile>,
}

/// All listening sockets.
#[derive(Debug)]
pub(super) struct Listeners(Vec<Listening>);

impl Listeners {
    /// Those that the service manager passed, or those of `addresses`; without either the default.
    pub(super) fn open(addresses: &[ListenAddress]) -> anyhow::Result<Self> {
        let passed = passed()?;
        ensure!(
            passed.is_empty() || addresses.is_empty(),
            "LISTEN_FDS: the service manager passed sockets; leave --listen out, or disable the socket unit"
        );
        let default = [ListenAddress::DEFAULT];
        let addresses = if addresses.is_empty() { &default } else { addresses };
        ensure!(
            passed.len().max(addresses.len()) <= bounds::LISTENERS,
            "more than {} listening sockets",
            bounds::LISTENERS
        );
        if passed.is_empty() {
            return Ok(Self(addresses.iter().map(bind).collect::<anyhow::Result<_>>()?));
        }
        Ok(Self(passed.into_iter().map(adopt).collect::<anyhow::Result<_>>()?))
    }

    /// Whether files of Unix sockets go at the end: whoever made one can remove it, and not every other user.
    pub(super) fn have_files(&self) -> bool {
        self.0.iter().any(|listening| listening.file.is_some())
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|listening| listening.fd.as_fd()).collect()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.0.iter().map(|listening| &listening.address)
    }

    /// All addresses in one text.
    pub(super) fn list(&self) -> String {
        self.addresses().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Those that other hosts may reach.
    pub(super) fn reachable(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().filter_map(|listening| match listening.address {
            ListenAddress::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
            _ => None,
        })
    }
}

fn bind(address: &ListenAddress) -> anyhow::Result<Listening> {
    match address {
        ListenAddress::Tcp(address) => bind_tcp(*address),
        ListenAddress::Unix(path) => bind_unix(path),
    }
}

fn bind_tcp(address: SocketAddr) -> anyhow::Result<Listening> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => listening::on_port(address.port())
                .map_or_else(String::new, |process| format!(": {process} listens there")),
            ErrorKind::PermissionDenied => {
                ": ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE".to_owned()
            }
            ErrorKind::AddrNotAvailable => ": no interface of this host has the address".to_owned(),
            _ => String::new(),
        };
        anyhow!("listen on {address}: {}{advice}", errno::describe(&error))
    })?;
    let address = listener.local_addr().context("read the address of the listening socket")?;
    listener.set_nonblocking(true).context("set O_NONBLOCK on the listening socket")?;
    Ok(Listening { fd: listener.into(), address: ListenAddress::Tcp(address), file: None })
}

fn bind_unix(path: &Path) -> anyhow::Result<Listening> {
    let (listener, file) = bind_unix_socket(path)?;
    Ok(Listening { fd: listener.into(), address: ListenAddress::Unix(path.to_owned()), file: Some(file) })
}

/// A listening socket of mode 0660, and its file.
pub(super) fn bind_unix_socket(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let name = errno::printable(path);
    remove_left_over(path)?;
    // No other thread makes a file yet: the mode is there from the beginning.
    let before = rustix::process::umask(Mode::from_raw_mode(0o777 & !UNIX_MODE));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => anyhow!("listen on unix:{name}: a path of a Unix socket has 1 to 107 bytes"),
        _ => anyhow!("listen on unix:{name}: {}", errno::describe(&error)),
    })?;
    let inode = inode(path).with_context(|| name)?;
    listener.set_nonblocking(true).context("set O_NONBLOCK on the listening socket")?;
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

/// Removes a socket file of this user that an earlier process left behind. Anything else in its place is an error.
fn remove_left_over(path: &Path) -> anyhow::Result<()> {
    let name = errno::printable(path);
    // bind() says what is wrong with the path.
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    ensure!(
        found.file_type().is_socket(),
        "listen on unix:{name}: a file that is no socket is there: remove it, or choose another path"
    );
    let owner = found.uid();
    ensure!(
        owner == rustix::process::geteuid().as_raw(),
        "listen on unix:{name}: the socket there belongs to user {owner}: remove it, or choose another path"
    );
    match UnixStream::connect(path) {
        Ok(_) => {
            let by = listening::on_path(path).map_or_else(|| "a process".to_owned(), |process| process.to_string());
            bail!("listen on unix:{name}: EADDRINUSE (Address already in use): {by} listens there")
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("remove the left-over socket {name}"))
        }
        Err(error) => bail!("listen on unix:{name}: connect to the socket there: {}", errno::describe(&error)),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|file| (file.dev(), file.ino()))
}

/// The sockets that the service manager passed (`LISTEN_FDS`), now closed in children.
fn passed() -> anyhow::Result<Vec<OwnedFd>> {
    let fds = sd_notify::listen_fds().context("LISTEN_FDS")?;
    ensure!(fds.len() <= bounds::LISTENERS, "LISTEN_FDS: more than {} sockets", bounds::LISTENERS);
    // SAFETY: by the protocol of LISTEN_FDS and LISTEN_PID these descriptors belong to this process, which asks once, at its
    // start, and has just set FD_CLOEXEC on each of them.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

fn adopt(fd: OwnedFd) -> anyhow::Result<Listening> {
    let is_stream = socket_type(&fd).is_ok_and(|kind| kind == SocketType::STREAM);
    ensure!(
        is_stream && socket_acceptconn(&fd).is_ok_and(|listens| listens),
        "LISTEN_FDS: a descriptor is no listening stream socket: use ListenStream= in the socket unit, and Accept=no"
    );
    ioctl_fionbio(&fd, true).context("set O_NONBLOCK on a socket of LISTEN_FDS")?;
    let (fd, address) = match socket_domain(&fd).context("LISTEN_FDS")? {
        AddressFamily::UNIX => {
            let listener = UnixListener::from(fd);
            let path = listener.local_addr().context("LISTEN_FDS")?.as_pathname().unwrap_or(Path::new("")).to_owned();
            (listener.into(), ListenAddress::Unix(path))
        }
        AddressFamily::INET | AddressFamily::INET6 => {
            let listener = TcpListener::from(fd);
            let address = listener.local_addr().context("LISTEN_FDS")?;
            (listener.into(), ListenAddress::Tcp(address))
        }
        _ => bail!("LISTEN_FDS: a socket is neither of IP nor of Unix"),
    };
    Ok(Listening { fd, address, file: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:28232", "[::1]:80", "0.0.0.0:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), format!("http://{text}"));
        }
        assert_eq!("unix:/run/o.sock".parse::<ListenAddress>().unwrap().to_string(), "unix:/run/o.sock");
        for wrong in ["", "unix:", "localhost:80", "127.0.0.1", ":80", "http://127.0.0.1:80", "127.0.0.1:65536"] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong}");
        }
        assert_eq!(ListenAddress::DEFAULT.to_string(), "http://127.0.0.1:28232");
    }
}
