//! One pass of a BPF iterator. Its program writes the records to the ring buffer. The `read()` calls here only set the
//! pace: each returns after at most 512 records, and the engine drains the ring buffer before the next.

use std::{
    fs::File,
    io::{self, Read as _},
};

/// A running pass.
pub struct Pass {
    iterator: File,
    number: Option<u64>,
}

impl Pass {
    /// Starts a pass over the objects of `iterator`.
    #[must_use]
    pub const fn new(iterator: File) -> Self {
        Self { iterator, number: None }
    }

    /// Runs the next part; false when the pass is complete.
    pub fn step(&mut self) -> io::Result<bool> {
        let mut pace = [0; 4096];
        match self.iterator.read(&mut pace) {
            Ok(read) => {
                // The program writes 0 for each record, and the number at the end.
                let last = pace[..read].last_chunk().map(|word| u64::from_ne_bytes(*word));
                self.number = last.filter(|number| *number != 0).or(self.number);
                Ok(read > 0)
            }
            // The kernel ends a read() after 1,000,000 objects without output. The next read() continues there.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The number of a pass that has reached its end: its last record has it.
    #[must_use]
    pub const fn number(&self) -> Option<u64> {
        self.number
    }
}
