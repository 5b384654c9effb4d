//! Descriptors of this process, asked for before a library asks that cannot be refused.

use std::{io, os::fd::OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// What tokio opens for its event loop and its signals, and some to spare. It panics where it is refused them.
const OF_THE_EVENT_LOOP: usize = 16;

/// Fails where there are too few descriptors for an event loop.
pub fn require_for_event_loop() -> io::Result<()> {
    let held: Result<Vec<OwnedFd>, _> = (0..OF_THE_EVENT_LOOP).map(|_| eventfd(0, EventfdFlags::CLOEXEC)).collect();
    held.map(drop)?;
    Ok(())
}
