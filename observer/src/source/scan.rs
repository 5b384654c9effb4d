//! One pass of a BPF iterator. Its program writes the records to the ring buffer. The `read()` calls here only set the
//! pace: each returns after at most 512 records, and the engine drains the ring buffer before the next, or soon after it.

use std::{
    fs::File,
    io::{self, Read as _},
    sync::mpsc,
    thread,
};

use crate::host::helper;

/// Bytes of the ring buffer that the records of one part take: 512, and those of listeners are two. Where sockets have many subflows
/// it may be more.
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Seek as _, Write as _},
        net::TcpListener,
        os::fd::OwnedFd,
    };

    use super::*;

    const PART: u64 = 4096;

    /// An iterator's output of so many parts, which is read as one; the second file shows how far.
    fn output(parts: u64) -> (Pass, File) {
        let mut file = tempfile::tempfile().unwrap();
        let words = parts * PART / 8;
        for word in 0..words {
            let number: u64 = if word + 1 == words { 7 } else { 0 };
            file.write_all(&number.to_ne_bytes()).unwrap();
        }
        file.rewind().unwrap();
        let looker = file.try_clone().unwrap();
        (Pass::new(file), looker)
    }

    #[test]
    fn a_pass_on_another_thread_is_whole_and_not_far_ahead() {
        let (mut pass, mut looker) = output(50);
        assert!(pass.step().unwrap());
        let mut taken = 0;
        let ran = pass.run_ahead(3, || {
            taken += 1;
            // Beyond the three, one part is between its read() and the queue, and the next may be read once this one has left it.
            assert!(looker.stream_position().unwrap() <= PART * (1 + taken + 3 + 2), "after {taken}");
        });
        assert!(ran.unwrap());
        assert_eq!((taken, pass.number()), (49, Some(7)));
    }

    #[test]
    fn the_error_of_a_pass_comes_from_its_thread() {
        // Of a listener nothing can be read.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut pass = Pass::new(OwnedFd::from(listener).into());
        let error = pass.run_ahead(1, || panic!("there is no part")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}
