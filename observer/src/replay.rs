//! `observer replay`: a recording in place of the kernel. Needs no rights and no BPF.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal as _, Read, Seek as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use ratatui::buffer::Buffer;

use crate::{
    errno,
    frame::{Frame, Playback},
    input::{self, Input},
    model::{Model, query::Query, snapshot::Snapshot},
    record::STANDARD,
    recording::{Next, ReadError, Reader},
    screen::{self, ScreenSource},
    tui::{self, Step},
};

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The recording; `-` is standard input.
    pub file: PathBuf,
    /// How much faster than it was recorded.
    pub speed: f64,
    /// Time since its start at which the screen begins.
    pub from: Duration,
}

/// A model that is fed by a recording.
pub struct Replay<R> {
    reader: Reader<R>,
    model: Model,
    now: Duration,
    is_over: bool,
}

/// A recording that can be read more than once.
enum Recording {
    File(PathBuf),
    /// What standard input held, in a file without a name.
    Spooled(File),
}

impl Recording {
    /// Reads standard input to its end, if that is meant.
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        if path != Path::new(STANDARD) {
            return Ok(Self::File(path));
        }
        let mut spool = tempfile::tempfile().context("make a temporary file for standard input")?;
        io::copy(&mut standard_input()?, &mut spool).context("read standard input")?;
        Ok(Self::Spooled(spool))
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => errno::printable(path),
            Self::Spooled(_) => STANDARD_INPUT.to_owned(),
        }
    }

    /// From its beginning; nothing is taken in yet.
    fn replay(&self) -> anyhow::Result<Replay<BufReader<File>>> {
        let open = || match self {
            Self::File(path) => File::open(path),
            Self::Spooled(spool) => {
                let mut file = spool.try_clone()?;
                file.rewind()?;
                Ok(file)
            }
        };
        let file = open().with_context(|| format!("open {}", self.name()))?;
        Replay::start(BufReader::new(file)).with_context(|| self.name())
    }
}

const STANDARD_INPUT: &str = "standard input";

/// Standard input. Fails at a terminal: a person at a terminal has no recording to type.
fn standard_input() -> anyhow::Result<io::StdinLock<'static>> {
    let stdin = io::stdin();
    ensure!(!stdin.is_terminal(), "standard input is a terminal: send a recording to it, or name a file");
    Ok(stdin.lock())
}

/// A recording that is read once, and its name for messages; `-` is standard input.
pub(crate) fn open(path: &Path) -> anyhow::Result<(Replay<Box<dyn Read>>, String)> {
    let (name, bytes): (String, Box<dyn Read>) = if path == Path::new(STANDARD) {
        (STANDARD_INPUT.to_owned(), Box::new(BufReader::new(standard_input()?)))
    } else {
        let name = errno::printable(path);
        let file = File::open(path).with_context(|| format!("open {name}"))?;
        (name, Box::new(BufReader::new(file)))
    };
    let replay = Replay::start(bytes).with_context(|| name.clone())?;
    Ok((replay, name))
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
                    return Ok(());
                }
                Next::End => {
                    self.is_over = true;
                    return Ok(());
                }
            }
        }
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

    /// Whether all of it was taken in.
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

/// A step back or ahead.
const STEP: Duration = Duration::from_secs(10);
const SLOWEST: f64 = 1.0 / 16.0;
const FASTEST: f64 = 1024.0;

/// A replay that follows the clock. At the end it stays at the last moment.
struct Player {
    replay: Replay<BufReader<File>>,
    recording: Recording,
    speed: f64,
    is_stopped: bool,
    /// The time in the recording at which the clock was last started,
    from: Duration,
    /// and when that was.
    began: Instant,
}

impl Player {
    /// Stands at `from`, and goes on.
    fn open(file: PathBuf, speed: f64, from: Duration) -> anyhow::Result<Self> {
        let recording = Recording::new(file)?;
        let replay = recording.replay()?;
        let mut player = Self { replay, recording, speed, is_stopped: false, from, began: Instant::now() };
        player.advance()?;
        // What comes before `from` took its time.
        player.began = Instant::now();
        Ok(player)
    }

    /// The time in the recording that is to be shown now.
    fn due(&self) -> Duration {
        let gone = if self.is_stopped { Duration::ZERO } else { self.began.elapsed().mul_f64(self.speed) };
        self.from.saturating_add(gone)
    }
}

impl ScreenSource for Player {
    fn advance(&mut self) -> anyhow::Result<()> {
        let due = self.due();
        self.replay.advance(due).with_context(|| self.recording.name())
    }

    fn frame(&mut self, destinations: usize) -> Frame {
        let Self { speed, is_stopped, .. } = *self;
        let playback = Some(Playback { speed, is_stopped, is_over: self.replay.is_over });
        Frame { playback, ..Frame::from(self.replay.snapshot(destinations)) }
    }

    fn model(&self) -> &Model {
        &self.replay.model
    }

    fn restart_totals(&mut self) {
        input::apply(&mut self.replay.model, self.replay.now, Input::RestartTotals);
    }

    fn step(&mut self, step: Step) -> anyhow::Result<()> {
        // At the end the clock has run on; what is shown is where a step begins.
        let now = if self.replay.is_over { self.replay.now } else { self.due() };
        self.from = match step {
            Step::Ahead => now.saturating_add(STEP),
            Step::Back => now.saturating_sub(STEP),
            Step::Stop | Step::Slower | Step::Faster => now,
        };
        match step {
            Step::Stop => self.is_stopped = !self.is_stopped,
            Step::Slower => self.speed = (self.speed / 2.0).max(SLOWEST),
            Step::Faster => self.speed = (self.speed * 2.0).min(FASTEST),
            Step::Ahead => {}
            // The model cannot go back: it is built again, from the start.
            Step::Back => self.replay = self.recording.replay()?,
        }
        self.began = Instant::now();
        self.advance()?;
        // What was skipped took its time.
        self.began = Instant::now();
        Ok(())
    }
}

/// What the screen showed at a time since the start of the recording, after these keys ([`tui::shot`]).
pub fn picture(file: &Path, at: Duration, keys: &str, size: (u16, u16), look: tui::Look) -> anyhow::Result<Buffer> {
    let mut player = Player::open(file.to_owned(), 1.0, at)?;
    player.is_stopped = true;
    let as_it_was = |query: Option<&Query>| Arc::new(Frame { playback: None, ..screen::frame(&mut player, query) });
    Ok(tui::shot(as_it_was, keys, size, look))
}

/// Shows a recording on the live screen until the user leaves it.
pub fn show(options: ReplayOptions, look: tui::Look) -> anyhow::Result<ExitCode> {
    screen::require_size("observer replay --json")?;
    let ReplayOptions { file, speed, from } = options;
    screen::show(Player::open(file, speed, from)?, look)
}
