//! Writes recordings.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{CHUNK, FORMAT, Header, MAGIC, chunk};
use crate::input::Input;

/// The longest time that entries wait for their chunk to be written.
const GATHERED: Duration = Duration::from_secs(1);

/// What a recording holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records of hooks and scans.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Time since start of the last entry.
    pub last_at: Duration,
}

/// A recording that is under way.
pub struct Writer<W> {
    sink: W,
    /// Entries that are not written yet.
    entries: Vec<u8>,
    packed: Vec<u8>,
    written_at: Duration,
    tally: Tally,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn start(mut sink: W, header: &Header) -> io::Result<Self> {
        sink.write_all(&MAGIC)?;
        sink.write_all(&FORMAT.to_le_bytes())?;
        let bytes = (MAGIC.len() + size_of_val(&FORMAT)) as u64;
        let tally = Tally { bytes, ..Tally::default() };
        let (entries, packed) = (Vec::new(), Vec::new());
        let mut writer = Self { sink, entries, packed, written_at: Duration::ZERO, tally };
        writer.gather(header)?;
        writer.write_chunk()?;
        Ok(writer)
    }

    /// Takes in the next entry. `at` is time since start and never goes back.
    pub fn write(&mut self, at: Duration, input: &Input<'_>) -> io::Result<()> {
        let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        // postcard writes a pair as it writes an `Entry`.
        self.gather(&(at_ns, input))?;
        self.tally.records += u64::from(matches!(input, Input::Record(_)));
        self.tally.last_at = at;
        if self.entries.len() >= CHUNK || at.saturating_sub(self.written_at) >= GATHERED {
            self.written_at = at;
            self.write_chunk()?;
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub fn finish(mut self) -> io::Result<Tally> {
        self.write_chunk()?;
        self.sink.flush()?;
        Ok(self.tally)
    }

    fn gather(&mut self, value: &impl Serialize) -> io::Result<()> {
        postcard::to_io(value, &mut self.entries).map(drop).map_err(io::Error::other)
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        if !self.entries.is_empty() {
            self.tally.bytes += chunk::write(&mut self.sink, &self.entries, &mut self.packed)?;
            self.entries.clear();
        }
        Ok(())
    }
}
