//! Entries that are gathered until they make a chunk.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{CHUNK, Header, chunk};
use crate::input::Input;

/// The longest time that entries wait for their chunk to be written. Whoever reads along is so far behind, and by the time that the
/// engine leaves records in the ring.
const GATHERED: Duration = Duration::from_millis(250);

/// What a chunk holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChunkCounts {
    /// Inputs of every kind.
    pub(super) inputs: u64,
    /// Of these, records of the ring buffer.
    pub(super) records: u64,
    /// Bytes of the chunk.
    pub(super) bytes: u64,
    /// Time of the last one.
    pub(super) last_at: Duration,
}

/// Entries of the next chunk.
#[derive(Default)]
pub(super) struct Gathered {
    entries: Vec<u8>,
    /// Room that is used again.
    packed: Vec<u8>,
    counts: ChunkCounts,
    first_at: Duration,
}

impl Gathered {
    /// Adds an entry.
    pub(super) fn add(&mut self, at: Duration, input: &Input<'_>) -> io::Result<()> {
        if self.entries.is_empty() {
            self.first_at = at;
        }
        let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        // postcard writes a pair as it writes an `Entry`.
        self.encode(&(at_ns, input))?;
        self.counts.inputs += 1;
        self.counts.records += u64::from(matches!(input, Input::Record(_)));
        self.counts.last_at = at;
        Ok(())
    }

    /// Adds the header, which has a chunk of its own.
    pub(super) fn add_header(&mut self, header: &Header) -> io::Result<()> {
        self.encode(header)
    }

    fn encode(&mut self, value: &impl Serialize) -> io::Result<()> {
        postcard::to_io(value, &mut self.entries).map(drop).map_err(io::Error::other)
    }

    /// Whether the chunk is to be written now: it is large enough, or its first entry has waited long enough.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.entries.len() >= CHUNK || (!self.entries.is_empty() && now.saturating_sub(self.first_at) >= GATHERED)
    }

    /// Writes the chunk; `None` where there is nothing to write.
    pub(super) fn write_to(&mut self, sink: &mut impl Write) -> io::Result<Option<ChunkCounts>> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        let bytes = chunk::write(sink, &self.entries, &mut self.packed)?;
        self.entries.clear();
        Ok(Some(ChunkCounts { bytes, ..std::mem::take(&mut self.counts) }))
    }
}
