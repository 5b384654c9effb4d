//! One pass of a BPF iterator. Its program writes the records to the ring buffer; what is read here only sets the pace:
//! each `read()` returns after at most 512 records, and the ring is drained before the next.

use std::{
    fs::File,
    io::{self, Read as _},
};

/// A pass that is under way.
pub struct Pass {
    iterator: File,
}

impl Pass {
    /// Starts a pass over the objects of `iterator`.
    #[must_use]
    pub const fn new(iterator: File) -> Self {
        Self { iterator }
    }

    /// Goes on for a while; false when the pass is complete.
    pub fn step(&mut self) -> io::Result<bool> {
        let mut pace = [0; 4096];
        match self.iterator.read(&mut pace) {
            Ok(read) => Ok(read > 0),
            // The kernel gives up a read() after 1,000,000 objects without output: go on where it stopped.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
