//! One scenario: its seed decides what happens in its namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use observer::{engine::Engine, model::headroom::PortUse};
use socket2::Socket;

use super::{
    batch::{Coverage, Outcome},
    stage::{Route, Stage, kernel_now, ports, route},
};
use crate::{
    random::Random,
    sockets::{disconnect, local, reset, start_connect},
    support::{observe, set_sysctl, wait_until},
};

const ROUTES: [&str; 9] = [
    "127.0.0.1>127.0.0.1:7000",
    "127.0.0.1>127.0.0.1:7001",
    "127.0.0.2>127.0.0.1:7000",
    "10.1.0.2>10.1.0.2:7000",
    "10.1.0.1>10.1.0.2:7001",
    "::1>[::1]:7000",
    "fd00::1>[fd00::2]:7001",
    // No server answers there: its clients stay in SYN_SENT.
    "127.0.0.1>127.0.0.1:7002",
    // With a server that answers, two clients of one four-tuple on different devices would disturb each other.
    "127.0.0.1%lo>127.0.0.1:7002",
];
const ADDRESSES: [&str; 6] = ["0.0.0.0", "127.0.0.1", "127.0.0.3", "10.1.0.1", "::", "::1"];

/// The prediction and the count of one destination.
pub(super) struct Count {
    route: Route,
    predicted: PortUse,
    /// How many ports connect() found.
    got: u32,
    /// How many of the lowest and the highest port were free then.
    edges: u32,
}

pub(super) struct Scenario {
    seed: u64,
    random: Random,
    pub(super) stage: Stage,
    routes: Vec<Route>,
    engine: Option<Engine>,
    /// Whether something happened that makes no event.
    needs_scan: bool,
    /// The steps so far, for the report of a failure.
    steps: Vec<String>,
}

impl Scenario {
    /// The first part of the scenario. Its TIME_WAIT sockets need time to become reusable.
    pub(super) fn prepare(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let low = 20_000 + u16::try_from(random.below(20_000)).unwrap();
        let size = match random.below(8) {
            0 => 1 + random.below(4),
            _ => 5 + random.below(116),
        };
        let high = low + u16::try_from(size).unwrap() - 1;
        let mut steps = Vec::new();
        let mut sysctl = |name: &str, value: &str| {
            set_sysctl(name, value);
            steps.push(format!("{name} = {value}"));
        };
        sysctl("ipv4/tcp_tw_reuse", &random.below(3).to_string());
        if random.below(8) == 0 {
            sysctl("ipv4/tcp_timestamps", "0");
        }
        if random.below(2) == 0 {
            let mut port = || low + u16::try_from(random.below(size + 5)).unwrap();
            let (one, from) = (port(), port());
            sysctl("ipv4/ip_local_reserved_ports", &format!("{one},{from}-{}", from + 3));
        }
        let stage = Stage::new((low, high));
        let mut routes: Vec<Route> = ROUTES.map(route).into();
        while routes.len() > 3 {
            routes.swap_remove(random.below(routes.len()));
        }
        // A scan shows the port of a client in SYN_SENT, unless the connect hook reports it.
        let needs_scan = routes.iter().any(|route| route.to.port() == Stage::SILENT);
        let mut scenario = Self { seed, random, stage, routes, engine: None, needs_scan, steps };
        // Clients from before the range was narrowed lie outside of it.
        if scenario.random.below(3) == 0 {
            scenario.stage.set_range((low, high + 40));
            scenario.steps(3);
            scenario.stage.set_range((low, high));
        }
        scenario.maybe_observe();
        scenario.steps(4);
        scenario
    }

    /// The second part; then observer predicts each destination, and the test counts it. `None` if a TIME_WAIT socket
    /// became reusable during that.
    pub(super) fn finish(&mut self, counting_time: Duration) -> Option<Vec<Count>> {
        self.steps(2);
        self.maybe_observe();
        self.steps(3);
        for route in self.routes.clone() {
            self.keep(Stage::connect(route));
        }
        let is_new = self.engine.is_none();
        let engine = self.engine.get_or_insert_with(observe);
        if self.needs_scan || self.random.below(2) == 0 {
            engine.scan().unwrap();
            self.steps.push("scan".to_owned());
        } else if !is_new {
            self.steps.push("no scan".to_owned());
        }
        let mut counted = Vec::new();
        for route in &self.routes {
            self.stage.wait_until_settled(counting_time);
            let since = kernel_now();
            engine.poll().unwrap();
            // A scan shows which ports it shares with others in SYN_SENT, unless the connect hook reports it.
            if route.on_lo {
                engine.scan().unwrap();
            }
            let mut snapshot = engine.snapshot(usize::MAX);
            // Events can get lost. Other tests check that observer reports this and that a scan corrects it.
            if snapshot.quality.losses.total() > 0 {
                engine.scan().unwrap();
                snapshot = engine.snapshot(usize::MAX);
            }
            // Without a port for it, there may be no socket and no row.
            let Some(predicted) = ports(&snapshot, *route) else { continue };
            let (got, edges) = (self.stage.exhaust(*route), self.stage.exhaust_edges(*route));
            if !self.stage.is_settled_since(since) {
                return None;
            }
            counted.push(Count { route: *route, predicted, got, edges });
        }
        Some(counted)
    }

    pub(super) fn judge(&self, counted: Option<&[Count]>) -> Outcome {
        let Some(counted) = counted else {
            return Outcome::Unsettled(
                self.seed,
                format!(
                    "OBSERVER_HEADROOM_SEED={}: a TIME_WAIT socket became reusable while the ports were counted",
                    self.seed
                ),
            );
        };
        let by_events_alone = self.steps.last().is_some_and(|step| step == "no scan");
        let mut coverage = Coverage::default();
        for Count { route, predicted, got, edges } in counted {
            let PortUse { range, reserved, passed_over, blocked, used, time_wait, time_wait_reusable, .. } = *predicted;
            let parts = reserved + passed_over + blocked.unwrap_or(0) + used + time_wait + predicted.left_at_most();
            let is_within = predicted.left().is_some_and(|left| (left..=predicted.left_at_most()).contains(got));
            // connect() never tries the highest of three ports.
            let is_right = is_within && (range == 3 || got + edges == predicted.left_at_most());
            if !is_right || parts != range {
                let report = format!(
                    "OBSERVER_HEADROOM_SEED={}: ports {:?}: {got} and {edges} of the edges towards {route:?} instead \
                     of {predicted:?}, after\n{}",
                    self.seed,
                    self.stage.range,
                    self.steps.join("\n")
                );
                return if by_events_alone {
                    Outcome::Unsettled(self.seed, format!("by events alone: {report}"))
                } else {
                    Outcome::Wrong(report)
                };
            }
            coverage.add(Coverage {
                all: 1,
                blocked: u32::from(blocked > Some(0)),
                time_wait: u32::from(time_wait > 0),
                reused: u32::from(time_wait_reusable > 0),
                odd: u32::from(range % 2 == 1),
                by_events_alone: u32::from(by_events_alone),
                not_obvious: u32::from(used + got != range),
            });
        }
        Outcome::Right(coverage)
    }

    /// Starts the engine, or leaves it for later. Events report what comes after the start.
    fn maybe_observe(&mut self) {
        if self.engine.is_none() && self.random.below(2) == 0 {
            self.engine = Some(observe());
            self.steps.push("observe".to_owned());
        }
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            let route = self.routes[self.random.below(self.routes.len())];
            let is_silent = route.to.port() == Stage::SILENT;
            let count = 1 + self.random.below(9);
            let kind = match self.random.below(22) {
                // These need a server that answers.
                7..=10 | 17.. if is_silent => 0,
                // Of these there cannot be too many.
                17.. => 7,
                kind => kind,
            };
            let before = self.stage.open.len();
            let what = self.step(kind, route, count);
            let opened = self.stage.open.len().saturating_sub(before);
            self.steps.push(format!("{what} ×{count} towards {route:?}: {opened} opened"));
        }
    }

    fn step(&mut self, kind: usize, route: Route, count: usize) -> &'static str {
        match kind {
            0 | 1 => {
                self.stage.open(route, count * 2);
                "connect"
            }
            2 => {
                self.times(count, |_| Stage::connect_as_ipv6(route));
                "connect by an IPv6 socket"
            }
            3 => {
                self.times(count, Self::bind);
                self.needs_scan |= self.engine.is_some();
                "bind"
            }
            4 => {
                self.times(count, |it| {
                    let socket = Stage::bound(route.from, it.port(), it.random.below(2) == 0, false)?;
                    start_connect(&socket, route.to).map(|()| socket)
                });
                "bind and connect"
            }
            5 => {
                self.times(count, |it| {
                    let socket = Stage::bound(route.from, 0, it.random.below(2) == 0, false)?;
                    start_connect(&socket, route.to).map(|()| socket)
                });
                "bind port 0 and connect"
            }
            6 => {
                self.times(count, |it| Stage::bound(it.address(), 0, false, false));
                self.needs_scan |= self.engine.is_some();
                "bind port 0"
            }
            7 => {
                self.clients(route, count, false, Stage::close_into_time_wait);
                "TIME_WAIT"
            }
            8 => {
                self.clients(route, count, true, Stage::close_into_time_wait);
                "TIME_WAIT of a bound client"
            }
            9 => {
                self.clients(route, count, false, Stage::close_into_fin_wait_2);
                "FIN_WAIT2"
            }
            10 => {
                self.clients(route, count, false, |stage, client| stage.close_server_first(&client));
                "TIME_WAIT of the server"
            }
            _ => self.unusual_step(kind, route, count),
        }
    }

    /// The steps that are not a plain bind(), connect() or close().
    fn unusual_step(&mut self, kind: usize, route: Route, count: usize) -> &'static str {
        match kind {
            11 => {
                self.times(count, |it| {
                    let socket = it.bind()?;
                    socket.listen(4)?;
                    Ok(socket)
                });
                "listen"
            }
            12 => {
                self.leave_child();
                "child of a listener that is gone"
            }
            13 => {
                self.bind_beside();
                "bind beside a client, and close"
            }
            14 => {
                let (low, high) = self.stage.range;
                self.times(count, |_| {
                    Stage::connect_within(route, low, low + (high - low) / 2).unwrap_or_else(|| Stage::connect(route))
                });
                "connect within a range of its own"
            }
            15 => {
                self.keep_bound(route, count);
                "bind, connect and disconnect or be refused"
            }
            _ => {
                let count = count.min(self.stage.open.len());
                self.stage.reset_last(count);
                "reset"
            }
        }
    }

    fn times(&mut self, count: usize, mut make: impl FnMut(&mut Self) -> io::Result<Socket>) {
        for _ in 0..count {
            let socket = make(self);
            self.keep(socket);
        }
    }

    /// Keeps a socket; none is made where the port is taken already.
    fn keep(&mut self, made: io::Result<Socket>) {
        match made {
            Ok(socket) => self.stage.open.push(socket),
            Err(error) => {
                let expected = [libc::EADDRINUSE, libc::EADDRNOTAVAIL, libc::EINVAL];
                assert!(error.raw_os_error().is_some_and(|errno| expected.contains(&errno)), "{error}");
            }
        }
    }

    /// A port of the range, or one beside it.
    fn port(&mut self) -> u16 {
        let (low, high) = self.stage.range;
        low + u16::try_from(self.random.below(usize::from(high - low) + 4)).unwrap()
    }

    fn address(&mut self) -> IpAddr {
        ADDRESSES[self.random.below(ADDRESSES.len())].parse().unwrap()
    }

    fn bind(&mut self) -> io::Result<Socket> {
        let (ip, port) = (self.address(), self.port());
        Stage::bound(ip, port, self.random.below(2) == 0, self.random.below(3) == 0)
    }

    /// Clients that come to an end by `close`.
    fn clients(&mut self, route: Route, count: usize, bound: bool, close: fn(&mut Stage, Socket)) {
        for _ in 0..count {
            let client = if bound {
                let socket = Stage::bound(route.from, self.port(), true, false);
                socket.and_then(|socket| start_connect(&socket, route.to).map(|()| socket))
            } else {
                Stage::connect(route)
            };
            match client {
                Ok(client) if client.peer_addr().is_ok() => close(&mut self.stage, client),
                // A TIME_WAIT socket at the other end of the same four-tuple does not let it in.
                unanswered => self.stage.open.extend(unanswered),
            }
        }
    }

    fn leave_child(&mut self) {
        let (ip, port) = (self.address(), self.port());
        // By SO_REUSEPORT the connection might be another listener's.
        let Ok(listener) = Stage::bound(ip, port, self.random.below(2) == 0, false) else { return };
        let Ok(()) = listener.listen(4) else { return };
        listener.set_nonblocking(true).unwrap();
        let at = local(&listener);
        let to = if at.ip().is_unspecified() {
            let ip = if at.is_ipv4() { "127.0.0.1" } else { "::1" };
            SocketAddr::new(ip.parse().unwrap(), at.port())
        } else {
            at
        };
        if let Ok(client) = Stage::connect(Route { from: to.ip(), on_lo: false, to }) {
            self.stage.open.push(client);
            let mut child = None;
            wait_until("the child", || {
                child = listener.accept().ok();
                child.is_some()
            });
            self.stage.open.extend(child.map(|(child, _)| child));
        }
    }

    /// Binds to ports that clients have, with another address, and is gone again.
    fn bind_beside(&mut self) {
        let taken: Vec<u16> = self.stage.open.iter().map(|socket| local(socket).port()).collect();
        let others: Vec<_> = taken
            .into_iter()
            .take(9)
            .filter_map(|port| Stage::bound("127.0.0.9".parse().unwrap(), port, true, false).ok())
            .collect();
        if let Some(engine) = &mut self.engine {
            engine.scan().unwrap();
        }
        drop(others);
    }

    /// Sockets that keep the port that they were bound to, and nothing else.
    fn keep_bound(&mut self, route: Route, count: usize) {
        for n in 0..count {
            let port = self.port();
            let Ok(socket) = Stage::bound(route.from, port, false, false) else { continue };
            if n % 2 == 0 {
                let nobody = SocketAddr::new(route.to.ip(), 9);
                assert!(socket.connect(&nobody.into()).is_err());
            } else if start_connect(&socket, route.to).is_ok() {
                disconnect(&socket).unwrap();
            }
            if n % 3 == 0 {
                reset(socket);
            } else {
                self.stage.open.push(socket);
            }
        }
    }
}
