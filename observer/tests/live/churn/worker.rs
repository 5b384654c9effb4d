//! One process of the churn: it takes random steps, alone and with its neighbours, until it has taken enough. Then it
//! keeps its sockets open.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr},
    os::unix::net::UnixStream,
    process::Command,
};

use socket2::Socket;

use crate::random::Random;
use crate::{
    processes::output,
    sockets::{
        disconnect, drop_incoming_packets, fast_open, fast_open_listener, local, multipath, pass, reset,
        self_connected, set_option, silent_listener, simultaneous_open, socket, start_connect, take,
    },
    support::{listen, run, wait_until},
};

/// After this many steps a worker sends a byte to the test.
pub(super) const STEPS_PER_REPORT: u32 = 100;
/// So many reports may be without an answer: the records of as many steps of six workers fill half of the program's ring.
const REPORTS_AHEAD: u32 = 20;
/// The most sockets of a worker: no `ulimit -n` is as low.
const HELD_AT_MOST: usize = 300;
/// First port of the first worker; each has [`PORTS`] of them.
const FIRST_PORT: u16 = 7000;
const PORTS: u16 = 20;

/// The task of a worker.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) index: u16,
    pub(super) workers: u16,
    pub(super) steps: u32,
    pub(super) seed: u64,
}

impl Task {
    pub(super) fn to_words(self) -> String {
        format!("{} {} {} {}", self.index, self.workers, self.steps, self.seed)
    }

    fn from_words(words: &str) -> Self {
        let mut words = words.split(' ').map(|word| word.parse::<u64>().unwrap());
        let mut next = || words.next().unwrap();
        Self {
            index: u16::try_from(next()).unwrap(),
            workers: u16::try_from(next()).unwrap(),
            steps: u32::try_from(next()).unwrap(),
            seed: next(),
        }
    }
}

/// Runs a worker.
pub(super) fn work(task: &str, mut channel: &UnixStream) {
    let task = Task::from_words(task);
    let mut worker = Worker::new(task);
    // All of them listen before any of them connects.
    channel.write_all(b".").unwrap();
    channel.read_exact(&mut [0]).unwrap();
    for step in 1..=task.steps {
        if let Err(error) = worker.step()
            && !is_expected(&error)
        {
            panic!("step {step} of {}: {error}", task.to_words());
        }
        if step % STEPS_PER_REPORT == 0 {
            channel.write_all(b".").unwrap();
            if step > REPORTS_AHEAD * STEPS_PER_REPORT {
                channel.read_exact(&mut [0]).unwrap();
            }
        }
    }
    // Until the test closes the channel.
    while let Ok(1) = channel.read(&mut [0]) {}
}

/// Whether a step may end in this error. Sockets may refuse steps in any state. But running out of resources and wrong
/// calls are errors of the test.
fn is_expected(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    !matches!(code, None | Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EBADF | libc::EFAULT | libc::EPERM))
}

/// Where a worker listens, in the order of its ports.
const V4: usize = 0;
const V6: usize = 1;
const FAST: usize = 2;
const MULTIPATH: usize = 3;
const SHARED: usize = 4;
const SHARED_TOO: usize = 5;
const LISTENERS: usize = 6;

struct Worker {
    task: Task,
    random: Random,
    listeners: Vec<Socket>,
    /// Never accepted from, and no SYN gets there.
    silent: Socket,
    held: Vec<Socket>,
    through: (UnixStream, UnixStream),
}

impl Worker {
    fn new(task: Task) -> Self {
        let listeners = (0..LISTENERS).map(|which| open_listener(task.index, which)).collect();
        Self {
            task,
            random: Random::new(task.seed ^ u64::from(task.index) << 32),
            listeners,
            silent: silent_listener(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(task.index, 10))).unwrap(),
            held: Vec::new(),
            through: UnixStream::pair().unwrap(),
        }
    }

    fn step(&mut self) -> io::Result<()> {
        while self.held.len() > HELD_AT_MOST {
            self.close_any();
        }
        match self.random.below(100) {
            0..15 => self.open_and_hold()?,
            15..35 => self.open_and_close()?,
            35..45 => self.close_any(),
            45..50 => self.shut_down_any()?,
            50..54 => self.reset_any(),
            54..58 => self.write_to_any()?,
            58..61 => self.move_any_elsewhere()?,
            61..65 => self.connect_after_refusals()?,
            65..75 => self.connect_to_a_neighbour()?,
            75..80 => self.accept_what_waits(),
            80..82 => {
                let socket = self_connected(self.any_ip())?;
                self.held.push(socket);
            }
            82..84 => {
                let (first, second) = simultaneous_open(self.any_ip())?;
                self.held.extend([first, second]);
            }
            84..86 => self.wait_in_vain()?,
            86..88 => self.close_over_children()?,
            88..91 => self.send_with_the_syn()?,
            91..93 => self.open_multipath()?,
            93..94 => self.run_out_of_ports()?,
            94..96 => self.drop_packets_to_any()?,
            96..97 => self.listen_again(),
            97..99 => self.pass_any()?,
            // What takes a process of its own is rare.
            _ => match self.random.below(10) {
                0 => self.be_killed()?,
                1 => self.kill_by_ss(),
                _ => {}
            },
        }
        Ok(())
    }

    fn open_and_hold(&mut self) -> io::Result<()> {
        let (client, server) = self.open()?;
        self.held.extend([client, server]);
        Ok(())
    }

    fn open_and_close(&mut self) -> io::Result<()> {
        let (client, server) = self.open()?;
        let (first, second) = if self.random.below(2) == 0 { (client, server) } else { (server, client) };
        match self.random.below(4) {
            0 => reset(first),
            1 => {
                // Unread data turns the close into a reset.
                second.send(b"x")?;
                drop(first);
            }
            2 => {
                first.shutdown(Shutdown::Write)?;
                second.send(b"x")?;
                drop(first);
            }
            _ => drop(first),
        }
        drop(second);
        Ok(())
    }

    /// A connection to one of the own listeners. The accepted end may be that of a neighbour, who came before.
    fn open(&mut self) -> io::Result<(Socket, Socket)> {
        let which = self.random.below(LISTENERS);
        let to = self.target(self.task.index, which);
        let client = socket(to);
        start_connect(&client, to)?;
        let server = match which {
            SHARED | SHARED_TOO => self.listeners[SHARED].accept().or_else(|_| self.listeners[SHARED_TOO].accept()),
            _ => self.listeners[which].accept(),
        };
        Ok((client, server?.0))
    }

    fn connect_to_a_neighbour(&mut self) -> io::Result<()> {
        let neighbour = u16::try_from(self.random.below(usize::from(self.task.workers))).unwrap();
        let which = self.random.below(LISTENERS);
        let to = self.target(neighbour, which);
        let client = socket(to);
        start_connect(&client, to)?;
        self.held.push(client);
        Ok(())
    }

    fn accept_what_waits(&mut self) {
        for listener in &self.listeners {
            while let Ok((socket, _)) = listener.accept() {
                self.held.push(socket);
            }
        }
    }

    fn shut_down_any(&mut self) -> io::Result<()> {
        let how = [Shutdown::Write, Shutdown::Read, Shutdown::Both][self.random.below(3)];
        self.any().map_or(Ok(()), |socket| socket.shutdown(how))
    }

    fn reset_any(&mut self) {
        if let Some(socket) = self.take_any() {
            reset(socket);
        }
    }

    fn write_to_any(&mut self) -> io::Result<()> {
        self.any()
            .map_or(Ok(()), |socket| socket.send_with_flags(b"x", libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).map(drop))
    }

    fn drop_packets_to_any(&mut self) -> io::Result<()> {
        // One that keeps listening on the own address would hang its clients: only what is held is made silent.
        self.any().map_or(Ok(()), drop_incoming_packets)
    }

    /// The same socket, first here, then there.
    fn move_any_elsewhere(&mut self) -> io::Result<()> {
        let which = self.random.below(LISTENERS);
        let to = self.target(self.task.index, which);
        let Some(socket) = self.any() else { return Ok(()) };
        disconnect(socket)?;
        start_connect(socket, to)
    }

    fn connect_after_refusals(&mut self) -> io::Result<()> {
        let client = socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        for _ in 0..=self.random.below(3) {
            let _ = start_connect(&client, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
            // The error is taken, and the socket is as new.
            client.take_error()?;
        }
        start_connect(&client, self.target(self.task.index, V4))?;
        self.held.push(client);
        Ok(())
    }

    fn wait_in_vain(&mut self) -> io::Result<()> {
        let client = socket(local(&self.silent));
        if self.random.below(2) == 0 {
            // It fails at the first retransmission, a second from now.
            set_option(&client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1)?;
        }
        start_connect(&client, local(&self.silent))?;
        self.held.push(client);
        Ok(())
    }

    fn close_over_children(&mut self) -> io::Result<()> {
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(self.task.index, 11));
        let listener = socket(at);
        listener.bind(&at.into())?;
        listener.listen(16)?;
        for _ in 0..3 {
            let client = socket(at);
            start_connect(&client, at)?;
            self.held.push(client);
        }
        Ok(())
    }

    fn send_with_the_syn(&mut self) -> io::Result<()> {
        let to = self.target(self.task.index, FAST);
        let client = socket(to);
        client.set_nonblocking(true)?;
        if self.random.below(8) == 0 {
            drop_incoming_packets(&client)?;
        }
        fast_open(&client, to)?;
        self.held.push(client);
        self.accept_what_waits();
        Ok(())
    }

    fn open_multipath(&mut self) -> io::Result<()> {
        let to = self.target(self.task.index, MULTIPATH);
        let Some(client) = multipath(to) else { return Ok(()) };
        start_connect(&client, to)?;
        self.held.push(client);
        self.accept_what_waits();
        Ok(())
    }

    /// Two sockets that may have one port, towards one destination.
    fn run_out_of_ports(&mut self) -> io::Result<()> {
        const IP_LOCAL_PORT_RANGE: i32 = 51;
        let to = self.target(self.task.index, V4);
        let only = 50_000 + i32::from(self.task.index);
        for _ in 0..2 {
            let client = socket(to);
            set_option(&client, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, only << 16 | only)?;
            start_connect(&client, to)?;
            self.held.push(client);
        }
        Ok(())
    }

    /// Accepted connections stay open without their listener, the kernel resets the others. Then it listens again.
    fn listen_again(&mut self) {
        let which = self.random.below(LISTENERS);
        let placeholder = socket(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        drop(std::mem::replace(&mut self.listeners[which], placeholder));
        self.listeners[which] = open_listener(self.task.index, which);
    }

    /// Through a Unix socket, and closed here in between.
    fn pass_any(&mut self) -> io::Result<()> {
        let Some(socket) = self.take_any() else { return Ok(()) };
        pass(&self.through.0, &socket)?;
        drop(socket);
        self.held.push(take(&self.through.1)?.into());
        Ok(())
    }

    /// `kill -9` of a process that holds connections: a shell opens them and kills itself.
    fn be_killed(&mut self) -> io::Result<()> {
        let own = port(self.task.index, V4);
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{own} 4<>/dev/tcp/127.0.0.1/{own}; kill -9 $$");
        output(Command::new("bash").args(["-c", &script]))?;
        self.accept_what_waits();
        Ok(())
    }

    fn kill_by_ss(&mut self) {
        let ports = |socket: &Socket| {
            Some(
                [socket.local_addr(), socket.peer_addr()]
                    .map(|at| at.ok()?.as_socket().map(|at| at.port().to_string())),
            )
        };
        let Some([Some(local), Some(remote)]) = self.any().and_then(ports) else { return };
        run("ss", &["-K", "-tn", "state", "connected", "sport", "=", &local, "dport", "=", &remote]);
    }

    fn close_any(&mut self) {
        drop(self.take_any());
    }

    fn any(&mut self) -> Option<&Socket> {
        let count = self.held.len();
        (count > 0).then(|| &self.held[self.random.below(count)])
    }

    fn take_any(&mut self) -> Option<Socket> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(self.random.below(count)))
    }

    /// An address of a listener: IPv4, IPv6, or v4-mapped where it takes both families.
    fn target(&mut self, worker: u16, which: usize) -> SocketAddr {
        let ip = match which {
            V6 => ["::1", "::ffff:127.0.0.1", "127.0.0.1"][self.random.below(3)],
            _ => "127.0.0.1",
        };
        SocketAddr::new(ip.parse().unwrap(), port(worker, which))
    }

    fn any_ip(&mut self) -> SocketAddr {
        let ip: IpAddr = ["127.0.0.1", "::1", "127.0.0.2"][self.random.below(3)].parse().unwrap();
        SocketAddr::new(ip, 0)
    }
}

/// Port `which` of a worker; the two listeners that share an address share a port.
fn port(worker: u16, which: usize) -> u16 {
    let which = if which == SHARED_TOO { SHARED } else { which };
    FIRST_PORT + worker * PORTS + u16::try_from(which).unwrap()
}

fn open_listener(worker: u16, which: usize) -> Socket {
    let port = port(worker, which);
    let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let listener = match which {
        V6 => listen(&format!("[::]:{port}"), 128).into(),
        FAST => fast_open_listener(v4).unwrap(),
        MULTIPATH => {
            let listener = multipath(v4).unwrap_or_else(|| socket(v4));
            // The kernel may end the subflow of the listener before a moment after its close().
            wait_until("the port of a multipath listener", || match listener.bind(&v4.into()) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => false,
                bound => bound.map(|()| true).unwrap(),
            });
            listener.listen(128).unwrap();
            listener
        }
        SHARED | SHARED_TOO => {
            let listener = socket(v4);
            listener.set_reuse_port(true).unwrap();
            listener.bind(&v4.into()).unwrap();
            listener.listen(128).unwrap();
            listener
        }
        _ => listen(&v4.to_string(), 128).into(),
    };
    listener.set_nonblocking(true).unwrap();
    listener
}
