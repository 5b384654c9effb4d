//! Everything that can be asked of the user interface, and everything it can ask of the loop around it.

use std::time::Duration;

use super::{prompt::Typed, screen_name::ScreenName};
use crate::model::query::Query;

/// A request of the user, or news of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Quit,
    /// Ctrl-Z.
    Suspend,
    /// Draw everything again.
    Redraw,
    ToggleHelp,
    Show(ScreenName),
    NextScreen,
    PreviousScreen,
    /// Closes the window on top.
    Close,
    TogglePause,
    Move(Move),
    /// The connections of the selected row.
    Enter,
    /// Explains the numbers of the selected row.
    Explain,
    /// Opens the line in which a filter is typed.
    Filter,
    /// A key within that line.
    Type(Typed),
    NextSort,
    ReverseSort,
    /// Reset totals and peaks.
    RestartTotals,
    ToggleMouse,
    /// The mouse was pressed in this cell.
    Click {
        column: u16,
        row: u16,
    },
    /// Only a replay does anything about it.
    Playback(Step),
    /// Only a lab does anything about it.
    NextStep,
    /// The terminal has this size now.
    Resize {
        width: u16,
        height: u16,
    },
    /// The engine has said nothing for so long.
    Silence(Duration),
}

/// Up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    HalfPageUp,
    HalfPageDown,
    First,
    Last,
}

impl Move {
    /// Where a cursor in `0..len` stands after this move; `page` is what can be seen at once.
    pub(crate) const fn apply(self, from: usize, page: usize, len: usize) -> usize {
        let page = if page == 0 { 1 } else { page };
        let half = page.div_ceil(2);
        let to = match self {
            Self::Up => from.saturating_sub(1),
            Self::Down => from.saturating_add(1),
            Self::PageUp => from.saturating_sub(page),
            Self::PageDown => from.saturating_add(page),
            Self::HalfPageUp => from.saturating_sub(half),
            Self::HalfPageDown => from.saturating_add(half),
            Self::First => 0,
            Self::Last => usize::MAX,
        };
        let last = len.saturating_sub(1);
        if to > last { last } else { to }
    }
}

/// Actions of the loop around the user interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Quit,
    Suspend,
    Redraw,
    /// The mouse is to be listened to, or no longer.
    Mouse(bool),
    Ask(ScreenRequest),
}

/// Requests of the screen to the source of its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScreenRequest {
    /// These single connections in every frame from now on.
    Connections(Option<Query>),
    /// Reset totals and peaks.
    RestartTotals,
    /// Another place or another pace in the recording.
    Playback(Step),
    /// The next step of the lab.
    NextStep,
}

/// A step within a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop, or go on.
    Stop,
    /// Some seconds back.
    Back,
    /// Some seconds ahead.
    Ahead,
    /// Half as fast.
    Slower,
    /// Twice as fast.
    Faster,
    /// To the minute before the previous incident,
    PreviousIncident,
    /// or the next one.
    NextIncident,
}
