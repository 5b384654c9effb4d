//! Worker processes, as the lab sees them. Each is this same program, started with a hidden command in the lab's
//! network namespace. It serves the requests on its channel, and ends when the channel or the lab ends.

pub(crate) mod request;
mod work;

use std::{
    env,
    os::fd::BorrowedFd,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};

use self::request::{Channel, Request, Response};
use crate::host::proc;

/// The command that makes this program a worker.
const COMMAND: &str = "lab-worker";

/// What a worker does. Its command name shows it on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opens connections.
    Client,
    /// Accepts connections.
    Server,
}

impl Role {
    const ALL: [Self; 2] = [Self::Client, Self::Server];

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Works until the lab ends, if a lab started this process as a worker; returns `None` at once otherwise.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut words = env::args().skip(1);
    if words.next()? != COMMAND {
        return None;
    }
    let (role, parent) = (words.next()?, words.next()?.parse().ok()?);
    let role = Role::ALL.into_iter().find(|it| it.name() == role)?;
    // The worker has sent its error on the channel, if the lab still reads it.
    Some(work::run(role, parent).unwrap_or(ExitCode::FAILURE))
}

/// A worker process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    channel: Channel,
    child: Child,
    /// How many more connections it can hold.
    pub(crate) room: u32,
}

impl Worker {
    /// Starts a worker in the namespaces of the calling thread. It ends with that thread.
    pub(crate) fn start(role: Role, room: u32) -> anyhow::Result<Self> {
        let (channel, theirs) = Channel::pair().context("make a channel to a worker")?;
        let child = Command::new(proc::THIS_PROGRAM)
            .args([COMMAND, role.name(), &std::process::id().to_string()])
            .stdin(theirs)
            .stdout(Stdio::null())
            // A worker sends its errors on its channel. Nothing may print behind a screen.
            .stderr(Stdio::null())
            .spawn()
            .context("start a worker process")?;
        Ok(Self { channel, child, room })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request, with an fd if there is one. The caller must then wait for the response.
    pub(crate) fn request(&self, request: &Request, with: Option<BorrowedFd<'_>>) -> anyhow::Result<()> {
        self.channel.send(request, with).with_context(|| format!("send a request to worker {}", self.pid()))
    }

    /// The response, if it comes within this time.
    pub(crate) fn response_within(&self, time: Duration) -> anyhow::Result<Option<Response>> {
        if !self.channel.is_ready_within(time).context("wait for a worker")? {
            return Ok(None);
        }
        match self.channel.receive().context("receive a worker's response")? {
            Some((Response::Failed(why), _)) => bail!("worker {}: {why}", self.pid()),
            Some((response, _)) => Ok(Some(response)),
            None => bail!("worker {} ended early", self.pid()),
        }
    }

    /// Sends a request and waits for the response until `deadline`.
    pub(crate) fn ask(&self, request: &Request, deadline: Instant) -> anyhow::Result<Response> {
        self.request(request, None)?;
        self.response_within(deadline.saturating_duration_since(Instant::now()))?
            .ok_or_else(|| anyhow!("worker {} did not respond in time", self.pid()))
    }

    /// Kills it, and does not wait for its end.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}
