//! A large host: network namespaces, each with a process that listens, and many processes that only sleep. All of it is made
//! by forks of one process, and ends with it.

use std::io::{self, BufRead as _, PipeWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::running::Running;
use super::stage;

/// Where each namespace's process listens.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 47_200);
/// Of each listener: small, so that a few connections fill it.
const BACKLOG: i32 = 16;
/// Connections that wait in a queue that was filled. The level is critical from 95 % on.
pub(super) const QUEUED: u64 = 16;
/// Between two connections of a busy namespace.
pub(super) const PACE: Duration = Duration::from_millis(20);

/// The crowd, from outside.
pub(super) struct Crowd {
    running: Running,
    /// The listening process of each namespace.
    members: Vec<u32>,
}

impl Crowd {
    /// Makes it, and waits until every listener listens.
    pub(super) fn start(namespaces: u32, processes: u32) -> Result<Self> {
        let mut command = stage::this_program()?;
        command.args(["load", "crowd", &namespaces.to_string(), &processes.to_string()]);
        let mut running = Running::start_piped(&mut command)?;
        let line = running.line().context("start a crowd of processes")?;
        let members = line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        ensure!(members.len() == namespaces as usize, "{} of {namespaces} namespaces were made", members.len());
        Ok(Self { running, members })
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    /// Lets the first namespaces begin or end to make connections.
    pub(super) fn toggle_load(&mut self, namespaces: usize) -> Result<()> {
        self.running.say(&format!("load {namespaces}"))?;
        self.running.expect_line("done")
    }

    /// Fills the accept queue of a namespace's listener, or empties it.
    pub(super) fn toggle_queue(&mut self, namespace: usize) -> Result<()> {
        self.running.say(&format!("queue {namespace}"))?;
        self.running.expect_line("done")
    }
}

/// The part of the process that makes the crowd.
pub(super) fn play(namespaces: u32, processes: u32) -> Result<()> {
    // Whoever waits for a signal must not be ended by one that comes before.
    let signals = block_signals()?;
    let sleepers = processes.saturating_sub(namespaces) / namespaces.max(1);
    let (mut ready, mut report) = io::pipe()?;
    let mut wait = move || ready.read_exact(&mut [0]).context("a process of the crowd ended");
    let mut members = Vec::new();
    for _ in 0..namespaces {
        if let Some(child) = fork()? {
            members.push(child);
        } else {
            let ended = member(&signals, sleepers, &mut report);
            eprintln!("crowd: {:#}", ended.expect_err("it ends with the crowd alone"));
            std::process::exit(1)
        }
        wait()?;
    }
    let pids = members.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect::<Vec<_>>();
    println!("{}", pids.join(" "));
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (what, number) = line.split_once(' ').context("a request without a number")?;
        let number: usize = number.parse()?;
        match what {
            "load" => {
                for member in members.iter().take(number) {
                    kill_process(*member, Signal::USR1)?;
                }
            }
            "queue" => {
                kill_process(*members.get(number).context("no such namespace")?, Signal::USR2)?;
                wait()?;
            }
            other => bail!("the crowd cannot {other}"),
        }
        println!("done");
        io::stdout().flush()?;
    }
    Ok(())
}

/// One namespace: its sleepers, and its listener.
fn member(signals: &libc::sigset_t, sleepers: u32, report: &mut PipeWriter) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // SAFETY: a namespace is split off, no file table is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("make a network namespace (this needs root)")?;
    enable_loopback()?;
    for _ in 0..sleepers {
        if fork()?.is_none() {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            loop {
                // SAFETY: the call waits for a signal, and touches nothing.
                unsafe { libc::pause() };
            }
        }
    }
    let listener = stage::listener(SERVER, BACKLOG)?;
    let mut done = || report.write_all(&[0]).context("report to the crowd");
    done()?;
    let (mut is_busy, mut waiting) = (false, Vec::new());
    loop {
        match wait_for(signals, is_busy.then_some(PACE))? {
            Some(libc::SIGUSR1) => is_busy = !is_busy,
            Some(_) => {
                toggle_queue(&listener, &mut waiting)?;
                done()?;
            }
            None => connect_and_accept(&listener)?,
        }
    }
}

fn toggle_queue(listener: &TcpListener, waiting: &mut Vec<TcpStream>) -> Result<()> {
    if waiting.is_empty() {
        for _ in 0..QUEUED {
            waiting.push(TcpStream::connect(SERVER).context("fill an accept queue")?);
        }
        return Ok(());
    }
    for _ in waiting.drain(..) {
        listener.accept().context("empty an accept queue")?;
    }
    Ok(())
}

/// The client closes first, as in the other loads.
fn connect_and_accept(listener: &TcpListener) -> Result<()> {
    let client = TcpStream::connect(SERVER).context("connect to the listener of the namespace")?;
    let server = listener.accept().context("accept")?;
    drop(client);
    drop(server);
    Ok(())
}

/// `None` in the child.
fn fork() -> Result<Option<Pid>> {
    // SAFETY: this process has one thread: the child may use everything that it has.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        child => Ok(Pid::from_raw(child)),
    }
}

fn enable_loopback() -> Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l'.cast_signed(), b'o'.cast_signed()]);
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: `request` is an `ifreq` with its name and flags set, and lives as long as the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    ensure!(answer == 0, "set lo up: {}", io::Error::last_os_error());
    Ok(())
}

/// Blocks the signals that requests come as.
fn block_signals() -> Result<libc::sigset_t> {
    // SAFETY: `sigemptyset` makes the set a valid one, and all pointers live as long as the calls.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGUSR1);
        libc::sigaddset(&raw mut signals, libc::SIGUSR2);
        let answer = libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        ensure!(answer == 0, "block signals: {}", io::Error::last_os_error());
        Ok(signals)
    }
}

/// The next of these signals; `None` after `patience` without one.
fn wait_for(signals: &libc::sigset_t, patience: Option<Duration>) -> Result<Option<libc::c_int>> {
    let limit = patience.map(|patience| libc::timespec {
        tv_sec: patience.as_secs().cast_signed(),
        tv_nsec: patience.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    loop {
        // SAFETY: the set and the time live as long as the call; no information is asked for.
        let signal = unsafe { libc::sigtimedwait(signals, std::ptr::null_mut(), limit) };
        match io::Error::last_os_error().raw_os_error() {
            _ if signal > 0 => return Ok(Some(signal)),
            Some(libc::EAGAIN) => return Ok(None),
            Some(libc::EINTR) => {}
            _ => return Err(io::Error::last_os_error()).context("wait for a signal"),
        }
    }
}
