//! The load: processes of this program that connect, accept and close, or that hold connections.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::running::Running;
use super::{crowd, stage};
use crate::process;

/// Clients, each with a server of its own: with both cores of a small machine busy, a hook's time is time lost.
const PAIRS: u16 = 2;
/// The servers' ports. Tools that report the whole host are asked for these only.
pub(super) const PORTS: [u16; PAIRS as usize] = [47_001, 47_002];
/// Changes of state of one loopback connection whose client closes first: five at each end.
pub(super) const EVENTS_PER_CONNECTION: u32 = 10;
/// The most that an owner holds, both ends: a process may be allowed no more than 20,000 descriptors.
const HELD_BY_ONE: u32 = 9_500;
const BACKLOG: i32 = 4_096;

/// A part in the load.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Load {
    /// Connects, accepts and closes; then prints what it took.
    Churn {
        /// In all.
        connections: u32,
        /// The third number of the servers' address: another one leaves the TIME_WAITs of earlier churns aside.
        net: u8,
        /// Connections a second, in all; without it, as fast as it goes.
        #[arg(long)]
        rate: Option<u32>,
    },
    /// Holds both ends of connections until its standard input ends.
    Hold {
        /// In all.
        connections: u32,
        /// Distinguishes owners.
        index: u8,
    },
    /// Is many processes in network namespaces of their own, until its standard input ends.
    Crowd {
        /// Each with a process that listens.
        namespaces: u32,
        /// In all.
        processes: u32,
    },
}

impl Load {
    /// Plays the part.
    pub(crate) fn play(self) -> Result<()> {
        match self {
            Self::Churn { connections, net, rate } => churn(connections / u32::from(PAIRS), net, rate),
            Self::Hold { connections, index } => hold(connections, index),
            Self::Crowd { namespaces, processes } => crowd::play(namespaces, processes),
        }
    }
}

/// What a churn took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) elapsed: Duration,
    /// Of the load alone; what hooks do, they do in its time.
    pub(super) cpu: Duration,
    /// The median of connect().
    pub(super) latency: Duration,
}

/// Runs a churn to its end, in the current namespaces.
pub(super) fn run_churn(connections: u32, rate: Option<u32>) -> Result<Took> {
    static CHURNS: AtomicU8 = AtomicU8::new(0);
    let net = CHURNS.fetch_add(1, Ordering::Relaxed);
    let mut command = stage::this_program()?;
    command.args(["load", "churn", &connections.to_string(), &net.to_string()]);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    let printed = process::stdout(stage::ends_with_us(&mut command))?;
    let figures: Value = serde_json::from_str(&printed).context("read what the load printed")?;
    let seconds = |name: &str| {
        let seconds = figures[name].as_f64().with_context(|| format!("{name} of the load"))?;
        Ok::<_, anyhow::Error>(Duration::from_secs_f64(seconds))
    };
    Ok(Took { elapsed: seconds("elapsed")?, cpu: seconds("cpu")?, latency: seconds("latency")? })
}

fn churn(each: u32, net: u8, rate: Option<u32>) -> Result<()> {
    let pause = rate.map(|rate| Duration::from_secs(1) * u32::from(PAIRS) / rate);
    // Each client has a destination of its own, and so no four-tuple comes twice.
    let listeners = PORTS.iter().map(|port| listener((Ipv4Addr::UNSPECIFIED, *port).into()));
    let listeners = listeners.collect::<Result<Vec<_>>>()?;
    let start = Barrier::new(usize::from(PAIRS) + 1);
    let (begun, mut latencies) = thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || serve(listener, each));
        }
        let clients = PORTS.map(|port| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                connect_and_close((Ipv4Addr::new(127, 0, net, 1), port).into(), each, pause)
            })
        });
        start.wait();
        let begun = Instant::now();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(client.join().map_err(|_| anyhow!("a client panicked"))?);
        }
        Ok::<_, anyhow::Error>((begun, latencies))
    })?;
    let elapsed = begun.elapsed();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(cpu.tv_sec.cast_unsigned(), u32::try_from(cpu.tv_nsec)?);
    latencies.sort_unstable();
    let latency = latencies.get(latencies.len() / 2).context("no connection was made")?;
    let figures = json!({
        "elapsed": elapsed.as_secs_f64(), "cpu": cpu.as_secs_f64(), "latency": latency.as_secs_f64(),
    });
    println!("{figures}");
    Ok(())
}

fn connect_and_close(server: SocketAddr, count: u32, pause: Option<Duration>) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let start = Instant::now();
    for n in 0..count {
        if let Some(pause) = pause {
            thread::sleep((start + pause * n).saturating_duration_since(Instant::now()));
        }
        let begun = Instant::now();
        let stream = TcpStream::connect(server).with_context(|| format!("connection {n}"));
        latencies.push(begun.elapsed());
        // A server waits for a fixed number of connections: nothing here can go on after a failure.
        drop(stream.unwrap_or_else(|error| fail(&error)));
    }
    latencies
}

/// Accepts, and closes what the client has closed.
fn serve(listener: &TcpListener, count: u32) {
    for _ in 0..count {
        let served = listener.accept().and_then(|(mut stream, _)| stream.read(&mut [0]));
        if let Err(error) = served {
            fail(&anyhow!(error).context("serve"));
        }
    }
}

fn fail(error: &anyhow::Error) -> ! {
    eprintln!("load: {error:#}");
    std::process::exit(1)
}

fn hold(connections: u32, index: u8) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::new(127, 1, index, 1), 47_100));
    let listener = listener(address)?;
    let mut held = Vec::new();
    for n in 0..connections {
        held.push(TcpStream::connect(address).with_context(|| format!("hold connection {n}"))?);
        held.push(listener.accept().context("accept what is held")?.0);
    }
    println!("ready");
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn listener(address: SocketAddr) -> Result<TcpListener> {
    stage::listener(address, BACKLOG)
}

/// Processes that hold connections: they grow, and end with this.
#[derive(Default)]
pub(super) struct IdleConnections {
    running: Vec<Running>,
    sockets: u32,
}

impl IdleConnections {
    /// Starts more, until `sockets` sockets are held.
    pub(super) fn grow_to(&mut self, sockets: u32) -> Result<()> {
        let mut missing = sockets.saturating_sub(self.sockets) / 2;
        while missing > 0 {
            let connections = missing.min(HELD_BY_ONE);
            let index = u8::try_from(self.running.len()).context("too many owners")?;
            let mut command = stage::this_program()?;
            command.args(["load", "hold", &connections.to_string(), &index.to_string()]);
            let mut process = Running::start_piped(&mut command)?;
            process.expect_line("ready").context("start a process that keeps connections")?;
            self.running.push(process);
            self.sockets += 2 * connections;
            missing -= connections;
        }
        Ok(())
    }
}
