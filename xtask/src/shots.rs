//! `cargo xtask shots`: the pictures of the README, taken of the real program in a pseudo-terminal while real
//! connections come and go in a network namespace made for it.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result, anyhow, ensure};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use crate::{process, svg, workspace};

const IMAGES: &str = "docs/images";
const OBSERVER: &str = "target/release/observer";

/// Builds the program and takes every picture.
pub(crate) fn run() -> Result<()> {
    process::run(process::cargo().args(["build", "--release", "--locked", "--package", "observer"]))?;
    // The namespace ends with its thread and the sockets of that.
    thread::spawn(in_private_netns).join().map_err(|_| anyhow!("taking the pictures panicked"))?
}

fn in_private_netns() -> Result<()> {
    // SAFETY: only this thread's network namespace is split off; no file table is.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .context("make a network namespace (this needs root)")?;
    for command in ["link set lo up", "addr add 10.0.0.5/32 dev lo", "addr add 10.0.0.9/32 dev lo"] {
        process::run(Command::new("ip").args(command.split(' ')))?;
    }
    let servers = Servers::start(&["10.0.0.5:443", "10.0.0.9:5432", "10.0.0.9:6379"])?;
    let mut held = Vec::new();
    for (server, count) in [(0, 2_500), (1, 900), (2, 40)] {
        held.extend(servers.connect(server, count)?);
    }
    fs::create_dir_all(IMAGES).with_context(|| format!("make {IMAGES}"))?;
    for (width, height, name) in [(120, 30, "endpoints.svg"), (80, 24, "endpoints-80x24.svg")] {
        let screen = watch(width, height, || {
            held.extend(servers.connect(0, 40)?);
            held.extend(servers.connect(1, 15)?);
            // Closed at once: what remains is TIME_WAIT towards the database.
            servers.connect(1, 10).map(drop)
        })?;
        let path = workspace::root()?.join(IMAGES).join(name);
        fs::write(&path, svg::of_screen(&screen)).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Listeners, each with a thread that accepts and closes what its peer has closed.
struct Servers(Vec<SocketAddr>);

impl Servers {
    fn start(addresses: &[&str]) -> Result<Self> {
        let start = |address: &&str| {
            let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
            let local = listener.local_addr()?;
            thread::Builder::new().name("demo-server".to_owned()).spawn(move || serve(&listener))?;
            Ok(local)
        };
        addresses.iter().map(start).collect::<Result<_>>().map(Self)
    }

    fn connect(&self, server: usize, count: usize) -> Result<Vec<TcpStream>> {
        let address = self.0[server];
        (0..count).map(|_| TcpStream::connect(address).with_context(|| format!("connect to {address}"))).collect()
    }
}

fn serve(listener: &TcpListener) {
    let mut held: Vec<TcpStream> = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok() {
            held.push(stream);
        }
        held.retain(|stream| stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    }
}

/// How long each picture's history grows before it is taken.
const WATCHED: Duration = Duration::from_secs(25);

/// Runs the program in a terminal of this size, with `each_beat` at work beside it.
fn watch(width: u16, height: u16, mut each_beat: impl FnMut() -> Result<()>) -> Result<vt100::Screen> {
    let size = PtySize { rows: height, cols: width, pixel_width: 0, pixel_height: 0 };
    let pty = native_pty_system().openpty(size)?;
    let mut command = CommandBuilder::new(workspace::root()?.join(OBSERVER));
    command.env("TERM", "xterm-256color");
    command.env_remove("NO_COLOR");
    let mut child = pty.slave.spawn_command(command)?;
    let parser = Arc::new(Mutex::new(vt100::Parser::new(height, width, 0)));
    let mut reader = pty.master.try_clone_reader()?;
    let to_parser = Arc::clone(&parser);
    thread::spawn(move || {
        let mut bytes = [0; 8192];
        while let Ok(read @ 1..) = reader.read(&mut bytes) {
            if let Ok(mut parser) = to_parser.lock() {
                parser.process(&bytes[..read]);
            }
        }
    });
    let deadline = Instant::now() + WATCHED;
    while Instant::now() < deadline {
        each_beat()?;
        thread::sleep(Duration::from_millis(500));
        ensure!(child.try_wait()?.is_none(), "observer ended before its picture was taken");
    }
    let screen = parser.lock().map_err(|_| anyhow!("the terminal's reader panicked"))?.screen().clone();
    child.kill()?;
    child.wait()?;
    Ok(screen)
}
