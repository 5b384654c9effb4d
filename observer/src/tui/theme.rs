//! Styles by meaning. The terminal's own foreground and background stay; colour only underlines what words say.

use std::ffi::OsStr;

use ratatui::style::{Color, Modifier, Style};

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
    /// Below 70 %.
    pub(crate) calm: Style,
    /// 70 % and more; something is missing.
    pub(crate) warning: Style,
    /// 90 % and more; numbers are wrong.
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

    /// The style of something that is full to this part, 0 to 1.
    pub(crate) fn level(&self, ratio: f64) -> Style {
        match Level::of(ratio) {
            Level::Calm => self.calm,
            Level::High => self.warning,
            Level::Critical | Level::Full => self.critical,
        }
    }
}

/// How near something is to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Calm,
    High,
    Critical,
    Full,
}

impl Level {
    pub(crate) fn of(ratio: f64) -> Self {
        match ratio {
            full if full >= 1.0 => Self::Full,
            critical if critical >= 0.9 => Self::Critical,
            high if high >= 0.7 => Self::High,
            _ => Self::Calm,
        }
    }

    /// Says what colour shows.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Calm => "",
            Self::High => "high",
            Self::Critical => "critical",
            Self::Full => "full",
        }
    }
}

/// Whether this value of `NO_COLOR` asks for no colours.
pub(crate) fn forbids_color(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}
