//! The live screen of a running service: its inputs feed a model here. Needs no right but to connect, and loads no programs.

use std::{
    io::ErrorKind,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::{
    engine::{self, Watched},
    frame::{Attached, Frame},
    model::Model,
    recording::ReadError,
    replay::{self, Connected, DEFAULT_SOCKET, Replay, Source},
    screen::{self, ScreenSource},
    tui,
};

/// How long what has come is taken in before the next frame: keys are answered in between.
const AT_ONCE: Duration = Duration::from_millis(200);

/// A model that a service feeds.
struct Viewer {
    replay: Replay<Source>,
    name: String,
    is_over: bool,
    /// When something came last.
    heard_at: Instant,
}

impl ScreenSource for Viewer {
    fn advance(&mut self) -> anyhow::Result<()> {
        if self.is_over {
            return Ok(());
        }
        let before = self.replay.position();
        match self.replay.take_for(AT_ONCE) {
            Ok(()) => self.is_over = self.replay.is_over() && self.replay.is_at_end(),
            // It was killed, or takes this viewer for one that has stopped reading.
            Err(ReadError::Io(error)) if error.kind() == ErrorKind::ConnectionReset => self.is_over = true,
            Err(error) => return Err(error).with_context(|| self.name.clone()),
        }
        if self.replay.position() != before {
            self.heard_at = Instant::now();
        }
        Ok(())
    }

    fn frame(&mut self, destinations: usize) -> Frame {
        let attached = Some(Attached { is_over: self.is_over, silence: self.heard_at.elapsed() });
        Frame { attached, ..Frame::from(self.replay.snapshot(destinations)) }
    }

    fn model(&self) -> &Model {
        self.replay.model()
    }

    fn restart_totals(&mut self) {
        self.replay.restart_totals();
    }
}

/// The service of this host, where this process lacks the rights to observe by itself. `None` where there is none; fails where
/// this user may not connect to it.
pub(crate) fn found(watched: Watched) -> anyhow::Result<Option<Connected>> {
    if watched == Watched::Own || engine::require_rights().is_ok() {
        return Ok(None);
    }
    let path = Path::new(DEFAULT_SOCKET);
    let is_denied = access(path, Access::WRITE_OK) == Err(Errno::ACCESS);
    match replay::connect(path) {
        Ok(service) => Ok(Some(service)),
        Err(error) if is_denied => Err(error),
        // The missing rights are the better reason.
        Err(_) => Ok(None),
    }
}

/// Shows the live screen of a service until the user leaves it.
pub(crate) fn show(service: Connected, look: tui::Look) -> anyhow::Result<ExitCode> {
    screen::require_size("observer snapshot --attach-to PATH")?;
    let Connected { mut replay, stream, name } = service;
    // The first frame shows the host, and not nothing.
    replay.advance_to_first_reading().with_context(|| name.clone())?;
    stream.set_nonblocking(true).context("read the service without waiting")?;
    screen::show(Viewer { replay, name, is_over: false, heard_at: Instant::now() }, look, None)
}
