//! Writes recordings.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{FORMAT, Header, MAGIC, gathered::Gathered};
use crate::input::Input;

/// What a recording holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records of hooks and scans.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Time since start of the last entry.
    pub last_at: Duration,
    /// Inputs that did not get there, because they came faster than they were taken.
    pub lost: u64,
}

/// The bytes that every recording begins with.
pub(super) fn beginning(header: &Header) -> io::Result<Vec<u8>> {
    let mut bytes = [&MAGIC[..], &FORMAT.to_le_bytes()].concat();
    let mut gathered = Gathered::default();
    gathered.add_header(header)?;
    gathered.write_to(&mut bytes)?;
    Ok(bytes)
}

/// A recording that is under way.
pub struct Writer<W> {
    sink: W,
    /// Entries that are not written yet.
    gathered: Gathered,
    tally: Tally,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn start(mut sink: W, header: &Header) -> io::Result<Self> {
        let beginning = beginning(header)?;
        sink.write_all(&beginning)?;
        let tally = Tally { bytes: beginning.len() as u64, ..Tally::default() };
        Ok(Self { sink, gathered: Gathered::default(), tally })
    }

    /// Takes in the next entry. `at` is time since start and never goes back.
    pub fn write(&mut self, at: Duration, input: &Input<'_>) -> io::Result<()> {
        self.gathered.add(at, input)?;
        if self.gathered.is_due(at) {
            self.write_chunk()?;
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_chunk()?;
        self.sink.flush()
    }

    /// What was written so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Writes what was gathered, at the end.
    pub fn finish(mut self) -> io::Result<Tally> {
        self.flush()?;
        Ok(self.tally)
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        if let Some(counts) = self.gathered.write_to(&mut self.sink)? {
            self.tally.bytes += counts.bytes;
            self.tally.records += counts.records;
            self.tally.last_at = counts.last_at;
        }
        Ok(())
    }
}
