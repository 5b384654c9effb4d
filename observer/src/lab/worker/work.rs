//! The worker process itself: holds sockets, and does what it is told. It ends when its line ends or its parent does,
//! whatever the reason, and all that it held ends with it.

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
    order::{Answer, Bind, Connect, Goodbye, Line, Order, Refusal},
};

/// Works until the line on standard input ends. `parent` is the process that asked for this one.
pub(super) fn run(role: Role, parent: u32) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before it was to be told of.
    if getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()) != Some(parent) {
        return Ok(ExitCode::FAILURE);
    }
    rustix::thread::set_name(match role {
        Role::Client => c"lab-client",
        Role::Server => c"lab-server",
    })?;
    close_inherited();
    let line = Line::new(io::stdin().as_fd().try_clone_to_owned()?);
    raise_files(None)?;
    let mut worker = Held::default();
    loop {
        worker.wait(&line)?;
        let Some((order, fd)) = line.receive()? else { return Ok(ExitCode::SUCCESS) };
        let answer = worker.obey(order, fd).unwrap_or_else(|error| Answer::Failed(error.to_string()));
        line.send(&answer, None)?;
    }
}

/// Closes what somebody further up has left open, so that the process holds what it was given and nothing else.
fn close_inherited() {
    const FIRST: libc::c_uint = 3;
    // A kernel before 5.9 does not have the call: then they stay.
    // SAFETY: nothing in this process owns a descriptor yet but the three standard streams.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
}

/// Sets the soft limit of descriptors; to the hard one without a number.
fn raise_files(soft: Option<u64>) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: soft.or(maximum), maximum })?;
    Ok(())
}

/// What a worker holds.
#[derive(Default)]
struct Held {
    /// As a client.
    connected: Vec<Socket>,
    accepting: Option<Accepting>,
}

/// A server's listener, shared with other workers, and what was accepted from it.
struct Accepting {
    listener: Socket,
    most: usize,
    accepted: Vec<Socket>,
    locals: BTreeSet<SocketAddrV4>,
    /// It is not asked again until somebody wants to know.
    refused: Option<Refusal>,
}

impl Held {
    /// Accepts until there is something on the line.
    fn wait(&mut self, line: &Line) -> io::Result<()> {
        loop {
            let listener = self.accepting.as_ref().filter(|it| it.wants_more()).map(|it| &it.listener);
            let mut fds = vec![PollFd::new(line, PollFlags::IN)];
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

    fn obey(&mut self, order: Order, fd: Option<OwnedFd>) -> anyhow::Result<Answer> {
        Ok(match order {
            Order::Connect(connect) => self.connect(connect)?,
            Order::Accept { most } => {
                let listener = Socket::from(fd.ok_or_else(|| anyhow::anyhow!("no listener came"))?);
                listener.set_nonblocking(true)?;
                let most = usize::try_from(most)?;
                let (accepted, locals) = (Vec::new(), BTreeSet::new());
                self.accepting = Some(Accepting { listener, most, accepted, locals, refused: None });
                Answer::Done
            }
            Order::Tell => self
                .accepting
                .as_mut()
                .map_or_else(|| Answer::Accepted { held: 0, locals: Vec::new(), refused: None }, Accepting::tell),
            Order::Close(goodbye) => {
                let accepted = self.accepting.iter_mut().flat_map(|it| it.accepted.drain(..));
                for socket in self.connected.drain(..).chain(accepted) {
                    end(socket, goodbye)?;
                }
                Answer::Done
            }
            Order::LimitFiles { soft } => {
                // The listing is a descriptor itself, for which either limit may have no room.
                raise_files(None)?;
                let open = std::fs::read_dir("/proc/self/fd")?.count() as u64 - 1;
                raise_files(Some(soft))?;
                Answer::Files { open }
            }
        })
    }

    fn connect(&mut self, Connect { to, most, bind }: Connect) -> anyhow::Result<Answer> {
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
        Ok(Answer::Connected { opened, refused, median_nanos: nanos.get(nanos.len() / 2).copied().unwrap_or(0) })
    }
}

/// One connection, and how long connect() took; or the call that was refused.
fn open(to: SocketAddrV4, bind: Bind) -> Result<(Socket, Duration), (&'static str, io::Error)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|error| ("socket", error))?;
    // Whatever ends this process leaves no TIME_WAIT behind; an orderly end is asked for by name.
    socket.set_linger(Some(Duration::ZERO)).map_err(|error| ("setsockopt", error))?;
    let from = match bind {
        Bind::Nothing => None,
        Bind::Address(ip) => {
            setsockopt(&socket, IpBindAddressNoPort, &true).map_err(|errno| ("setsockopt", errno.into()))?;
            Some(ip)
        }
        Bind::AddressAndPort(ip) => Some(ip),
    };
    if let Some(ip) = from {
        socket.bind(&SocketAddrV4::new(ip, 0).into()).map_err(|error| ("bind", error))?;
    }
    let began = Instant::now();
    socket.connect(&SockAddr::from(to)).map_err(|error| ("connect", error))?;
    Ok((socket, began.elapsed()))
}

fn end(socket: Socket, goodbye: Goodbye) -> io::Result<()> {
    socket.set_linger(match goodbye {
        Goodbye::Fin => None,
        Goodbye::Reset => Some(Duration::ZERO),
    })?;
    drop(socket);
    Ok(())
}

impl Accepting {
    fn wants_more(&self) -> bool {
        self.refused.is_none() && self.accepted.len() < self.most
    }

    /// Accepts what waits, as far as there is room.
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
                // Another worker was quicker, or the client is gone.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return,
                Err(error) => {
                    self.refused =
                        Some(Refusal { call: "accept".to_owned(), errno: error.raw_os_error().unwrap_or(0) });
                }
            }
        }
    }

    fn tell(&mut self) -> Answer {
        let refused = self.refused.take();
        self.accept_all();
        Answer::Accepted {
            held: u32::try_from(self.accepted.len()).unwrap_or(u32::MAX),
            locals: self.locals.iter().copied().collect(),
            refused: self.refused.clone().or(refused),
        }
    }
}
