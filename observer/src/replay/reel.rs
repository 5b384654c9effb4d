//! What a replay reads: one recording, or all that a recorder's directory has.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{Replay, STANDARD_INPUT, Source, Tape, Trail, WrongMoment, moment::Moment, source, standard_input};
use crate::{
    errno,
    frame::timeline::Timeline,
    record::STANDARD,
    recording::{ReadError, Spool},
};

/// Where a replay begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Begin {
    /// So long after the start.
    From(Duration),
    /// At a wall-clock time.
    At(Moment),
    /// Around the incident of this number.
    Incident(u64),
}

/// One recording.
enum Recording {
    File(PathBuf),
    /// What has come through standard input.
    Spooled(Spool),
    /// What can be read once, by its name.
    Stream(String),
}

impl Recording {
    fn name(&self) -> String {
        match self {
            Self::File(path) => errno::printable(path),
            Self::Spooled(_) => STANDARD_INPUT.to_owned(),
            Self::Stream(name) => name.clone(),
        }
    }

    /// From its beginning; nothing is taken in yet. Waits until there is a beginning.
    fn replay(&self) -> anyhow::Result<Replay<Source>> {
        match self {
            Self::File(path) => Replay::start(source(path)?).with_context(|| self.name()),
            Self::Stream(_) => Replay::start(source(Path::new(STANDARD))?).with_context(|| self.name()),
            Self::Spooled(spool) => {
                let mut there = 0;
                loop {
                    let had_ended = spool.has_ended();
                    match Replay::start(Box::new(spool.reader()) as Source) {
                        Err(error) if !had_ended && may_go_on(&error) => there = spool.wait_for_more(there),
                        replay => return replay.with_context(|| self.name()),
                    }
                }
            }
        }
    }
}

/// Whether more bytes may mend it.
fn may_go_on(error: &ReadError) -> bool {
    match error {
        ReadError::NoHeader => true,
        ReadError::Io(error) => error.kind() == ErrorKind::WouldBlock,
        _ => false,
    }
}

enum Kind {
    One(Recording, Replay<Source>),
    Many(Tape),
}

/// A replay, and where it is read from.
pub(crate) struct Reel(Kind);

impl Reel {
    /// Opens a file, standard input (`-`) or a directory, to be read once from its beginning; of a directory the last recording.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new(STANDARD) {
            return Self::one(Recording::Stream(STANDARD_INPUT.to_owned()));
        }
        if path.is_dir() {
            let trail = Trail::open(path)?;
            let end = trail.end();
            return Ok(Self(Kind::Many(Tape::whole(trail, end)?)));
        }
        Self::one(Recording::File(path.to_owned()))
    }

    /// The stream of this name, to be read once.
    pub(crate) const fn of_stream(name: String, replay: Replay<Source>) -> Self {
        Self(Kind::One(Recording::Stream(name), replay))
    }

    /// The same to be read more than once, and the position at which to begin.
    pub(crate) fn seekable(path: &Path, begin: &Begin) -> anyhow::Result<(Self, Duration)> {
        let is_standard = path == Path::new(STANDARD);
        match begin {
            Begin::From(from) if path.is_dir() => {
                let trail = Trail::open(path)?;
                let (end, name) = (trail.end(), trail.name().to_owned());
                check_end(&name, end, *from)?;
                Ok((Self(Kind::Many(Tape::whole(trail, *from)?)), *from))
            }
            Begin::From(from) => {
                let recording = if is_standard {
                    let spool = Spool::start(standard_input()?).context("keep standard input in a temporary file")?;
                    Recording::Spooled(spool)
                } else {
                    Recording::File(path.to_owned())
                };
                Ok((Self::one(recording)?, *from))
            }
            Begin::At(moment) => {
                ensure!(!is_standard, "--at needs a recording that has ended: {STANDARD_INPUT} has not");
                let trail = if path.is_dir() { Trail::open(path) } else { Trail::of_file(path) }?;
                let position = moment.position_in(&trail)?;
                Ok((Self(Kind::Many(Tape::before(trail, position)?)), position))
            }
            Begin::Incident(number) => {
                let trail = Trail::open(path)?;
                let position = incident(&trail, *number)?;
                Ok((Self(Kind::Many(Tape::before(trail, position)?)), position))
            }
        }
    }

    fn one(recording: Recording) -> anyhow::Result<Self> {
        let replay = recording.replay()?;
        Ok(Self(Kind::One(recording, replay)))
    }

    pub(crate) fn name(&self) -> String {
        match &self.0 {
            Kind::One(recording, _) => recording.name(),
            Kind::Many(tape) => tape.trail().name().to_owned(),
        }
    }

    /// Of a recorder's directory, where in all of it the present position is.
    pub(crate) fn timeline(&self) -> Option<Timeline> {
        match &self.0 {
            Kind::One(..) => None,
            Kind::Many(tape) => Some(tape.timeline()),
        }
    }

    /// The model, and its time.
    pub(crate) const fn replay(&self) -> &Replay<Source> {
        match &self.0 {
            Kind::One(_, replay) => replay,
            Kind::Many(tape) => tape.replay(),
        }
    }

    pub(crate) const fn replay_mut(&mut self) -> &mut Replay<Source> {
        match &mut self.0 {
            Kind::One(_, replay) => replay,
            Kind::Many(tape) => tape.replay_mut(),
        }
    }

    /// Takes in all that came until then, in time since the start.
    pub(crate) fn advance(&mut self, until: Duration) -> anyhow::Result<()> {
        match &mut self.0 {
            Kind::One(recording, replay) => {
                replay.advance(until).with_context(|| recording.name())?;
                if let Recording::Spooled(spool) = recording {
                    spool.set_played(replay.position());
                }
                Ok(())
            }
            Kind::Many(tape) => tape.advance(until),
        }
    }

    /// The present position: time since the start.
    pub(crate) fn now(&self) -> Duration {
        match &self.0 {
            Kind::One(_, replay) => replay.now(),
            Kind::Many(tape) => tape.now(),
        }
    }

    /// Whether all was taken in that has come.
    pub(crate) fn is_over(&self) -> bool {
        match &self.0 {
            Kind::One(_, replay) => replay.is_over(),
            Kind::Many(tape) => tape.is_over(),
        }
    }

    /// Whether nothing more will come, except to a file that somebody writes.
    pub(crate) const fn has_ended(&self) -> bool {
        match &self.0 {
            Kind::One(Recording::Spooled(_), replay) => replay.is_at_end(),
            Kind::One(..) | Kind::Many(_) => true,
        }
    }

    /// Fails if it is over before that moment.
    pub(crate) fn check_end(&self, at: Duration) -> Result<(), WrongMoment> {
        if self.is_over() { check_end(&self.name(), self.now(), at) } else { Ok(()) }
    }

    /// Begins again, so that the position comes again. False where its beginning is not there any more.
    pub(crate) fn go_back(&mut self, position: Duration) -> anyhow::Result<bool> {
        match &mut self.0 {
            Kind::One(Recording::Spooled(spool), _) if !spool.has_beginning() => return Ok(false),
            Kind::One(recording, replay) => *replay = recording.replay()?,
            Kind::Many(tape) => tape.go_back(position)?,
        }
        Ok(true)
    }

    /// Goes to a position of a recorder's directory.
    pub(crate) fn jump(&mut self, position: Duration) -> anyhow::Result<()> {
        match &mut self.0 {
            Kind::One(..) => Ok(()),
            Kind::Many(tape) => tape.jump(position),
        }
    }
}

fn check_end(name: &str, end: Duration, at: Duration) -> Result<(), WrongMoment> {
    if at <= end {
        return Ok(());
    }
    let (end, at) = (end.as_secs_f64(), at.as_secs_f64());
    Err(WrongMoment::new(format!("{name} is {end:.3} seconds long: {at:.3} is after its end")))
}

/// The position of an incident.
fn incident(trail: &Trail, number: u64) -> Result<Duration, WrongMoment> {
    let found = trail.incidents().iter().find(|mark| mark.number == number).map(|mark| mark.position);
    found.ok_or_else(|| {
        let numbers: Vec<String> = trail.incidents().iter().map(|mark| mark.number.to_string()).collect();
        let there = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
        WrongMoment::new(format!("{} has no incident {number}: it has {there}", trail.name()))
    })
}
