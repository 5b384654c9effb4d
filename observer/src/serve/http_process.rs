//! The HTTP process as the engine process sees it: started, pinged, given documents, ended.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    bounds,
    channel::{DocumentKind, EngineEnd, FromHttp, ToHttp},
    child,
    documents::Rendered,
    listen::Listeners,
    receiver::PushOptions,
    sandbox::Confinement,
};
use crate::host::proc;

/// A started HTTP process; killed when dropped.
#[derive(Debug)]
pub(super) struct HttpProcess {
    child: Child,
    channel: EngineEnd,
    started: Instant,
    /// How far it is confined, once it accepts connections.
    pub(super) confinement: Option<Confinement>,
    answered: Instant,
    pinged: Option<Instant>,
    /// Messages since a moment, at most a second ago.
    messages: (Instant, u32),
}

impl HttpProcess {
    /// Starts it with the listening sockets, a channel, and nothing else: no environment, no file of this process.
    pub(super) fn start(listeners: &Listeners, push: Option<&PushOptions>) -> anyhow::Result<Self> {
        let (channel, theirs) = EngineEnd::pair().context("make a channel to the HTTP process")?;
        let child = Command::new(proc::THIS_PROGRAM)
            .args([child::COMMAND, &std::process::id().to_string()])
            .args(push.map(PushOptions::args).into_iter().flatten())
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            // It says what is wrong on its channel: what it could write here is not trusted.
            .stderr(Stdio::null())
            .spawn()
            .context("start the HTTP process")?;
        let now = Instant::now();
        let process =
            Self { child, channel, started: now, confinement: None, answered: now, pinged: None, messages: (now, 0) };
        let fds = listeners.fds();
        let count = u8::try_from(fds.len()).context("pass the listening sockets")?;
        process
            .channel
            .send(ToHttp::Listeners(count), &fds)
            .context("pass the listening sockets to the HTTP process")?;
        Ok(process)
    }

    /// Waits for its next message; `None` when it has ended.
    pub(super) async fn receive(&self) -> Option<FromHttp> {
        self.channel.receive().await
    }

    /// It accepts connections.
    pub(super) fn is_ready(&mut self, confinement: Confinement) {
        self.confinement = Some(confinement);
        self.answered = Instant::now();
    }

    /// It has answered a ping.
    pub(super) fn has_answered(&mut self) {
        self.answered = Instant::now();
    }

    /// Counts a message of it; whether it sends too many.
    pub(super) fn sends_too_much(&mut self) -> bool {
        if self.messages.0.elapsed() >= Duration::from_secs(1) {
            self.messages = (Instant::now(), 0);
        }
        self.messages.1 += 1;
        self.messages.1 > bounds::MESSAGES
    }

    /// Sends a ping where one is due.
    pub(super) fn ping(&mut self, has_frame: bool) {
        if self.pinged.is_none_or(|at| at.elapsed() >= bounds::PING) {
            self.ping_now(has_frame);
        }
    }

    /// Sends a ping.
    pub(super) fn ping_now(&mut self, has_frame: bool) {
        self.pinged = Some(Instant::now());
        self.send(ToHttp::Ping { is_ready: has_frame });
    }

    /// Passes a document, or why there is none.
    pub(super) fn give(&self, kind: DocumentKind, document: &Rendered) {
        let sent = match &document.outcome {
            Ok((fd, length)) => self.channel.send(ToHttp::Document(kind, *length), &[fd.as_fd()]),
            Err(why) => self.channel.send(ToHttp::None(kind, *why), &[]),
        };
        drop(sent);
    }

    /// Gives it a connection to the OTLP receiver, or the reason why there is none.
    pub(super) fn connect(&self, connection: io::Result<OwnedFd>) {
        let sent = match connection {
            Ok(fd) => self.channel.send(ToHttp::Connection, &[fd.as_fd()]),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO).unsigned_abs();
                self.channel.send(ToHttp::NoConnection(errno), &[])
            }
        };
        drop(sent);
    }

    /// Sends what it may miss: where it reads nothing, its clients get 503 and it is replaced.
    pub(super) fn send(&self, message: ToHttp) {
        drop(self.channel.send(message, &[]));
    }

    /// Whether it serves and answers.
    pub(super) fn is_alive(&self) -> bool {
        self.confinement.is_some() && self.answered.elapsed() < bounds::ALIVE
    }

    /// Whether it has to be replaced.
    pub(super) fn is_hung(&self) -> bool {
        let most = if self.confinement.is_some() { bounds::HUNG } else { bounds::CHILD_START };
        self.answered.elapsed() >= most
    }

    /// How long it has run.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Kills it, and returns how it ended.
    pub(super) fn kill(mut self) -> io::Result<ExitStatus> {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait()
    }

    /// Asks it to end, and waits for that, within its bound.
    pub(super) fn end(self) {
        self.send(ToHttp::End);
        if let (Some(pidfd), Ok(time)) = (self.pidfd(), Timespec::try_from(bounds::CHILD_END)) {
            // Killed below in any case.
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time));
        }
    }

    fn pidfd(&self) -> Option<OwnedFd> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).ok()?)?;
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
    }
}

impl Drop for HttpProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
