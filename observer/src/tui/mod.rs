//! The terminal screen.
//!
//! ```text
//! keys, signals ─▶ keymap ─▶ Message ─▶ update(&mut Ui, …) ─▶ Effect ─▶ this loop
//! engine ◀─ Query ─ Ui                (single connections, while they are shown)
//! engine ────────▶ Arc<Snapshot> ─────▶ view(&Ui, &Snapshot, &Theme, …) ─▶ terminal
//! ```
//!
//! - `terminal`: raw mode and the alternate screen, entered and left whatever happens; `input`: keys.
//! - `message`, `keymap`, `ui`: what can be asked for, by which key, and what it does.
//! - `prompt`: the line in which a filter is typed.
//! - `layout`, `view`: where things stand, and the frame around the screens.
//! - `screen/`: one file a screen, each a `pane`; `table/`: what all screens with rows share; `widget/`: the parts around them.
//! - `format`: numbers, durations and addresses as people read them; `theme`: styles.
//!
//! **Invariant**: only this file and `terminal`, `input` know a clock or do IO; `update` and `view` are pure.
//! **Invariant**: `view` takes shared references only: pausing, sorting and scrolling never reach the engine.
//! **Invariant**: text from outside is drawn only through `format::printable`.

pub(crate) mod format;
mod input;
mod keymap;
mod layout;
mod message;
mod pane;
mod prompt;
mod screen;
mod table;
mod terminal;
mod theme;
mod ui;
mod view;
mod widget;

#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use crossterm::event::Event;
use ratatui::{buffer::Buffer, layout::Rect};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

pub use self::layout::{MIN_HEIGHT, MIN_WIDTH};
use self::{
    input::Input,
    message::{Effect, Message},
    terminal::{Screen, Signal, Signals, StopScope},
    theme::Theme,
    ui::Ui,
};
use crate::model::{query::Query, snapshot::Snapshot};

/// 20 frames a second: smooth to the eye, and cheap over a slow line.
const FRAME: Duration = Duration::from_millis(50);

/// How often the screen looks whether the engine still speaks.
const TICK: Duration = Duration::from_secs(1);

/// What the user chose.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Colours, or bold, dim and reverse video only.
    pub color: bool,
}

impl Options {
    /// Colours, unless `NO_COLOR` is set to anything but the empty string (<https://no-color.org>).
    #[must_use]
    pub fn from_env() -> Self {
        Self { color: !theme::forbids_color(std::env::var_os("NO_COLOR").as_deref()) }
    }
}

/// Why the screen was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a key.
    Quit,
    /// By this signal.
    Signal(i32),
    /// The terminal went away: there is nothing left to write to.
    TerminalGone,
}

/// What closed the screen against the user's will.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No snapshots will come any more.
    #[error("the engine ended")]
    EngineEnded,
    /// The panic's message was printed when it happened.
    #[error("a thread of observer panicked")]
    Panicked,
    /// The terminal refused.
    #[error("use the terminal")]
    Terminal(#[from] io::Error),
}

/// Shows snapshots until the user quits. The terminal is as it was before when this returns.
///
/// Writing to a terminal that does not read blocks: the engine belongs on another thread.
pub async fn run(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ask: watch::Sender<Option<Query>>,
    options: Options,
) -> Result<Ended, Error> {
    // Before the terminal is touched: from here on no signal ends the program behind our back.
    let signals = Signals::new()?;
    let screen = Screen::enter()?;
    match converse(snapshots, ask, options, signals, screen).await {
        Err(Error::Terminal(error)) if terminal::is_gone(&error) => Ok(Ended::TerminalGone),
        ended => ended,
    }
}

async fn converse(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    ask: watch::Sender<Option<Query>>,
    options: Options,
    mut signals: Signals,
    mut screen: Screen,
) -> Result<Ended, Error> {
    let mut input = Input::start()?;
    let theme = Theme::new(options.color);
    let mut ui = Ui::new(screen.area()?);
    let mut latest = snapshots.borrow_and_update().clone();
    let mut heard_at = Instant::now();
    let mut frame_at = heard_at;
    let mut dirty = true;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

    loop {
        let message = tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::End(number) => return Ok(Ended::Signal(number)),
                Signal::Stop => {
                    screen.suspend(StopScope::Process, &mut signals).await?;
                    heard_at = Instant::now();
                    Some(resized(&screen)?)
                }
                // Whoever stopped us without asking may have changed the terminal's mode.
                Signal::Continue => {
                    screen.reenter()?;
                    heard_at = Instant::now();
                    Some(resized(&screen)?)
                }
                Signal::Resize => Some(resized(&screen)?),
            },
            () = terminal::panicked() => return Err(Error::Panicked),
            () = sleep_until(frame_at), if dirty => {
                if snapshots.has_changed().unwrap_or(false) {
                    latest = snapshots.borrow_and_update().clone();
                    heard_at = Instant::now();
                }
                screen.draw(|area, buf| view::view(&ui, &latest, &theme, area, buf))?;
                dirty = false;
                frame_at = Instant::now() + FRAME;
                continue;
            }
            event = input.next() => match event {
                Some(Ok(Event::Key(key))) => keymap::message(key, ui.prompt.is_open),
                Some(Ok(_)) => None,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(Ended::TerminalGone),
            },
            changed = snapshots.changed(), if !dirty => {
                if changed.is_err() {
                    return Err(Error::EngineEnded);
                }
                latest = snapshots.borrow_and_update().clone();
                heard_at = Instant::now();
                None
            }
            _ = tick.tick() => Some(Message::Silence(heard_at.elapsed())),
        };
        dirty = true;
        let Some(message) = message else { continue };
        let effect = ui::update(&mut ui, &latest, message);
        ask.send_if_modified(|asked| {
            let query = ui.query();
            let is_new = *asked != query;
            *asked = query;
            is_new
        });
        match effect {
            Effect::None => {}
            Effect::Quit => return Ok(Ended::Quit),
            Effect::Redraw => screen.redraw()?,
            Effect::Suspend => {
                screen.suspend(StopScope::ProcessGroup, &mut signals).await?;
                // The engine was stopped, too.
                heard_at = Instant::now();
                ui::update(&mut ui, &latest, resized(&screen)?);
            }
        }
    }
}

fn resized(screen: &Screen) -> io::Result<Message> {
    let Rect { width, height, .. } = screen.area()?;
    Ok(Message::Resize { width, height })
}

/// The screen of a terminal of this size, drawn without one: for pictures and tests.
#[must_use]
pub fn shot(snapshot: &Snapshot, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view::view(&Ui::new(area), snapshot, &Theme::new(true), area, &mut buf);
    buf
}
