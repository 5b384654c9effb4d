//! A network namespace with servers, clients of every kind, and what connect() really gets there.

use std::{
    fs, io,
    net::{IpAddr, Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use observer::{
    engine::Engine,
    model::{
        headroom::PortUse,
        snapshot::{DestinationRow, Snapshot},
        units::TcpState,
    },
};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

use crate::{
    sockets::{local, reset, set_option, silent_listener, start_connect, state},
    support::{run, scan_until, set_sysctl, wait_until},
};

/// `IP_BIND_ADDRESS_NO_PORT` and `IP_LOCAL_PORT_RANGE` of include/uapi/linux/in.h.
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
const IP_LOCAL_PORT_RANGE: i32 = 51;
/// By what the kernel's stamps may differ from the clock.
const MILLISECOND: Duration = Duration::from_millis(1);

/// From a local ip to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) from: IpAddr,
    /// The socket is bound to the device `lo`.
    pub(super) on_lo: bool,
    pub(super) to: SocketAddr,
}

/// `FROM>TO`, `FROM%lo>TO`
pub(super) fn route(text: &str) -> Route {
    let (from, to) = text.split_once('>').unwrap();
    let (from, on_lo) = from.strip_suffix("%lo").map_or((from, false), |from| (from, true));
    Route { from: from.parse().unwrap(), on_lo, to: to.parse().unwrap() }
}

impl Route {
    /// The kernel would choose this local ip by itself.
    fn is_default(self) -> bool {
        let chosen =
            if self.to.ip().is_loopback() && self.to.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { self.to.ip() };
        self.from == chosen
    }
}

/// The same address as an IPv6 socket names it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Time in which a TIME_WAIT socket becomes one that connect() may take over.
#[derive(Clone, Copy)]
struct Ageing {
    from: Duration,
    until: Duration,
}

/// The namespace of the calling thread, and every socket in it.
pub(super) struct Stage {
    pub(super) range: (u16, u16),
    servers: Vec<Socket>,
    children: Vec<Socket>,
    pub(super) open: Vec<Socket>,
    ageing: Vec<Ageing>,
}

impl Stage {
    /// Ports of the servers; all take IPv4 and IPv6.
    pub(super) const SERVERS: [u16; 2] = [7000, 7001];
    /// The port of a server that no SYN reaches, by IPv4 only.
    pub(super) const SILENT: u16 = 7002;

    /// `low` and `high` bound the ephemeral ports. 10.1.0.1, 10.1.0.2, fd00::1 and fd00::2 are local addresses too.
    pub(super) fn new((low, high): (u16, u16)) -> Self {
        for address in ["10.1.0.1/32", "10.1.0.2/32"] {
            run("ip", &["address", "add", address, "dev", "lo"]);
        }
        for address in ["fd00::1/128", "fd00::2/128"] {
            run("ip", &["address", "add", address, "dev", "lo", "nodad"]);
        }
        let server = |port: u16| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(false).unwrap();
            socket.bind(&SocketAddr::new(IpAddr::from([0_u16; 8]), port).into()).unwrap();
            socket.listen(4096).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let mut servers: Vec<Socket> = Self::SERVERS.map(server).into();
        servers.push(silent_listener(SocketAddr::from(([0, 0, 0, 0], Self::SILENT))).unwrap());
        let mut stage =
            Self { range: (low, high), servers, children: Vec::new(), open: Vec::new(), ageing: Vec::new() };
        stage.set_range((low, high));
        // The kernel takes up IPv6 addresses in its own time. It lets connect() begin before it takes in what is sent
        // there, and a SYN that finds no way in ends its connection.
        let is_there = |text: &&str| {
            let Route { from, to, .. } = route(text);
            let client = Self::bound(from, 9, true, false);
            client.is_ok_and(|client| start_connect(&client, to).is_ok() && is_established(client))
        };
        wait_until("the IPv6 addresses", || {
            ["::1>[::1]:7000", "fd00::1>[fd00::2]:7000", "fd00::2>[fd00::1]:7000"].iter().all(is_there)
        });
        stage
    }

    pub(super) fn set_range(&mut self, (low, high): (u16, u16)) {
        self.range = (low, high);
        set_sysctl("ipv4/ip_local_port_range", &format!("{low} {high}"));
    }

    /// A socket towards `route` whose port is left to connect().
    fn unbound(route: Route, as_ipv6: bool) -> io::Result<(Socket, SocketAddr)> {
        let address = |address: SocketAddr| if as_ipv6 { mapped(address) } else { address };
        let to = address(route.to);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if route.on_lo {
            socket.bind_device(Some(b"lo"))?;
        }
        if !route.is_default() {
            set_option(&socket, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)?;
            socket.bind(&address(SocketAddr::new(route.from, 0)).into())?;
        }
        Ok((socket, to))
    }

    /// A plain connect().
    pub(super) fn connect(route: Route) -> io::Result<Socket> {
        let (socket, to) = Self::unbound(route, false)?;
        start_connect(&socket, to).map(|()| socket)
    }

    /// A plain connect() of an IPv6 socket, to a v4-mapped address where the route is IPv4.
    pub(super) fn connect_as_ipv6(route: Route) -> io::Result<Socket> {
        let (socket, to) = Self::unbound(route, true)?;
        start_connect(&socket, to).map(|()| socket)
    }

    /// connect() of a socket with a range of its own, `IP_LOCAL_PORT_RANGE`; `None` where the kernel does not have it.
    pub(super) fn connect_within(route: Route, low: u16, high: u16) -> Option<io::Result<Socket>> {
        let (socket, to) = Self::unbound(route, false).unwrap();
        let range = u32::from(high) << 16 | u32::from(low);
        set_option(&socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range.cast_signed()).ok()?;
        Some(start_connect(&socket, to).map(|()| socket))
    }

    /// A socket that bind() has given `port`; 0 leaves the choice to bind().
    pub(super) fn bound(ip: IpAddr, port: u16, reuse_address: bool, reuse_port: bool) -> io::Result<Socket> {
        let at = SocketAddr::new(ip, port);
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        socket.set_reuse_address(reuse_address)?;
        socket.set_reuse_port(reuse_port)?;
        socket.bind(&at.into())?;
        Ok(socket)
    }

    /// Opens `count` plain connections, or as many as there are ports for.
    pub(super) fn open(&mut self, route: Route, count: usize) -> usize {
        let before = self.open.len();
        self.open.extend((0..count).map_while(|_| Self::connect(route).ok()));
        self.open.len() - before
    }

    /// The server's end of a connection.
    pub(super) fn accepted(&mut self, client: &Socket) -> Socket {
        wait_for_answer(client);
        // One that was reset has no peer any more.
        let ends = |socket: &Socket| Some((local(socket), socket.peer_addr().ok()?.as_socket()?));
        let (from, to) = ends(client).expect("a connection");
        let server = &self.servers[usize::from(to.port() - Self::SERVERS[0])];
        let children = &mut self.children;
        let is_child = |child: &Socket| {
            ends(child).is_some_and(|(at, of)| (canonical(at), canonical(of)) == (canonical(to), canonical(from)))
        };
        wait_until("the accept queue has the connection", || {
            while let Ok((child, _)) = server.accept() {
                children.push(child);
            }
            children.iter().any(is_child)
        });
        let at = children.iter().position(is_child).unwrap();
        children.swap_remove(at)
    }

    /// The connection ends with its client in TIME_WAIT.
    pub(super) fn close_into_time_wait(&mut self, client: Socket) {
        let from = kernel_now();
        let child = self.accepted(&client);
        close_in_turn(client, &child);
        self.ageing.push(ageing(from.saturating_sub(MILLISECOND), kernel_now()));
    }

    /// The connection ends with its server in TIME_WAIT.
    pub(super) fn close_server_first(&mut self, client: &Socket) {
        let child = self.accepted(client);
        close_in_turn(child, client);
    }

    /// The client closes, the server does not.
    pub(super) fn close_into_fin_wait_2(&mut self, client: Socket) {
        let child = self.accepted(&client);
        drop(client);
        wait_until("the FIN", || state(&child) == Some(TcpState::CloseWait));
        self.children.push(child);
    }

    /// Waits for the beginning of a second on the kernel's clock, in which kernels before 6.14 count ages.
    pub(super) fn start_with_a_second() {
        park_until(Duration::from_secs(kernel_now().as_secs() + 1));
    }

    /// Waits until every TIME_WAIT socket is old enough for connect() to reuse its port.
    pub(super) fn wait_until_reusable(&self) {
        park_until(self.ageing.iter().map(|it| it.until).max().unwrap_or_default());
    }

    /// Waits until no TIME_WAIT socket becomes reusable within this time.
    pub(super) fn wait_until_settled(&self, counting_time: Duration) {
        loop {
            let now = kernel_now();
            let is_near = |it: &&Ageing| it.from < now + counting_time && it.until > now;
            let Some(near) = self.ageing.iter().find(is_near) else { break };
            park_until(near.until);
        }
    }

    /// Whether no TIME_WAIT socket has become reusable since.
    pub(super) fn is_settled_since(&self, since: Duration) -> bool {
        let now = kernel_now();
        !self.ageing.iter().any(|it| it.from <= now && it.until >= since)
    }

    /// Connects until the kernel says that there is no port; returns how many it gave.
    pub(super) fn exhaust(&mut self, route: Route) -> u32 {
        let before = self.open.len();
        let refused = loop {
            match Self::connect(route) {
                Ok(socket) => self.open.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{route:?}: {refused}");
        u32::try_from(self.open.len() - before).unwrap()
    }

    /// In a range of odd size the last call passes over the lowest port or the highest: each is asked for alone.
    /// Returns how many the kernel gave.
    pub(super) fn exhaust_edges(&mut self, route: Route) -> u32 {
        let before = self.open.len();
        let (low, high) = self.range;
        if low != high && (high - low) % 2 == 0 {
            for port in [low, high] {
                self.set_range((port, port));
                self.open.extend(Self::connect(route));
            }
            self.set_range((low, high));
        }
        u32::try_from(self.open.len() - before).unwrap()
    }

    /// Ends the last connections with a reset, and waits until the kernel has let go of them: a process that another
    /// test starts holds copies of every descriptor until its exec, and the last copy is the one whose close counts.
    pub(super) fn reset_last(&mut self, count: usize) {
        let leaving = self.open.split_off(self.open.len() - count);
        let names: Vec<String> = leaving.iter().map(|it| format!("sk:{:x}", it.cookie().unwrap())).collect();
        leaving.into_iter().for_each(reset);
        wait_until("the end of what was reset", || {
            let sockets = run("ss", &["-Htane"]);
            !sockets.split_whitespace().any(|word| names.iter().any(|name| name == word))
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.open.drain(..).chain(self.children.drain(..)).for_each(reset);
    }
}

/// What `observer` says of the ports from one ip to one server; `None` if it knows of no socket between them.
pub(super) fn ports(snapshot: &Snapshot, route: Route) -> Option<PortUse> {
    let mut rows = snapshot.endpoints.iter().flat_map(|row| &row.destinations);
    let is_it = |row: &&DestinationRow| {
        (row.local_ip, !row.device.is_none(), row.remote) == (route.from, route.on_lo, route.to)
    };
    rows.find(is_it)?.ports
}

/// Scans, and returns the predicted number of connect()s left.
pub(super) fn predict(engine: &mut Engine, route: Route) -> u32 {
    let known = scan_until(engine, "a row for this destination", |engine| {
        ports(&engine.snapshot(usize::MAX), route).ok_or_else(|| format!("no row for {route:?}"))
    });
    known.left().expect("bind buckets can be read")
}

/// connect() does not wait here, and a kernel with much to do answers the SYN later, on loopback too.
fn wait_for_answer(client: &Socket) {
    wait_until("the end of the handshake", || state(client) != Some(TcpState::SynSent));
}

/// Waits for what comes of a handshake, and ends the connection with a reset.
fn is_established(client: Socket) -> bool {
    wait_for_answer(&client);
    let reached = state(&client);
    reset(client);
    reached == Some(TcpState::Established)
}

/// Closes both ends. When the second end's FIN is acknowledged, the first one is in TIME_WAIT.
fn close_in_turn(first: Socket, last: &Socket) {
    drop(first);
    wait_until("the first FIN", || state(last) == Some(TcpState::CloseWait));
    last.shutdown(Shutdown::Write).unwrap();
    wait_until("the last acknowledgement", || state(last) == Some(TcpState::Closed));
}

/// When a TIME_WAIT socket that began between these times may be taken over, by the rule of the running kernel.
fn ageing(from: Duration, until: Duration) -> Ageing {
    match fs::read_to_string("/proc/sys/net/ipv4/tcp_tw_reuse_delay") {
        Ok(delay) => {
            let delay = Duration::from_millis(delay.trim().parse().unwrap());
            Ageing { from: from + delay, until: until + delay + 2 * MILLISECOND }
        }
        // Before 6.14: with the next whole second.
        Err(_) => Ageing {
            from: Duration::from_secs(from.as_secs() + 1),
            until: Duration::from_secs(until.as_secs() + 1) + MILLISECOND,
        },
    }
}

/// The clock by which the kernel ages TIME_WAIT: before 6.14 one that ticks move, and a busy CPU's tick is late.
pub(super) fn kernel_now() -> Duration {
    let has_milliseconds = fs::exists("/proc/sys/net/ipv4/tcp_tw_reuse_delay").unwrap();
    let clock = if has_milliseconds { ClockId::Monotonic } else { ClockId::MonotonicCoarse };
    clock_gettime(clock).try_into().unwrap()
}

fn park_until(time: Duration) {
    while let Some(left) = time.checked_sub(kernel_now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
