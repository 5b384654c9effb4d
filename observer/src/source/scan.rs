//! One pass of a BPF iterator. Its program writes the records to the ring buffer. The `read()` calls here only set the
//! pace: each returns after at most 512 records, and the engine drains the ring buffer before the next.

use std::{
    fs::File,
    io::{self, Read as _},
};

/// A running pass.
pub struct Pass {
    iterator: File,
}

impl Pass {
    /// Starts a pass over the objects of `iterator`.
    #[must_use]
    pub const fn new(iterator: File) -> Self {
        Self { iterator }
    }

    /// Runs the next part; false when the pass is complete.
    pub fn step(&mut self) -> io::Result<bool> {
        let mut pace = [0; 4096];
        match self.iterator.read(&mut pace) {
            Ok(read) => Ok(read > 0),
            // The kernel ends a read() after 1,000,000 objects without output. The next read() continues there.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
