//! Keys. A thread of their own reads them, and stops before the terminal is restored: later keys belong to the shell.
//!
//! Not crossterm's `EventStream`, which asks crossterm on the thread of the screen: on a terminal that hung up crossterm
//! never answers (it reads in a loop and swallows the error), and after half an escape sequence it waits for the rest.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd, OwnedFd},
    sync::mpsc as blocking,
    thread,
    time::Duration,
};

use crossterm::event::{self, Event};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime,
    sync::mpsc,
};

use crate::host::descriptors;

/// Enough for a fast typist; when it is full the rest waits in the terminal.
const QUEUE: usize = 64;

/// How long the thread may take to open what it needs: on a host without a free CPU that is long.
const START: Duration = Duration::from_secs(2);

/// How long it may take to end. It is only late when it waits for the rest of an escape sequence.
const PATIENCE: Duration = Duration::from_millis(100);

/// The keyboard, until it is dropped.
pub(crate) struct Keyboard {
    events: mpsc::Receiver<io::Result<Event>>,
    ended: blocking::Receiver<()>,
}

impl Keyboard {
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, events) = mpsc::channel(QUEUE);
        let (thread_lives, ended) = blocking::channel();
        let (prepared, is_prepared) = blocking::sync_channel(1);
        let tty = tty()?;
        // The event loop opens its descriptors now: later there may be none left.
        descriptors::require_for_event_loop()?;
        thread::Builder::new().name("terminal-input".to_owned()).spawn(move || {
            // Nobody listens to an error any more once the screen is closed.
            if let Err(error) = forward(tty, &sender, prepared) {
                let _ = sender.blocking_send(Err(error));
            }
            drop(thread_lives);
        })?;
        // An error comes as the first event.
        let _ = is_prepared.recv_timeout(START);
        Ok(Self { events, ended })
    }

    /// Cancel safe. `None` after an error.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Event>> {
        self.events.recv().await
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.events.close();
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// The terminal that keys come from: crossterm reads from the same one.
pub(crate) fn tty() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if stdin.is_terminal() { stdin.as_fd().try_clone_to_owned() } else { Ok(File::open("/dev/tty")?.into()) }
}

/// Calls crossterm only when there is input, so that no input is lost after the end.
fn forward(
    tty: OwnedFd,
    events: &mpsc::Sender<io::Result<Event>>,
    prepared: blocking::SyncSender<()>,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor changes; an OwnedFd's does not, and the successor is unsafe"
        )]
        let tty = AsyncFd::with_interest(tty, Interest::READABLE)?;
        if has_hung_up(&tty)? {
            return Ok(());
        }
        // The first poll makes crossterm open its terminal: if that fails, it never works again.
        event::poll(LOOK)?;
        drop(prepared);
        if !send_all(events).await? {
            return Ok(());
        }
        loop {
            let mut readable = tokio::select! {
                biased;
                () = events.closed() => return Ok(()),
                readable = tty.readable() => readable?,
            };
            if readable.ready().is_read_closed() {
                return Err(Errno::IO.into());
            }
            if !send_all(events).await? {
                return Ok(());
            }
            readable.clear_ready();
        }
    })
}

/// How long crossterm is asked to wait for more: with nothing at all it would not even look.
const LOOK: Duration = Duration::from_millis(1);

/// How often it is tried again where poll() refuses.
const RETRY: Duration = Duration::from_millis(100);

/// Sends the terminal's input. `false` once the receiver is gone.
async fn send_all(events: &mpsc::Sender<io::Result<Event>>) -> io::Result<bool> {
    loop {
        match event::poll(LOOK) {
            Ok(true) => {
                if events.send(Ok(event::read()?)).await.is_err() {
                    return Ok(false);
                }
            }
            Ok(false) => return Ok(true),
            // poll() asks about no more descriptors than RLIMIT_NOFILE: below two of them the keys wait in the terminal.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                tokio::select! {
                    biased;
                    () = events.closed() => return Ok(false),
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the other end of the terminal is closed: then crossterm would read for ever.
fn has_hung_up(tty: &impl AsFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(tty, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(asked[0].revents().contains(PollFlags::HUP))
}
