//! Keys and resizes, read by a thread of their own.
//!
//! Not crossterm's `EventStream`: on a terminal that hung up, its `poll` never returns (the read error is swallowed in a
//! loop), and would take the thread of the screen with it. A lost reader thread does no harm: the next write to the
//! terminal fails and ends the screen.

use std::{io, thread};

use crossterm::event::{self, Event};
use tokio::sync::mpsc;

/// Enough for a fast typist; when it is full the rest waits in the terminal.
const QUEUE: usize = 64;

/// Starts the reader. It ends with the process, or at the first event after the receiver is gone.
pub(crate) fn spawn() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::Builder::new()
        .name("terminal-input".to_owned())
        .spawn(move || {
            loop {
                let event = event::read();
                let failed = event.is_err();
                if sender.blocking_send(event).is_err() || failed {
                    return;
                }
            }
        })?;
    Ok(receiver)
}
