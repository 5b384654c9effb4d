//! A replay that follows the clock, on the live screen.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use ratatui::buffer::Buffer;

use super::{Begin, Reel};
use crate::{
    frame::{Frame, Playback},
    model::{Model, query::Query},
    recording::recorder::AROUND,
    screen::{self, ScreenSource},
    tui::{self, Step},
};

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The recording, or the directory of a recorder; `-` is standard input.
    pub file: PathBuf,
    /// How much faster than it was recorded.
    pub speed: f64,
    /// Where the screen begins.
    pub(crate) begin: Begin,
    /// Whether to begin at the end of a file that is still being recorded, and to go on with it.
    pub follows: bool,
}

/// A step back or ahead.
const STEP: Duration = Duration::from_secs(10);
const SLOWEST: f64 = 1.0 / 16.0;
const FASTEST: f64 = 1024.0;

/// A replay that follows the clock. At the end it stays at the last moment.
struct Player {
    reel: Reel,
    /// A file that may grow is shown as one that goes on.
    follows: bool,
    speed: f64,
    is_stopped: bool,
    /// The time in the recording at which the clock was last started,
    from: Duration,
    /// and when that was.
    began: Instant,
}

impl Player {
    /// Stands where it is to begin, and goes on.
    fn open(options: &ReplayOptions) -> anyhow::Result<Self> {
        let ReplayOptions { file, speed, begin, follows } = options;
        let (speed, follows) = (*speed, *follows);
        ensure!(!follows || !file.is_dir(), "--follow reads a file: for a recorder that runs there is --attach-to");
        let (reel, position) = Reel::seekable(file, begin)?;
        // Of an incident the minute before it is shown first.
        let from = match begin {
            _ if follows => Duration::MAX,
            Begin::Incident(_) => position.saturating_sub(AROUND),
            Begin::From(_) | Begin::At(_) => position,
        };
        let mut player = Self { reel, follows, speed, is_stopped: false, from, began: Instant::now() };
        player.advance()?;
        if follows {
            player.from = player.reel.now();
        } else if player.has_ended() {
            player.reel.check_end(from)?;
        }
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

impl Player {
    /// Where the previous or the next incident is shown from: the minute before its worst moment.
    fn incident(&self, step: Step, now: Duration) -> Option<Duration> {
        let timeline = self.reel.timeline()?;
        if step == Step::NextIncident {
            timeline.next_incident(now, AROUND)
        } else {
            timeline.previous_incident(now, AROUND)
        }
    }

    /// Whether nothing more will come.
    fn has_ended(&self) -> bool {
        !self.follows && self.reel.has_ended()
    }
}

impl ScreenSource for Player {
    fn advance(&mut self) -> anyhow::Result<()> {
        self.reel.advance(self.due())
    }

    fn frame(&mut self, destinations: usize) -> Frame {
        let Self { speed, is_stopped, .. } = *self;
        let has_all = self.reel.is_over();
        let is_over = has_all && self.has_ended();
        let playback = Some(Playback { speed, is_stopped, is_over, is_live: has_all && !is_over });
        let timeline = self.reel.timeline();
        Frame { playback, timeline, ..Frame::from(self.reel.replay_mut().snapshot(destinations)) }
    }

    fn model(&self) -> &Model {
        self.reel.replay().model()
    }

    fn restart_totals(&mut self) {
        self.reel.replay_mut().restart_totals();
    }

    fn step(&mut self, step: Step) -> anyhow::Result<()> {
        // At the end the clock has run on; what is shown is where a step begins.
        let now = if self.reel.is_over() { self.reel.now() } else { self.due() };
        self.from = match step {
            Step::Ahead => now.saturating_add(STEP),
            Step::Back => now.saturating_sub(STEP),
            Step::PreviousIncident | Step::NextIncident => self.incident(step, now).unwrap_or(now),
            Step::Stop | Step::Slower | Step::Faster => now,
        };
        match step {
            Step::Stop => self.is_stopped = !self.is_stopped,
            Step::Slower => self.speed = (self.speed / 2.0).max(SLOWEST),
            Step::Faster => self.speed = (self.speed * 2.0).min(FASTEST),
            Step::Ahead => {}
            Step::PreviousIncident | Step::NextIncident if self.from == now => {}
            Step::PreviousIncident | Step::NextIncident => self.reel.jump(self.from)?,
            // The model cannot go back: it is built again.
            Step::Back if self.reel.go_back(self.from)? => {}
            Step::Back => self.from = now,
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
    let begin = Begin::From(at);
    let mut player = Player::open(&ReplayOptions { file: file.to_owned(), speed: 1.0, begin, follows: false })?;
    player.is_stopped = true;
    let as_it_was = |query: Option<&Query>| Arc::new(Frame { playback: None, ..screen::frame(&mut player, query) });
    Ok(tui::shot(as_it_was, keys, size, look))
}

/// Shows a recording on the live screen until the user leaves it.
pub fn show(options: &ReplayOptions, look: tui::Look) -> anyhow::Result<ExitCode> {
    screen::require_size("observer replay --json")?;
    screen::show(Player::open(options)?, look, None)
}
