//! One pass of a BPF iterator. Its program writes the records to the ring buffer. The `read()` calls here only set the
//! pace: each returns after at most 512 records, and the engine drains the ring buffer before the next, or soon after it.

use std::{
    fs::File,
    io::{self, Read as _},
    sync::mpsc,
    thread,
};

use crate::host::helper;

/// Bytes of the ring buffer that the records of one part take, at most: 512, and those of listeners are two.
pub const PART_BYTES: u32 = 512 * (80 + 56);

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

    /// Runs what is left on another thread, while this one takes the records: `take` is called after each part, and no more than
    /// `ahead` others are run before it. Returns whether there was a thread to run it.
    pub fn run_ahead(&mut self, ahead: usize, mut take: impl FnMut()) -> io::Result<bool> {
        let (ran, parts) = mpsc::sync_channel(ahead);
        thread::scope(|scope| {
            let work = move || {
                while self.step()? {
                    // Nobody takes what comes any more only when its thread panics.
                    if ran.send(()).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let Ok(helper) = helper::start(scope, "scan", work) else { return Ok(false) };
            for () in parts {
                take();
            }
            helper::join(helper).map(|()| true)
        })
    }

    /// The number of a pass that has reached its end: its last record has it.
    #[must_use]
    pub const fn number(&self) -> Option<u64> {
        self.number
    }
}
