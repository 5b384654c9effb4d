//! The terminal is entered once and left on every way out: return, panic of any thread, signal, suspension.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    panic,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::Duration,
};

use crossterm::{
    cursor::{Hide, Show},
    event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture},
    queue,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen},
};
use ratatui::{Terminal, backend::CrosstermBackend, buffer::Buffer, layout::Rect};
use rustix::{
    io::Errno,
    process,
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr},
};
use tokio::{
    signal::unix::{self, SignalKind},
    sync::Notify,
    time::timeout,
};

use super::{group_stop::GroupStop, input};
use crate::outlet::Outlet;

/// The longest wait for a frame to be written: a terminal that reads takes it much sooner.
const AT_ONCE: Duration = Duration::from_millis(5);
/// Between two attempts to write the rest to a terminal that did not take it.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// What observer changed on the terminal, and must restore.
struct TerminalState {
    /// Frames may be written.
    is_ours: bool,
    /// Where frames go. Opened once: after a stop there may be no descriptor for another.
    outlet: Option<Outlet>,
    /// What stops the process group where the user has changed.
    group_stop: Option<GroupStop>,
    /// The terminal that keys come from. Opened once, too: without it the terminal could not leave raw mode.
    tty: Option<OwnedFd>,
    /// The terminal's mode before ours, while it is in ours.
    mode_before: Option<Termios>,
    /// What the terminal has not taken yet.
    rest: Vec<u8>,
    /// Whether the mouse is to be ours, whenever the screen is.
    mouse: bool,
}

/// Held while a frame is written, so that the panic hook never cuts one in half, and no frame lands on top of a panic's
/// message. Never for long: no write waits for the terminal.
static STATE: Mutex<TerminalState> = Mutex::new(TerminalState {
    is_ours: false,
    outlet: None,
    group_stop: None,
    tty: None,
    mode_before: None,
    rest: Vec::new(),
    mouse: false,
});

static PANICKED: Notify = Notify::const_new();

fn state() -> MutexGuard<'static, TerminalState> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TerminalState {
    fn open_outlet(&mut self) -> io::Result<()> {
        if self.outlet.is_none() {
            self.outlet = Some(Outlet::new(io::stdout())?);
        }
        Ok(())
    }

    /// Writes as much of the rest as the terminal takes by then.
    fn push(&mut self, time: Duration) -> io::Result<()> {
        let Some(outlet) = self.outlet.as_ref().filter(|_| self.is_ours) else { return Ok(()) };
        let written = outlet.write_within(&self.rest, time)?;
        self.rest.drain(..written);
        Ok(())
    }

    /// Raw mode. Not crossterm's, which opens the terminal again each time where standard input is another one.
    fn set_raw_mode(&mut self) -> io::Result<()> {
        let tty = match self.tty.take() {
            Some(tty) => tty,
            None => input::tty()?,
        };
        let tty = self.tty.insert(tty);
        let before = tcgetattr(&*tty)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&*tty, OptionalActions::Now, &raw)?;
        self.mode_before = Some(before);
        Ok(())
    }

    fn restore_mode(&mut self) {
        if let (Some(tty), Some(before)) = (&self.tty, self.mode_before.take()) {
            // The terminal may be gone: nobody could read an error.
            let _ = tcsetattr(tty, OptionalActions::Now, &before);
        }
    }

    /// Adds the sequences that take or give up the mouse.
    fn queue_mouse(&mut self, on: bool) -> io::Result<()> {
        if on { queue!(self.rest, EnableMouseCapture) } else { queue!(self.rest, DisableMouseCapture) }
    }
}

/// The terminal while it shows the screen; leaves it when dropped.
pub(crate) struct TerminalScreen {
    // Dropped first: what ratatui's terminal says when it is dropped goes nowhere then. On a terminal that is gone it
    // would print its failure, which panics.
    _guard: Guard,
    terminal: Terminal<CrosstermBackend<OneWrite>>,
    in_full: bool,
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        leave();
    }
}

impl TerminalScreen {
    pub(crate) fn enter() -> io::Result<Self> {
        leave_on_panic();
        // What was begun is undone.
        let guard = Guard;
        enter()?;
        Ok(Self {
            _guard: guard,
            terminal: Terminal::new(CrosstermBackend::new(OneWrite(Vec::new())))?,
            in_full: false,
        })
    }

    pub(crate) fn area(&self) -> io::Result<Rect> {
        Ok(Rect::from((ratatui::layout::Position::ORIGIN, self.terminal.size()?)))
    }

    pub(crate) fn draw(&mut self, view: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        if std::mem::take(&mut self.in_full) {
            // Not `Terminal::clear`: it asks the terminal where the cursor is, and waits.
            let area = self.area()?;
            self.terminal.resize(area)?;
        }
        self.terminal.draw(|frame| view(frame.area(), frame.buffer_mut())).map(|_| ())
    }

    /// Whether the terminal has not taken all of the last frame: another would only have to wait behind it.
    #[expect(clippy::unused_self, reason = "only who has the screen may ask")]
    pub(crate) fn is_behind(&self) -> bool {
        !state().rest.is_empty()
    }

    /// Writes on where the terminal did not take all.
    #[expect(clippy::unused_self, reason = "only who has the screen may")]
    pub(crate) fn push(&mut self) -> io::Result<()> {
        state().push(Duration::ZERO)
    }

    /// The next frame is drawn in full. Not at once: keys that come while the terminal takes nothing must not wait for it
    /// one by one.
    pub(crate) const fn redraw(&mut self) {
        self.in_full = true;
    }

    /// Lets the mouse speak to us, or to the terminal as usual.
    #[expect(clippy::unused_self, reason = "only who has the screen may")]
    pub(crate) fn set_mouse(&mut self, on: bool) -> io::Result<()> {
        let mut state = state();
        state.mouse = on;
        state.queue_mouse(on)?;
        state.push(Duration::ZERO)
    }

    /// Takes the terminal again after somebody else may have used it.
    pub(crate) fn reenter(&mut self) -> io::Result<()> {
        leave();
        enter()?;
        self.redraw();
        Ok(())
    }

    /// Gives the terminal back and stops, until a SIGCONT.
    pub(crate) async fn suspend(&mut self, scope: StopScope, signals: &mut Signals) -> io::Result<()> {
        let stop = process::Signal::STOP;
        match scope {
            // No shell would be there to continue us. The kernel discards a terminal's SIGTSTP in that case, too.
            StopScope::ProcessGroup if leads_session() => return Ok(()),
            StopScope::ProcessGroup => {
                leave();
                let stopped = state().group_stop.as_ref().map(GroupStop::stop);
                // Without one the user is the same as before, or no descriptor was left.
                stopped.unwrap_or_else(|| process::kill_current_process_group(stop).map_err(io::Error::from))?;
            }
            StopScope::Process => {
                leave();
                process::kill_process(process::getpid(), stop)?;
            }
        }
        // Another thread may take the signal and stop this one a moment later. Not for ever: the first process of a pid
        // namespace cannot be stopped from within.
        let _ = timeout(Duration::from_millis(50), signals.cont.recv()).await;
        self.reenter()
    }
}

/// Whom a suspension stops.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StopScope {
    /// As the terminal does it on Ctrl-Z: also `sudo` or `cargo run` above us, or their shell would wait for ever.
    ProcessGroup,
    /// As somebody else's SIGTSTP asked it.
    Process,
}

fn leads_session() -> bool {
    process::getsid(None).is_ok_and(|session| session == process::getpid())
}

/// Opens what takes rights that go later. Nothing changes on the terminal.
pub(crate) fn open() -> io::Result<()> {
    let mut state = state();
    state.open_outlet()?;
    state.group_stop = Some(GroupStop::open()?);
    Ok(())
}

fn enter() -> io::Result<()> {
    let mut state = state();
    // First, since it stops us until we are in the foreground.
    state.set_raw_mode()?;
    // From here on there is something to leave.
    state.is_ours = true;
    state.open_outlet()?;
    queue!(state.rest, EnterAlternateScreen, EnableBracketedPaste, Hide)?;
    if state.mouse {
        state.queue_mouse(true)?;
    }
    state.push(AT_ONCE)
}

fn leave() {
    let mut state = state();
    if !std::mem::take(&mut state.is_ours) {
        return;
    }
    let rest = std::mem::take(&mut state.rest);
    let mut farewell = Vec::new();
    if state.mouse {
        let _ = queue!(farewell, DisableMouseCapture);
    }
    let _ = queue!(farewell, DisableBracketedPaste, Show, LeaveAlternateScreen);
    if let Some(outlet) = &state.outlet {
        // The terminal may be gone: nobody could read an error.
        let _ = outlet.part(&rest, &farewell);
    }
    state.restore_mode();
}

/// The message of a panic is to be read on the restored terminal, whichever thread it comes from.
fn leave_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            leave();
            PANICKED.notify_one();
            print(info);
        }));
    });
}

/// Waits until a thread panics.
pub(crate) async fn panicked() {
    PANICKED.notified().await;
}

/// The other end of the terminal was closed.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    const GONE: [Errno; 5] = [Errno::IO, Errno::NXIO, Errno::NOTTY, Errno::BADF, Errno::PIPE];
    GONE.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Collects a drawing and writes it in one piece as far as the terminal takes it, unless the screen is no longer ours.
struct OneWrite(Vec<u8>);

impl Write for OneWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = state();
        let drawing = std::mem::take(&mut self.0);
        if !state.is_ours {
            return Ok(());
        }
        state.rest.extend(drawing);
        state.push(AT_ONCE)
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    End(i32),
    Stop,
    Continue,
    Resize,
}

/// The signals that concern the terminal.
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
    quit: unix::Signal,
    stop: unix::Signal,
    cont: unix::Signal,
    resize: unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let raw = |signal: process::Signal| unix::signal(SignalKind::from_raw(signal.as_raw()));
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            quit: unix::signal(SignalKind::quit())?,
            stop: raw(process::Signal::TSTP)?,
            cont: raw(process::Signal::CONT)?,
            resize: unix::signal(SignalKind::window_change())?,
        })
    }

    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        let end = |kind: SignalKind| Signal::End(kind.as_raw_value());
        tokio::select! {
            // A shell that hangs up sends SIGCONT with it.
            biased;
            _ = self.hangup.recv() => end(SignalKind::hangup()),
            _ = self.terminate.recv() => end(SignalKind::terminate()),
            _ = self.interrupt.recv() => end(SignalKind::interrupt()),
            _ = self.quit.recv() => end(SignalKind::quit()),
            _ = self.stop.recv() => Signal::Stop,
            _ = self.cont.recv() => Signal::Continue,
            _ = self.resize.recv() => Signal::Resize,
        }
    }
}
