//! Reads recordings. What it is given may be anything.

use std::{io::Read, time::Duration};

use super::{
    Entry, FORMAT, Header, MAGIC, ReadError,
    chunk::{self, Chunks},
};
use crate::input::Input;

/// What comes next in a recording.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// An input, at this time since start.
    Input(Duration, Input<'a>),
    /// Nothing before the time that was asked for.
    Later,
    /// Nothing any more.
    End,
}

/// A recording, read from its beginning to its end. After an error there is nothing more to be read.
pub struct Reader<R> {
    chunks: Chunks<R>,
    header: Header,
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
        if format != FORMAT {
            return Err(ReadError::Format(format));
        }
        let mut chunks = Chunks::new(source, start.len() as u64);
        if !chunks.advance()? {
            return Err(ReadError::NoHeader);
        }
        let header: Header =
            postcard::from_bytes(chunks.bytes()).map_err(|_| chunks.damaged("its header makes no sense"))?;
        if header.arch != std::env::consts::ARCH {
            return Err(ReadError::Arch(header.arch.escape_default().to_string()));
        }
        let next = chunks.bytes().len();
        Ok(Self { chunks, header, next, at_ns: 0 })
    }

    /// What the recording says of itself.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The next input that is not later than `until`.
    pub fn next(&mut self, until: Duration) -> Result<Next<'_>, ReadError> {
        while self.next >= self.chunks.bytes().len() {
            self.next = 0;
            if !self.chunks.advance()? {
                return Ok(Next::End);
            }
        }
        let bytes = &self.chunks.bytes()[self.next..];
        let (Entry { at_ns, input }, rest) =
            postcard::take_from_bytes(bytes).map_err(|_| self.chunks.damaged("an entry makes no sense"))?;
        if at_ns < self.at_ns {
            return Err(self.chunks.damaged("time goes back"));
        }
        let at = Duration::from_nanos(at_ns);
        if at > until {
            return Ok(Next::Later);
        }
        self.next += bytes.len() - rest.len();
        self.at_ns = at_ns;
        Ok(Next::Input(at, input))
    }
}
