//! `observer replay`: a recording in place of the kernel. Needs no rights and no BPF.

mod connect;
pub(crate) mod moment;
mod player;
mod reel;
mod rewritten;
mod rewritten_directory;
mod tape;
mod trail;

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal as _, Read},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};

pub use self::connect::DEFAULT_SOCKET;
pub(crate) use self::connect::{Connected, connect};
pub use self::{
    player::{ReplayOptions, picture, show},
    rewritten::anonymize,
};
pub(crate) use self::{
    reel::{Begin, Reel},
    tape::Tape,
    trail::Trail,
};
use crate::{
    errno,
    input::{self, Input},
    model::{Model, snapshot::Snapshot},
    record::STANDARD,
    recording::{Next, ReadError, Reader},
};

/// A model that is fed by a recording.
pub struct Replay<R> {
    reader: Reader<R>,
    model: Model,
    now: Duration,
    is_over: bool,
}

/// Where the bytes of a recording come from.
pub(crate) type Source = Box<dyn Read + Send>;

const STANDARD_INPUT: &str = "standard input";

/// Standard input. Fails at a terminal: a person at a terminal has no recording to type.
fn standard_input() -> anyhow::Result<io::Stdin> {
    let stdin = io::stdin();
    ensure!(!stdin.is_terminal(), "standard input is a terminal: send a recording to it, or name a file");
    Ok(stdin)
}

/// The bytes of a recording; `-` is standard input.
fn source(path: &Path) -> anyhow::Result<Source> {
    if path == Path::new(STANDARD) {
        return Ok(Box::new(BufReader::new(standard_input()?)));
    }
    let file = File::open(path).with_context(|| format!("open {}", errno::printable(path)))?;
    Ok(Box::new(BufReader::new(file)))
}

impl<R: Read> Replay<R> {
    /// Reads the header; nothing is taken in yet.
    pub fn start(source: R) -> Result<Self, ReadError> {
        let reader = Reader::start(source)?;
        let model = Model::new(reader.header().hooks.clone(), reader.header().basis);
        Ok(Self { reader, model, now: Duration::ZERO, is_over: false })
    }

    /// Takes in all that came until then, or until the recording ends.
    pub fn advance(&mut self, until: Duration) -> Result<(), ReadError> {
        loop {
            match self.reader.next(until)? {
                Next::Input(at, input) => {
                    self.now = at;
                    // What made no sense when it was recorded is counted among the recorded losses.
                    input::apply(&mut self.model, at, input);
                }
                Next::Later => {
                    self.now = until;
                    self.is_over = false;
                    return Ok(());
                }
                Next::End => {
                    self.is_over = true;
                    return Ok(());
                }
            }
        }
    }

    /// Takes in what has come, for this long at most.
    pub(crate) fn take_for(&mut self, time: Duration) -> Result<(), ReadError> {
        /// Between two looks at the clock.
        const INPUTS: u32 = 4_096;
        let began = Instant::now();
        self.is_over = false;
        while began.elapsed() < time {
            for _ in 0..INPUTS {
                let Next::Input(at, input) = self.reader.next(Duration::MAX)? else {
                    self.is_over = true;
                    return Ok(());
                };
                self.now = at;
                input::apply(&mut self.model, at, input);
            }
        }
        Ok(())
    }

    /// Takes in all until the first scan of every namespace and the reading of the host that follows it.
    pub(crate) fn advance_to_first_reading(&mut self) -> Result<(), ReadError> {
        let mut is_scanned = false;
        while let Next::Input(at, input) = self.reader.next(Duration::MAX)? {
            let is_reading = matches!(input, Input::Host(_));
            is_scanned |= matches!(input, Input::EndRound(_));
            self.now = at;
            input::apply(&mut self.model, at, input);
            if is_scanned && is_reading {
                return Ok(());
            }
        }
        self.is_over = true;
        Ok(())
    }

    /// Time since the recording's start.
    pub(crate) const fn now(&self) -> Duration {
        self.now
    }

    /// The model.
    pub(crate) const fn model(&self) -> &Model {
        &self.model
    }

    /// Resets totals and peaks.
    pub(crate) fn restart_totals(&mut self) {
        input::apply(&mut self.model, self.now, Input::RestartTotals);
    }

    /// Whether the source ended where the last look found nothing more.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.reader.is_at_end()
    }

    /// How many bytes were taken in.
    pub(crate) const fn position(&self) -> u64 {
        self.reader.position()
    }

    /// Whether all of it was taken in that has come.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes in all of it.
    pub fn finish(&mut self) -> Result<(), ReadError> {
        self.advance(Duration::MAX)
    }

    /// Everything as it was then, with at most `destinations` of each endpoint.
    pub fn snapshot(&mut self, destinations: usize) -> Snapshot {
        let started_at = SystemTime::UNIX_EPOCH.checked_add(self.reader.header().started_at);
        let taken_at = started_at.and_then(|at| at.checked_add(self.now)).unwrap_or(SystemTime::UNIX_EPOCH);
        self.model.snapshot(taken_at, self.now, destinations)
    }
}

/// A moment that is not in a recording: a wrong argument, and no failure of the recording.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongMoment(String);

impl WrongMoment {
    pub(crate) const fn new(sentence: String) -> Self {
        Self(sentence)
    }
}
