//! Sockets in states that `std::net` cannot reach, and processes that keep them open.

use std::{
    any::type_name_of_val,
    env, fs,
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use observer::model::units::TcpState;
use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};

use crate::{
    processes::start_program,
    support::{PATIENCE, wait_until},
};

/// A socket with nothing done to it yet but that its address may be used again.
pub(crate) fn socket(family: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(family), Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).unwrap();
    socket
}

/// The local address; v4-mapped as it is.
pub(crate) fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// A connect() that does not wait: the socket is in SYN_SENT, or further if the other end was quick.
pub(crate) fn start_connect(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

/// From now on the socket drops every incoming packet, and neither end notices.
pub(crate) fn drop_incoming_packets(socket: &Socket) -> io::Result<()> {
    // Classic BPF: return 0, "keep no byte of the packet".
    const RET: u16 = 0x06;
    socket.attach_filter(&[SockFilter::new(RET, 0, 0, 0)])
}

/// The next close sends a reset and leaves nothing behind.
pub(crate) fn reset(socket: Socket) {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

/// A listener that no SYN reaches. Its clients wait in SYN_SENT.
pub(crate) fn silent_listener(at: SocketAddr) -> io::Result<Socket> {
    let listener = socket(at);
    listener.bind(&at.into())?;
    drop_incoming_packets(&listener)?;
    listener.listen(1)?;
    Ok(listener)
}

/// connect() to `AF_UNSPEC`: the connection ends with a reset, and the socket stays open.
pub(crate) fn disconnect(socket: &impl AsRawFd) -> io::Result<()> {
    // `AF_UNSPEC` is 0, and so is every byte of this address.
    let unspecified = [0_u8; 16];
    // SAFETY: the kernel reads 16 bytes, those of the array, before the call returns.
    match unsafe { libc::connect(socket.as_raw_fd(), unspecified.as_ptr().cast(), 16) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A socket option that is an `int`.
pub(crate) fn set_option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads 4 bytes, those of the value, before the call returns.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The socket's state, as the kernel numbers it.
pub(crate) fn state(socket: &impl AsRawFd) -> Option<TcpState> {
    // `tcpi_state` is the first byte of `struct tcp_info`.
    let mut first = 0_u8;
    let mut size: libc::socklen_t = 1;
    let (at, size) = ((&raw mut first).cast(), &raw mut size);
    // SAFETY: the kernel writes at most as many bytes as `size` says, the one of `first`, before the call returns.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, at, size) } {
        0 => TcpState::from_kernel(first),
        _ => None,
    }
}

/// A listener that takes data in the SYN.
pub(crate) fn fast_open_listener(at: SocketAddr) -> io::Result<Socket> {
    let listener = socket(at);
    listener.bind(&at.into())?;
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 64)?;
    listener.listen(64)?;
    Ok(listener)
}

/// Connects with the first byte in the SYN, if it knows a cookie; otherwise requests a cookie.
pub(crate) fn fast_open(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    socket.send_to_with_flags(b"x", &to.into(), libc::MSG_FASTOPEN).map(drop)
}

/// A multipath socket; `None` where the kernel has no MPTCP.
pub(crate) fn multipath(family: SocketAddr) -> Option<Socket> {
    let socket = Socket::new(Domain::for_address(family), Type::STREAM, Some(Protocol::MPTCP)).ok()?;
    socket.set_reuse_address(true).ok()?;
    Some(socket)
}

/// A socket that is connected to itself, from a port that the kernel chose.
pub(crate) fn self_connected(ip_and_port_0: SocketAddr) -> io::Result<Socket> {
    let socket = socket(ip_and_port_0);
    socket.bind(&ip_and_port_0.into())?;
    socket.connect(&local(&socket).into())?;
    Ok(socket)
}

/// How many packets the kernel has dropped for this socket.
fn dropped(socket: &Socket) -> io::Result<u32> {
    // `SK_MEMINFO_DROPS` of include/uapi/linux/sock_diag.h is the last of nine.
    let mut numbers = [0_u32; 9];
    let mut size = libc::socklen_t::try_from(size_of_val(&numbers)).expect("36 bytes");
    let (at, size) = (numbers.as_mut_ptr().cast(), &raw mut size);
    // SAFETY: the kernel writes at most as many bytes as `size` says, those of `numbers`, before the call returns.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, at, size) } {
        0 => Ok(numbers[8]),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Two sockets that connected to each other, with no listener between them. On loopback a SYN mostly arrives before
/// connect() returns: a silent listener takes the first SYN, so that the two can cross.
pub(crate) fn simultaneous_open(ip_and_port_0: SocketAddr) -> io::Result<(Socket, Socket)> {
    let silent = silent_listener(ip_and_port_0)?;
    let at = local(&silent);
    let first = socket(ip_and_port_0);
    first.bind(&ip_and_port_0.into())?;
    start_connect(&first, at)?;
    wait_until("the end of the first SYN", || dropped(&silent).unwrap() > 0);
    drop(silent);
    let second = socket(ip_and_port_0);
    second.bind(&at.into())?;
    second.connect(&local(&first).into())?;
    first.set_nonblocking(false)?;
    Ok((first, second))
}

/// `struct cmsghdr` with one file descriptor: its length, SOL_SOCKET, SCM_RIGHTS, the descriptor, padding.
const CONTROL: usize = 24;
const FD_AT: usize = 16;
const _: () = assert!(size_of::<libc::cmsghdr>() == FD_AT);

/// Passes a copy of the descriptor through a Unix socket (SCM_RIGHTS).
pub(crate) fn pass(through: &UnixStream, fd: &impl AsRawFd) -> io::Result<()> {
    let mut control = [0; CONTROL];
    control[..8].copy_from_slice(&(FD_AT + size_of::<RawFd>()).to_ne_bytes());
    control[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    control[FD_AT..FD_AT + 4].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    let bytes = [io::IoSlice::new(b"f")];
    let message = MsgHdr::new().with_buffers(&bytes).with_control(&control);
    SockRef::from(through).sendmsg(&message, 0).map(drop)
}

/// Takes a descriptor that was passed.
pub(crate) fn take(through: &UnixStream) -> io::Result<OwnedFd> {
    let mut control = [const { MaybeUninit::new(0_u8) }; CONTROL];
    let mut byte = [MaybeUninit::uninit()];
    let mut buffers = [MaybeUninitSlice::new(&mut byte)];
    let mut message = MsgHdrMut::new().with_buffers(&mut buffers).with_control(&mut control);
    let got = SockRef::from(through).recvmsg(&mut message, libc::MSG_CMSG_CLOEXEC)?;
    let control_length = message.control_len();
    if got != 1 || control_length < FD_AT + 4 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no descriptor came"));
    }
    let fd: Vec<u8> = control[FD_AT..FD_AT + 4]
        .iter()
        // SAFETY: every byte was initialised when the array was made.
        .map(|byte| unsafe { byte.assume_init() })
        .collect();
    let fd = RawFd::from_ne_bytes(fd.try_into().unwrap());
    // SAFETY: the kernel has just made this descriptor for this message, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const ROLE: &str = "OBSERVER_TEST_ROLE";

/// Another process that runs this same test. Its environment gives it a role in the test. Its standard input is a
/// channel to the test.
pub(crate) struct TestProcess {
    child: Child,
    pub(crate) channel: UnixStream,
}

impl TestProcess {
    /// Starts a process in the namespace of the calling thread. `test` is the test function itself.
    pub(crate) fn start(test: &impl Fn(), role: &str) -> Self {
        let path = type_name_of_val(test);
        let name = path.split_once("::").map_or(path, |(_, name)| name);
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, role).stdout(Stdio::null());
        let (child, channel) = start_program(&mut command).expect("start this test again");
        Self { child, channel }
    }

    /// Waits for one byte: the process is ready.
    pub(crate) fn wait_until_ready(&mut self) {
        self.channel.set_read_timeout(Some(PATIENCE)).unwrap();
        self.channel.read_exact(&mut [0]).expect("the other process has failed");
    }

    /// `kill -9`
    pub(crate) fn kill(mut self) {
        self.kill_and_wait();
    }

    fn kill_and_wait(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        self.kill_and_wait();
    }
}

/// The role of this process and its channel to the test; `None` in the test itself.
pub(crate) fn role() -> Option<(String, UnixStream)> {
    let role = env::var(ROLE).ok()?;
    let channel = io::stdin().as_fd().try_clone_to_owned().unwrap();
    Some((role, UnixStream::from(channel)))
}

/// The end of a role: reports that the process is ready, and keeps its sockets open until the test ends or kills it.
pub(crate) fn keep_open(mut channel: &UnixStream) {
    channel.write_all(b".").unwrap();
    let _ = channel.read(&mut [0]);
}

/// Reports to `cargo xtask test` that this machine cannot run a test.
pub(crate) fn skip(test: &impl Fn(), why: &str) {
    let path = type_name_of_val(test);
    let line = format!("SKIPPED {}: {why}", path.split_once("::").map_or(path, |(_, name)| name));
    eprintln!("{line}");
    if let Some(list) = env::var_os("OBSERVER_SKIPPED_TESTS") {
        let mut list = fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{line}").unwrap();
    }
}

pub(crate) fn accept(listener: &Socket) -> Socket {
    let (socket, _): (Socket, SockAddr) = listener.accept().expect("accept");
    socket
}

/// Whether a port is one that tests listen on. A local address shows the side of a socket only while its listener
/// exists. Therefore tests use this range for servers alone.
pub(crate) fn is_server_port(port: u16) -> bool {
    (7000..30_000).contains(&port)
}
