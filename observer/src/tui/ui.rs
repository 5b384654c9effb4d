//! The state of the user interface, and the one function that changes it.

use std::{sync::Arc, time::Duration};

use ratatui::layout::{Position, Rect};

use super::{
    layout::{self, Areas},
    message::{Effect, Message, Move, ScreenRequest, Step},
    prompt::{Prompt, Typed},
    screen::Screens,
    screen_name::ScreenName,
    tabs,
    widget::{explain::Explanation, help, quality, timeline, transcript},
};
use crate::{
    frame::Frame,
    model::query::{Of, Query},
};

/// The user's choices.
#[derive(Debug)]
pub(crate) struct Ui {
    pub(crate) screens: Screens,
    pub(crate) prompt: Prompt,
    /// The filter of the screen from which the connections of a row were opened.
    prompt_before: Option<Prompt>,
    /// The frame on the screen while the display is paused.
    pub(crate) paused: Option<Arc<Frame>>,
    /// The first line of the open help.
    pub(crate) help: Option<usize>,
    /// The first line of the open explanation of the selected row.
    pub(crate) explain: Option<usize>,
    /// The terminal.
    pub(crate) area: Rect,
    /// Time without a new snapshot.
    pub(crate) silence: Duration,
    /// Whether the mouse is on.
    pub(crate) mouse: bool,
}

impl Ui {
    pub(crate) fn new(area: Rect) -> Self {
        Self {
            screens: Screens::default(),
            prompt: Prompt::default(),
            prompt_before: None,
            paused: None,
            help: None,
            explain: None,
            area,
            silence: Duration::ZERO,
            mouse: false,
        }
    }

    /// The connections to request from the engine.
    pub(crate) fn query(&self) -> Option<Query> {
        (self.screens.shown == ScreenName::Connections)
            .then(|| Query { of: self.screens.of.clone(), filter: self.prompt.filter.clone() })
    }

    /// The layout while this frame is shown.
    pub(crate) fn areas(&self, data: &Frame) -> Areas {
        let has_alarm = quality::alarm(&data.snapshot).is_some();
        let (area, _) = transcript::split(self.area, data.transcript.as_deref());
        let (area, _) = timeline::split(area, data.timeline.as_ref());
        Areas::of(layout::usable(area), has_alarm, !data.snapshot.findings.is_empty(), self.screens.shown)
    }

    /// Shows the connections of the selected row: all of them. A filter by process, which found the row, would hide those in
    /// TIME_WAIT.
    fn enter(&mut self, latest: &Frame) {
        let data = self.paused.as_deref().unwrap_or(latest);
        if self.screens.enter(data, &self.prompt.filter) {
            self.prompt_before = Some(std::mem::take(&mut self.prompt));
        }
    }

    /// The filter that was there before [`Self::enter`], where there is no other by now.
    fn restore_filter(&mut self) {
        if let Some(before) = self.prompt_before.take()
            && self.prompt.text.is_empty()
        {
            self.prompt = before;
        }
    }

    /// Passes a message on to the screen that is shown.
    fn pass_on(&mut self, latest: &Frame, message: Message) {
        let data = self.paused.as_deref().unwrap_or(latest);
        let area = self.areas(data).screen;
        self.screens.pane_mut().update(data, &self.prompt.filter, area, message);
    }

    /// Moves whatever is on top: the help, an explanation, or the cursor.
    fn move_by(&mut self, latest: &Frame, to: Move) {
        if self.help.is_some() {
            let page = usize::from(help::inner(self.area).height);
            let lines = help::line_count(self.area);
            self.help = self.help.map(|top| help::scrolled(top, to, page, lines));
            return;
        }
        match to {
            // Page keys scroll a long explanation. Other keys go to another row, whose explanation starts at its top.
            Move::PageUp | Move::PageDown if self.explain.is_some() => self.scroll_explanation(latest, to),
            _ => {
                self.explain = self.explain.map(|_| 0);
                self.pass_on(latest, Message::Move(to));
            }
        }
    }

    fn scroll_explanation(&mut self, latest: &Frame, to: Move) {
        let entries = self.screens.pane().explained(self.shown(latest), &self.prompt.filter);
        let (area, _) = transcript::split(self.area, latest.transcript.as_deref());
        let (lines, page) = Explanation::measure(&entries.unwrap_or_default(), area);
        self.explain = self.explain.map(|top| help::scrolled(top, to, page, lines));
    }

    /// The snapshot to draw.
    pub(crate) fn shown<'a>(&'a self, latest: &'a Frame) -> &'a Frame {
        self.paused.as_deref().unwrap_or(latest)
    }
}

/// Pasted text is never a command. It goes into the open filter, or nowhere.
pub(crate) fn paste(ui: &mut Ui, latest: &Arc<Frame>, text: &str) {
    if !ui.prompt.is_open {
        return;
    }
    // A line end inside the text separates two words; one at the end is dropped.
    let letters = text.trim().chars().map(|letter| if letter.is_whitespace() { ' ' } else { letter });
    for letter in letters.filter(|letter| !letter.is_control()) {
        update(ui, latest, Message::Type(Typed::Letter(letter)));
    }
}

/// Whether a message works while the help is open. The help hides the screen, so other keys do nothing.
const fn reaches_help(message: Message) -> bool {
    matches!(
        message,
        Message::ToggleHelp
            | Message::Close
            | Message::Move(_)
            | Message::Type(_)
            | Message::Click { .. }
            | Message::Resize { .. }
            | Message::Silence(_)
    )
}

/// A click on a tab shows its screen. Other clicks go to the screen.
fn click(ui: &mut Ui, latest: &Arc<Frame>, at: Position) -> Effect {
    let areas = ui.areas(ui.shown(latest));
    let tab = tabs::at(ui.screens.shown, areas.tabs, at).filter(|_| !ui.screens.has_scope());
    if let Some(screen) = tab {
        return update(ui, latest, Message::Show(screen));
    }
    ui.pass_on(latest, Message::Click { column: at.x, row: at.y });
    Effect::None
}

/// Applies a message; `latest` is the newest frame, shown or not.
pub(crate) fn update(ui: &mut Ui, latest: &Arc<Frame>, message: Message) -> Effect {
    match message {
        Message::Quit => return Effect::Quit,
        Message::Suspend => return Effect::Suspend,
        Message::Redraw => return Effect::Redraw,
        _ if ui.help.is_some() && !reaches_help(message) => {}
        Message::Resize { width, height } => ui.area = Rect::new(0, 0, width, height),
        Message::Silence(silence) => ui.silence = silence,
        // In a replay Space stops the recording, not the display.
        Message::TogglePause if latest.playback.is_some() => return Effect::Ask(ScreenRequest::Playback(Step::Stop)),
        Message::Playback(step) if latest.playback.is_some() => return Effect::Ask(ScreenRequest::Playback(step)),
        Message::NextStep if latest.transcript.is_some() => return Effect::Ask(ScreenRequest::NextStep),
        Message::Playback(_) | Message::NextStep => {}
        Message::RestartTotals => return Effect::Ask(ScreenRequest::RestartTotals),
        Message::ToggleMouse => {
            ui.mouse = !ui.mouse;
            return Effect::Mouse(ui.mouse);
        }
        Message::TogglePause => {
            ui.paused = match ui.paused {
                None => Some(Arc::clone(latest)),
                Some(_) => None,
            }
        }
        Message::Show(screen) => {
            (ui.screens.shown, ui.explain) = (screen, None);
            (ui.screens.of, ui.screens.from) = (Of::All, None);
            ui.restore_filter();
        }
        Message::NextScreen => return update(ui, latest, Message::Show(ui.screens.shown.turned(1))),
        Message::PreviousScreen => {
            let before = ui.screens.shown.turned(ScreenName::ALL.len() - 1);
            return update(ui, latest, Message::Show(before));
        }
        Message::Filter => ui.prompt.open(),
        Message::Type(typed) => ui.prompt.update(typed),
        Message::ToggleHelp => ui.help = if ui.help.is_some() { None } else { Some(0) },
        Message::Close if ui.help.is_some() => ui.help = None,
        Message::Close | Message::Explain if ui.explain.is_some() => ui.explain = None,
        // Without a selected row the first one is explained.
        Message::Explain => {
            if !ui.screens.pane().has_cursor() {
                update(ui, latest, Message::Move(Move::Down));
            }
            ui.explain = ui.screens.pane().has_cursor().then_some(0);
        }
        Message::Move(to) => ui.move_by(latest, to),
        Message::Enter => {
            if !ui.screens.pane().has_cursor() {
                update(ui, latest, Message::Move(Move::Down));
            }
            ui.enter(latest);
        }
        // Esc undoes the latest step first: the selected row, then the filter, then Enter.
        Message::Close if !ui.screens.pane().has_cursor() && !ui.prompt.text.is_empty() => ui.prompt.clear(),
        Message::Close if !ui.screens.pane().has_cursor() && ui.screens.leave() => ui.restore_filter(),
        // A window on top keeps the click.
        Message::Click { .. } if ui.help.is_some() || ui.explain.is_some() => (ui.help, ui.explain) = (None, None),
        Message::Click { column, row } => return click(ui, latest, Position { x: column, y: row }),
        Message::Close | Message::NextSort | Message::ReverseSort => ui.pass_on(latest, message),
    }
    Effect::None
}
