//! The processes of the demonstration: each under the name of what it plays.

use std::ffi::CString;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Resource, Rlimit, setrlimit};

const WEB: &str = "10.0.0.5:443";
const DATABASE: &str = "10.0.0.9:5432";
const CACHE: &str = "10.0.0.9:6379";
const UPLOADS: &str = "10.0.0.5:9000";
const BEAT: Duration = Duration::from_millis(500);

/// A part to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Actor {
    /// Serves many clients at one address.
    Web,
    /// Serves the api.
    Database,
    /// Serves the worker.
    Cache,
    /// Listens with a short queue, and never accepts.
    Uploads,
    /// The clients of the web server, and some that nobody accepts.
    Browsers,
    /// Holds most of the ports towards the database, and closes as many connections as it opens.
    Api,
    /// Takes every port towards the cache, and goes on trying.
    Worker,
    /// Runs out of descriptors.
    Batch,
}

impl Actor {
    /// Servers first.
    pub(crate) const ALL: [Self; 8] =
        [Self::Web, Self::Database, Self::Cache, Self::Uploads, Self::Browsers, Self::Api, Self::Worker, Self::Batch];

    /// Its process's name.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The systemd unit that it seems to be: people watch services, and the browsers belong to none.
    pub(crate) fn unit(self) -> Option<String> {
        (self != Self::Browsers).then(|| format!("{}.service", self.name()))
    }

    /// Plays the part until somebody ends the process.
    pub(crate) fn play(self, cgroup: Option<&Path>) -> Result<()> {
        if let Some(cgroup) = cgroup {
            // Before the first socket: it belongs to the cgroup that its process is in when it is made.
            fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("enter {}", cgroup.display()))?;
        }
        rustix::thread::set_name(&CString::new(self.name())?)?;
        match self {
            Self::Web => serve(WEB),
            Self::Database => serve(DATABASE),
            Self::Cache => serve(CACHE),
            Self::Uploads => {
                let listener = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                rustix::net::bind(&listener, &UPLOADS.parse::<std::net::SocketAddr>()?)?;
                rustix::net::listen(&listener, 8)?;
                loop {
                    thread::park();
                }
            }
            Self::Browsers => {
                let mut held = hold(WEB, 120)?;
                let mut waiting = (0..12).map(|_| begin(UPLOADS)).collect::<Result<Vec<_>>>()?;
                beat(|| {
                    held.extend(hold(WEB, 3)?);
                    waiting.push(begin(UPLOADS)?);
                    Ok(())
                })
            }
            Self::Api => {
                let mut held = hold(DATABASE, 120)?;
                beat(|| {
                    held.extend(hold(DATABASE, 1)?);
                    // Closed at once: what remains is TIME_WAIT.
                    hold(DATABASE, 1).map(drop)
                })
            }
            Self::Worker => {
                let mut held = hold(CACHE, 140)?;
                beat(|| {
                    // From some time on each of these fails: that is the part.
                    held.extend((0..8).filter_map(|_| TcpStream::connect(CACHE).ok()));
                    Ok(())
                })
            }
            Self::Batch => {
                setrlimit(Resource::Nofile, Rlimit { current: Some(48), maximum: Some(48) })?;
                let mut held = hold(WEB, 30)?;
                beat(|| {
                    held.extend(TcpStream::connect(WEB).ok());
                    Ok(())
                })
            }
        }
    }
}

fn beat(mut each: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        each()?;
        thread::sleep(BEAT);
    }
}

/// Connections to a server that may just be starting.
fn hold(address: &str, count: usize) -> Result<Vec<TcpStream>> {
    let connect = |_| {
        (0..50)
            .find_map(|_| match TcpStream::connect(address) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    thread::sleep(BEAT / 10);
                    None
                }
                answer => Some(answer),
            })
            .unwrap_or_else(|| Err(io::ErrorKind::ConnectionRefused.into()))
            .with_context(|| format!("connect to {address}"))
    };
    (0..count).map(connect).collect()
}

/// A connection that is not waited for.
fn begin(address: &str) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address.parse::<std::net::SocketAddr>()?) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error).with_context(|| format!("connect to {address}")),
    }
}

/// Accepts, and closes what its peer has closed.
fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let mut held: Vec<TcpStream> = Vec::new();
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nonblocking(true)?;
        held.push(stream);
        held.retain(|stream| stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    }
    Ok(())
}
