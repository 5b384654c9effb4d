//! Worker processes, as the lab sees them. Each is this same program, started anew with a hidden command, in the lab's
//! network namespace; it does what comes on its line, and ends when the line or the lab does.

pub(crate) mod order;
mod work;

use std::{
    env,
    os::fd::BorrowedFd,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};

use self::order::{Answer, Line, Order};

/// The command that makes this program a worker.
const COMMAND: &str = "lab-worker";
/// The program itself, also where its file was replaced in the meantime.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What a worker is for; its command name says so on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It connects.
    Client,
    /// It accepts.
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

/// Works, if this process was started as a worker by another of this program, until there is no more to be done.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut words = env::args().skip(1);
    if words.next()? != COMMAND {
        return None;
    }
    let (role, parent) = (words.next()?, words.next()?.parse().ok()?);
    let role = Role::ALL.into_iter().find(|it| it.name() == role)?;
    // What went wrong was told on the line, if anybody listens.
    Some(work::run(role, parent).unwrap_or(ExitCode::FAILURE))
}

/// A worker process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    line: Line,
    child: Child,
    /// How many more connections it can hold.
    pub(crate) room: u32,
}

impl Worker {
    /// Starts a worker in the namespaces of the calling thread. It ends with that thread.
    pub(crate) fn start(role: Role, room: u32) -> anyhow::Result<Self> {
        let (line, theirs) = Line::pair().context("make a line to a worker")?;
        let child = Command::new(THIS_PROGRAM)
            .args([COMMAND, role.name(), &std::process::id().to_string()])
            .stdin(theirs)
            .stdout(Stdio::null())
            // What a worker has to tell comes on its line; behind a screen nothing may print.
            .stderr(Stdio::null())
            .spawn()
            .context("start a worker process")?;
        Ok(Self { line, child, room })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order; the answer is to be waited for.
    pub(crate) fn order(&self, order: &Order, with: Option<BorrowedFd<'_>>) -> anyhow::Result<()> {
        self.line.send(order, with).with_context(|| format!("tell worker {} what to do", self.pid()))
    }

    /// Its answer, if one comes within this time.
    pub(crate) fn answer_within(&self, time: Duration) -> anyhow::Result<Option<Answer>> {
        if !self.line.is_ready_within(time).context("wait for a worker")? {
            return Ok(None);
        }
        match self.line.receive().context("hear a worker")? {
            Some((Answer::Failed(why), _)) => bail!("worker {}: {why}", self.pid()),
            Some((answer, _)) => Ok(Some(answer)),
            None => bail!("worker {} has ended early", self.pid()),
        }
    }

    /// Gives an order and waits for its answer until `deadline`.
    pub(crate) fn ask(&self, order: &Order, deadline: Instant) -> anyhow::Result<Answer> {
        self.order(order, None)?;
        self.answer_within(deadline.saturating_duration_since(Instant::now()))?
            .ok_or_else(|| anyhow!("worker {} did not answer in time", self.pid()))
    }

    /// Ends it, without waiting for that.
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
