//! The live screen.
//!
//! ```text
//! keys, signals ─▶ keymap ─▶ Message ─▶ update(&mut Ui, …) ─▶ Effect ─▶ this loop
//! engine ◀── ScreenRequest ── Effect        (single connections while they are shown, a step within a replay, …)
//! engine ────────▶ Arc<Frame> ─────▶ view(&Ui, &Frame, &Theme, …) ─▶ terminal
//! ```
//!
//! - `terminal`: raw mode and the alternate screen, restored in every case; `group_stop`: Ctrl-Z; `input`: keys.
//! - `message`, `keymap`, `ui`: the messages, the keys that send them, and their effects.
//! - `prompt`: the line in which a filter is typed.
//! - `layout`, `view`, `tabs`: the layout, and what stands around the screens.
//! - `screen/`: one file for each screen, a `pane`; `table`: shared by screens with rows; `widget/`: the parts around them.
//! - `text`: lines, cut where they do not fit.
//! - `theme`: styles; `ascii`: for terminals without more. Numbers and addresses are written by `present::format`.
//!
//! **Invariant**: only this file and `terminal`, `input` know a clock or do IO; `update` and `view` are pure.
//! **Invariant**: `view` takes shared references only: pausing, sorting and scrolling never reach the engine.
//! **Invariant**: only `text::put` draws lines, so that a cut line shows it.
//! **Invariant**: text from outside is drawn only through `format::printable`.

mod ascii;
mod group_stop;
mod input;
mod keymap;
mod layout;
mod message;
mod pane;
mod prompt;
mod screen;
mod screen_name;
mod table;
mod tabs;
mod terminal;
mod text;
mod theme;
mod ui;
mod view;
mod widget;

#[cfg(test)]
pub(crate) use self::pane::LABEL as LONGEST_LABEL;
pub(crate) use crate::present::format;

#[cfg(test)]
pub(crate) mod tests;

use std::{io, sync::Arc, time::Duration};

use crossterm::event::{Event, KeyCode, KeyEvent};
use ratatui::{buffer::Buffer, layout::Rect};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

pub(crate) use self::widget::transcript::LEAST_HEIGHT as LEAST_HEIGHT_OF_LABS;
use self::{
    input::Keyboard,
    message::{Effect, Message},
    terminal::{Signal, Signals, StopScope, TerminalScreen},
    theme::Theme,
    ui::Ui,
};
pub use self::{
    layout::{MIN_HEIGHT, MIN_WIDTH},
    message::{ScreenRequest, Step},
    theme::ThemeName,
};
use crate::{frame::Frame, model::query::Query};

/// 20 drawings a second: smooth to the eye, and cheap over a slow line.
const DRAW_INTERVAL: Duration = Duration::from_millis(50);

/// After a key the screen draws at once and does not wait for the next drawing.
const ANSWER: Duration = Duration::from_millis(10);

/// How often the screen checks that snapshots still arrive.
const TICK: Duration = Duration::from_secs(1);

/// The engine publishes at least once a second. After this time without a snapshot the screen says so.
const SILENCE: Duration = Duration::from_secs(3);

/// The look of the screen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Its colours.
    pub theme: ThemeName,
    /// Draw only ASCII.
    pub ascii: bool,
    /// Use the mouse from the start.
    pub mouse: bool,
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

/// Errors that close the screen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No frames will come any more.
    #[error("the engine ended")]
    EngineEnded,
    /// The panic's message was printed when it happened.
    #[error("a thread of observer panicked")]
    Panicked,
    /// The terminal refused.
    #[error("use the terminal")]
    Terminal(#[from] io::Error),
}

/// Opens the terminal, where that takes rights that go later. [`run`] does it otherwise.
pub fn open_terminal() -> io::Result<()> {
    terminal::open()
}

/// Shows frames until the user quits, and then restores the terminal.
///
/// A terminal that does not read loses drawings: nothing waits for it.
pub async fn run(
    mut frames: watch::Receiver<Arc<Frame>>,
    requests: mpsc::UnboundedSender<ScreenRequest>,
    options: Look,
) -> Result<Ended, Error> {
    // Before the terminal is touched: from here on no signal ends the program behind our back.
    let signals = Signals::new()?;
    let screen = TerminalScreen::enter()?;
    let ended = match ScreenLoop::new(&mut frames, requests, options, signals, screen) {
        Ok(mut session) => session.run(frames).await,
        Err(error) => Err(error),
    };
    match ended {
        Err(Error::Terminal(error)) if terminal::is_gone(&error) => Ok(Ended::TerminalGone),
        ended => ended,
    }
}

/// What the screen shows, and the times of the last frame and the last drawing.
struct ScreenLoop {
    screen: TerminalScreen,
    signals: Signals,
    requests: mpsc::UnboundedSender<ScreenRequest>,
    options: Look,
    theme: Theme,
    ui: Ui,
    latest: Arc<Frame>,
    /// The last query sent.
    asked: Option<Query>,
    heard_at: Instant,
    drawn_at: Instant,
    /// When the next drawing is due.
    due_at: Instant,
    /// Something changed since the last drawing.
    is_dirty: bool,
}

impl ScreenLoop {
    fn new(
        frames: &mut watch::Receiver<Arc<Frame>>,
        requests: mpsc::UnboundedSender<ScreenRequest>,
        options: Look,
        signals: Signals,
        mut screen: TerminalScreen,
    ) -> Result<Self, Error> {
        let mut ui = Ui::new(screen.area()?);
        if options.mouse {
            ui.mouse = true;
            screen.set_mouse(true)?;
        }
        let (latest, now) = (frames.borrow_and_update().clone(), Instant::now());
        let theme = Theme::new(options.theme);
        let (heard_at, drawn_at, due_at) = (now, now, now);
        let (asked, is_dirty) = (None, true);
        Ok(Self { screen, signals, requests, options, theme, ui, latest, asked, heard_at, drawn_at, due_at, is_dirty })
    }

    async fn run(&mut self, mut frames: watch::Receiver<Arc<Frame>>) -> Result<Ended, Error> {
        let mut keyboard = Keyboard::start()?;
        let (mut tick, mut retry) = (every(TICK), every(terminal::RETRY));
        loop {
            let message = tokio::select! {
                biased;
                signal = self.signals.next() => {
                    if let Some(ended) = self.on_signal(signal).await? {
                        return Ok(ended);
                    }
                    Some(resized(&self.screen)?)
                }
                () = terminal::panicked() => return Err(Error::Panicked),
                _ = retry.tick(), if self.screen.is_behind() => {
                    self.screen.push()?;
                    continue;
                }
                () = sleep_until(self.due_at), if self.is_dirty && !self.screen.is_behind() => {
                    if frames.has_changed().unwrap_or(false) {
                        self.take(&mut frames);
                    }
                    self.draw()?;
                    continue;
                }
                event = keyboard.next() => {
                    self.due_at = self.drawn_at + ANSWER;
                    match event {
                        Some(Ok(event)) => typed(&mut self.ui, &self.latest, event),
                        Some(Err(error)) => return Err(error.into()),
                        None => return Ok(Ended::TerminalGone),
                    }
                }
                changed = frames.changed(), if !self.is_dirty || self.screen.is_behind() => {
                    if changed.is_err() {
                        return Err(Error::EngineEnded);
                    }
                    self.take(&mut frames);
                    None
                }
                _ = tick.tick() => {
                    let silence = self.heard_at.elapsed();
                    // While snapshots arrive there is nothing to draw here.
                    if silence < SILENCE && self.ui.silence < SILENCE {
                        continue;
                    }
                    Some(Message::Silence(silence))
                }
            };
            if let Some(ended) = self.react(message).await? {
                return Ok(ended);
            }
        }
    }

    /// Takes the newest snapshot.
    fn take(&mut self, frames: &mut watch::Receiver<Arc<Frame>>) {
        self.latest = frames.borrow_and_update().clone();
        self.heard_at = Instant::now();
    }

    async fn on_signal(&mut self, signal: Signal) -> Result<Option<Ended>, Error> {
        match signal {
            Signal::End(number) => return Ok(Some(Ended::Signal(number))),
            Signal::Resize => return Ok(None),
            Signal::Stop => self.screen.suspend(StopScope::Process, &mut self.signals).await?,
            // Another program may have changed the terminal's mode while this one was stopped.
            Signal::Continue => self.screen.reenter()?,
        }
        // The engine was stopped too.
        self.heard_at = Instant::now();
        Ok(None)
    }

    fn draw(&mut self) -> Result<(), Error> {
        let Self { screen, ui, latest, theme, options, .. } = self;
        screen.draw(|area, buf| {
            view::view(ui, latest, theme, area, buf);
            if options.ascii {
                ascii::fold(buf);
            }
        })?;
        self.is_dirty = false;
        self.drawn_at = Instant::now();
        self.due_at = self.drawn_at + DRAW_INTERVAL;
        Ok(())
    }

    /// Applies a message, and asks the engine for what the screen now needs.
    async fn react(&mut self, message: Option<Message>) -> Result<Option<Ended>, Error> {
        self.is_dirty = true;
        let effect = message.map_or(Effect::None, |message| ui::update(&mut self.ui, &self.latest, message));
        let query = self.ui.query();
        if query != self.asked {
            self.asked.clone_from(&query);
            // If the source ended, its channel of frames is closed too. The loop sees it there.
            let _ = self.requests.send(ScreenRequest::Connections(query));
        }
        match effect {
            Effect::None => {}
            Effect::Ask(request) => drop(self.requests.send(request)),
            Effect::Mouse(on) => self.screen.set_mouse(on)?,
            Effect::Quit => return Ok(Some(Ended::Quit)),
            Effect::Redraw => self.screen.redraw(),
            Effect::Suspend => {
                self.screen.suspend(StopScope::ProcessGroup, &mut self.signals).await?;
                self.heard_at = Instant::now();
                ui::update(&mut self.ui, &self.latest, resized(&self.screen)?);
            }
        }
        Ok(None)
    }
}

/// A late tick is skipped, not repeated.
fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The message of a key or the mouse; pasted text is applied at once.
fn typed(ui: &mut Ui, latest: &Arc<Frame>, event: Event) -> Option<Message> {
    match event {
        Event::Key(key) => keymap::message(key, ui.prompt.is_open),
        Event::Mouse(event) => keymap::pointed(event, ui.prompt.is_open),
        Event::Paste(text) => {
            ui::paste(ui, latest, &text);
            None
        }
        Event::FocusGained | Event::FocusLost | Event::Resize(..) => None,
    }
}

fn resized(screen: &TerminalScreen) -> io::Result<Message> {
    let Rect { width, height, .. } = screen.area()?;
    Ok(Message::Resize { width, height })
}

/// The screen of a terminal of this size after these keys, drawn without one: for pictures and measurements.
///
/// `source` is asked for a snapshot with the single connections that the screen wants to show. Keys are letters; `\n`
/// is Enter, `\x1b` is Esc.
#[must_use]
pub fn shot(
    mut source: impl FnMut(Option<&Query>) -> Arc<Frame>,
    keys: &str,
    (width, height): (u16, u16),
    options: Look,
) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut ui = Ui::new(area);
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            letter => KeyCode::Char(letter),
        };
        if let Some(message) = keymap::message(KeyEvent::from(code), ui.prompt.is_open) {
            let latest = source(ui.query().as_ref());
            ui::update(&mut ui, &latest, message);
        }
    }
    let mut buf = Buffer::empty(area);
    view::view(&ui, &source(ui.query().as_ref()), &Theme::new(options.theme), area, &mut buf);
    if options.ascii {
        ascii::fold(&mut buf);
    }
    buf
}
