//! Styles by meaning. The terminal's own foreground and background stay; colour only underlines what words say.

use std::ffi::OsStr;

use ratatui::style::{Color, Modifier, Style};

use crate::model::headroom::Level;

/// How each kind of text looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    /// Names of things.
    pub(crate) title: Style,
    /// The numbers to look at.
    pub(crate) strong: Style,
    /// What is there to be read second.
    pub(crate) dim: Style,
    /// The row under the cursor.
    pub(crate) selected: Style,
    /// A state of the screen that must not be overlooked.
    pub(crate) badge: Style,
    /// Nothing to look at.
    pub(crate) calm: Style,
    /// Half of the ports or 80 % of anything; something is missing.
    pub(crate) warning: Style,
    /// 95 % and more; numbers are wrong.
    pub(crate) critical: Style,
}

impl Theme {
    pub(crate) fn new(color: bool) -> Self {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let tint = |style: Style, tint| if color { style.fg(tint) } else { style };
        Self {
            title: tint(bold, Color::Cyan),
            strong: bold,
            dim: plain.add_modifier(Modifier::DIM),
            selected: plain.add_modifier(Modifier::REVERSED),
            badge: bold.add_modifier(Modifier::REVERSED),
            calm: tint(plain, Color::Green),
            warning: tint(bold, Color::Yellow),
            critical: tint(bold, Color::Red),
        }
    }

    /// The style of something that is as full as this.
    pub(crate) const fn level(&self, level: Level) -> Style {
        match level {
            Level::Calm => self.calm,
            Level::Half | Level::High => self.warning,
            Level::Critical | Level::Full => self.critical,
        }
    }
}

/// Whether this value of `NO_COLOR` asks for no colours.
pub(crate) fn forbids_color(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}
