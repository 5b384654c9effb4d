//! The worker process itself: it serves requests and holds the sockets. It ends when its channel or its parent ends,
//! for whatever reason, and its sockets end with it.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsFd as _, OwnedFd},
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    Role,
    request::{Channel, ClientBind, CloseWith, Connect, Refusal, Request, Response},
};

/// Works until the channel on standard input ends. `parent` is the process that asked for this one.
pub(super) fn run(role: Role, parent: u32) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the kernel knew of the signal.
    if getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()) != Some(parent) {
        return Ok(ExitCode::FAILURE);
    }
    rustix::thread::set_name(match role {
        Role::Client => c"lab-client",
        Role::Server => c"lab-server",
    })?;
    close_inherited();
    let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    raise_files(None)?;
    let mut sockets = Sockets::default();
    loop {
        sockets.wait(&channel)?;
        let Some((request, fd)) = channel.receive()? else { return Ok(ExitCode::SUCCESS) };
        let response = sockets.handle(request, fd).unwrap_or_else(|error| Response::Failed(error.to_string()));
        channel.send(&response, None)?;
    }
}

/// Closes inherited fds, so that the fd count of the lab is exact.
fn close_inherited() {
    const FIRST: libc::c_uint = 3;
    // Kernels before 5.9 lack the call: the fds stay.
    // SAFETY: nothing in this process owns a descriptor yet but the three standard streams.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
}

/// Sets the soft fd limit: to `soft`, or to the hard limit.
fn raise_files(soft: Option<u64>) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: soft.or(maximum), maximum })?;
    Ok(())
}

/// The sockets of a worker.
#[derive(Default)]
struct Sockets {
    /// Of a client.
    connected: Vec<Socket>,
    /// Of a server.
    accepting: Option<Accepting>,
}

/// A server's listener, which it shares with other workers, and the connections accepted from it.
struct Accepting {
    listener: Socket,
    most: usize,
    accepted: Vec<Socket>,
    locals: BTreeSet<SocketAddrV4>,
    /// The last refusal of accept(). The next request to report tries again.
    refused: Option<Refusal>,
}

impl Sockets {
    /// Accepts connections until a request arrives.
    fn wait(&mut self, channel: &Channel) -> io::Result<()> {
        loop {
            let listener = self.accepting.as_ref().filter(|it| it.wants_more()).map(|it| &it.listener);
            let mut fds = vec![PollFd::new(channel, PollFlags::IN)];
            fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            if ready.get(1) == Some(&true)
                && let Some(accepting) = &mut self.accepting
            {
                accepting.accept_all();
            }
            if ready[0] {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, request: Request, fd: Option<OwnedFd>) -> anyhow::Result<Response> {
        Ok(match request {
            Request::Connect(connect) => self.connect(connect)?,
            Request::Accept { most } => {
                let listener = Socket::from(fd.ok_or_else(|| anyhow::anyhow!("no listener came with the request"))?);
                listener.set_nonblocking(true)?;
                let most = usize::try_from(most)?;
                let (accepted, locals) = (Vec::new(), BTreeSet::new());
                self.accepting = Some(Accepting { listener, most, accepted, locals, refused: None });
                Response::Done
            }
            Request::ReportAccepted => self
                .accepting
                .as_mut()
                .map_or_else(|| Response::Accepted { count: 0, locals: Vec::new(), refused: None }, Accepting::report),
            Request::Close(how) => {
                let accepted = self.accepting.iter_mut().flat_map(|it| it.accepted.drain(..));
                for socket in self.connected.drain(..).chain(accepted) {
                    end(socket, how)?;
                }
                Response::Done
            }
            Request::LimitFiles { soft } => {
                // Listing takes an fd itself, and the old and the new limit may have no room for it.
                raise_files(None)?;
                let open = std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1;
                raise_files(Some(soft))?;
                Response::Files { open }
            }
        })
    }

    fn connect(&mut self, Connect { to, most, bind }: Connect) -> anyhow::Result<Response> {
        let mut nanos = Vec::new();
        let mut refused = None;
        while refused.is_none() && nanos.len() < usize::try_from(most)? {
            match open(to, bind) {
                Ok((socket, took)) => {
                    self.connected.push(socket);
                    nanos.push(u64::try_from(took.as_nanos())?);
                }
                Err((call, error)) => {
                    let errno = error.raw_os_error().ok_or(error)?;
                    refused = Some(Refusal { call: call.to_owned(), errno });
                }
            }
        }
        let opened = u32::try_from(nanos.len())?;
        nanos.sort_unstable();
        Ok(Response::Connected { opened, refused, connect_median_ns: nanos.get(nanos.len() / 2).copied().unwrap_or(0) })
    }
}

/// Opens a connection. Returns it with the duration of connect(), or the call that the kernel refused.
fn open(to: SocketAddrV4, bind: ClientBind) -> Result<(Socket, Duration), (&'static str, io::Error)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|error| ("socket", error))?;
    // A killed process must leave no TIME_WAIT. `CloseWith::Fin` sets this back.
    socket.set_linger(Some(Duration::ZERO)).map_err(|error| ("setsockopt", error))?;
    let from = match bind {
        ClientBind::Nothing => None,
        ClientBind::Address(ip) => {
            setsockopt(&socket, IpBindAddressNoPort, &true).map_err(|errno| ("setsockopt", errno.into()))?;
            Some(ip)
        }
        ClientBind::AddressAndPort(ip) => Some(ip),
    };
    if let Some(ip) = from {
        socket.bind(&SocketAddrV4::new(ip, 0).into()).map_err(|error| ("bind", error))?;
    }
    let began = Instant::now();
    socket.connect(&SockAddr::from(to)).map_err(|error| ("connect", error))?;
    Ok((socket, began.elapsed()))
}

fn end(socket: Socket, how: CloseWith) -> io::Result<()> {
    socket.set_linger(match how {
        CloseWith::Fin => None,
        CloseWith::Reset => Some(Duration::ZERO),
    })?;
    drop(socket);
    Ok(())
}

impl Accepting {
    fn wants_more(&self) -> bool {
        self.refused.is_none() && self.accepted.len() < self.most
    }

    /// Accepts the waiting connections, as far as there is room.
    fn accept_all(&mut self) {
        while self.wants_more() {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    self.locals.extend(socket.local_addr().ok().and_then(|at| match at.as_socket() {
                        Some(SocketAddr::V4(at)) => Some(at),
                        _ => None,
                    }));
                    self.accepted.push(socket);
                }
                // Another worker was faster, or the client is gone.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return,
                Err(error) => {
                    self.refused =
                        Some(Refusal { call: "accept".to_owned(), errno: error.raw_os_error().unwrap_or(0) });
                }
            }
        }
    }

    fn report(&mut self) -> Response {
        let refused = self.refused.take();
        self.accept_all();
        Response::Accepted {
            count: u32::try_from(self.accepted.len()).unwrap_or(u32::MAX),
            locals: self.locals.iter().copied().collect(),
            refused: self.refused.clone().or(refused),
        }
    }
}
