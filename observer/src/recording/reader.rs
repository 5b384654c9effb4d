//! Reads recordings. What it is given may be anything.

use std::{io::Read, time::Duration};

use super::{
    Entry, FORMAT, Header, HeaderOfFormat4, MAGIC, OLDEST_FORMAT, ReadError,
    chunk::{self, Chunks},
};
use crate::{
    input::Input,
    model::quality::{Losses, ScanSummary},
};

/// What comes next in a recording.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// An input, at this time since start.
    Input(Duration, Input<'a>),
    /// Nothing before the time that was asked for.
    Later,
    /// Nothing any more, or nothing yet: see [`Reader::is_at_end`].
    End,
}

/// A recording, read from its beginning to its end. After an error there is nothing more to be read.
pub struct Reader<R> {
    chunks: Chunks<R>,
    header: Header,
    /// What times and losses count from.
    base: (Duration, Losses),
    /// Where the next entry of the chunk begins.
    next: usize,
    at_ns: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn start(mut source: R) -> Result<Self, ReadError> {
        let mut start = [0; MAGIC.len() + 2];
        if !chunk::fill(&mut source, &mut start)? || start[..MAGIC.len()] != MAGIC {
            return Err(ReadError::NotARecording);
        }
        let format = u16::from_le_bytes([start[MAGIC.len()], start[MAGIC.len() + 1]]);
        if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
            return Err(ReadError::Format { format, writer: writer_of(Chunks::new(source, start.len() as u64)) });
        }
        let mut chunks = Chunks::new(source, start.len() as u64);
        if !chunks.advance()? {
            return Err(ReadError::NoHeader);
        }
        let header = if format == OLDEST_FORMAT {
            postcard::from_bytes::<HeaderOfFormat4>(chunks.bytes()).map(Header::from)
        } else {
            postcard::from_bytes::<Header>(chunks.bytes())
        };
        let header = header.map_err(|_| chunks.damaged("its header makes no sense"))?;
        if header.arch != std::env::consts::ARCH {
            return Err(ReadError::Arch(header.arch.escape_default().to_string()));
        }
        let next = chunks.bytes().len();
        let at_ns = u64::try_from(header.begins_at.as_nanos()).unwrap_or(u64::MAX);
        let base = (header.begins_at, header.losses_before);
        Ok(Self { chunks, header, base, next, at_ns })
    }

    /// Times and losses count from the engine's start, as the header has it, and not from the beginning of this recording.
    #[must_use]
    pub fn since_start_of_engine(self) -> Self {
        Self { base: (Duration::ZERO, Losses::default()), ..self }
    }

    /// What the recording says of itself.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the source ended where the last [`Next::End`] was. A file may grow, and then there is more.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.chunks.is_at_end()
    }

    /// Whether the last input was the last of its chunk.
    #[must_use]
    pub fn is_at_end_of_chunk(&self) -> bool {
        self.next >= self.chunks.bytes().len()
    }

    /// How many bytes of the source were taken in.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.chunks.position()
    }

    /// The next input that is not later than `until`, in time since the beginning of this recording, or of the engine.
    pub fn next(&mut self, until: Duration) -> Result<Next<'_>, ReadError> {
        while self.next >= self.chunks.bytes().len() {
            self.next = 0;
            if !self.chunks.advance()? {
                return Ok(Next::End);
            }
        }
        let (begins_at, losses_before) = self.base;
        let bytes = &self.chunks.bytes()[self.next..];
        let (Entry { at_ns, input }, rest) =
            postcard::take_from_bytes(bytes).map_err(|_| self.chunks.damaged("an entry makes no sense"))?;
        if at_ns < self.at_ns {
            return Err(self.chunks.damaged("time goes back"));
        }
        let at = Duration::from_nanos(at_ns).saturating_sub(begins_at);
        if at > until {
            return Ok(Next::Later);
        }
        self.next += bytes.len() - rest.len();
        self.at_ns = at_ns;
        Ok(Next::Input(at, since_beginning(input, begins_at, losses_before)))
    }
}

/// The version that wrote a recording of an unknown format: every header has begun with it so far.
fn writer_of(mut chunks: Chunks<impl Read>) -> Option<String> {
    let is_read = chunks.advance().ok()?;
    let (version, _) = postcard::take_from_bytes::<&str>(chunks.bytes()).ok().filter(|_| is_read)?;
    let is_version = version.starts_with(|first: char| first.is_ascii_digit()) && version.len() <= 32;
    is_version.then(|| version.escape_default().to_string())
}

/// An engine that had run before counts from its own start: what a recording of a part shows begins with that part.
fn since_beginning(input: Input<'_>, begins_at: Duration, losses_before: Losses) -> Input<'_> {
    match input {
        Input::EndRound(summary) => {
            Input::EndRound(ScanSummary { finished_at: summary.finished_at.saturating_sub(begins_at), ..summary })
        }
        Input::Losses(losses) => Input::Losses(losses.since(losses_before)),
        other => other,
    }
}
