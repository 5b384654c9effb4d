//! Styles by meaning. The terminal's own foreground and background stay; colour only underlines what words say.

use clap::ValueEnum;
use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

use crate::model::limit::level::Level;

/// A set of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThemeName {
    /// For light letters on dark ground.
    #[default]
    Dark,
    /// For dark letters on light ground: no yellow, no cyan.
    Light,
    /// No colours: bold, dim and reverse video only.
    Mono,
    /// Nothing is dim; urgent text has its own background.
    HighContrast,
}

/// How each kind of text looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    /// Names of things.
    pub(crate) title: Style,
    /// The numbers to look at.
    pub(crate) strong: Style,
    /// Text of secondary importance.
    pub(crate) dim: Style,
    /// The row under the cursor.
    pub(crate) selected: Style,
    /// A state of the screen that must not be overlooked.
    pub(crate) badge: Style,
    /// Nothing to look at.
    pub(crate) ok: Style,
    /// Half of the ports or 80 % of anything; something is missing.
    pub(crate) warning: Style,
    /// 95 % and more; numbers are wrong.
    pub(crate) critical: Style,
}

impl Theme {
    /// The sixteen colours that a terminal names are its user's own choice; no others are used.
    pub(crate) const fn new(name: ThemeName) -> Self {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let mono = Self {
            title: bold,
            strong: bold,
            dim: plain.add_modifier(Modifier::DIM),
            selected: plain.add_modifier(Modifier::REVERSED),
            badge: bold.add_modifier(Modifier::REVERSED),
            ok: plain,
            warning: bold,
            critical: bold,
        };
        match name {
            ThemeName::Mono => mono,
            ThemeName::Dark => Self {
                title: bold.fg(Color::Cyan),
                ok: plain.fg(Color::Green),
                warning: bold.fg(Color::Yellow),
                critical: bold.fg(Color::Red),
                ..mono
            },
            ThemeName::Light => Self {
                title: bold.fg(Color::Blue),
                ok: plain.fg(Color::Green),
                warning: bold.fg(Color::Magenta),
                critical: bold.fg(Color::Red),
                ..mono
            },
            ThemeName::HighContrast => Self {
                title: bold.add_modifier(Modifier::UNDERLINED),
                dim: plain,
                warning: bold.fg(Color::Black).bg(Color::Yellow),
                critical: bold.fg(Color::White).bg(Color::Red),
                ..mono
            },
        }
    }

    /// The style of something that is as full as this.
    pub(crate) const fn level(&self, level: Level) -> Style {
        match level {
            Level::Ok => self.ok,
            Level::Notice | Level::Warning => self.warning,
            Level::Critical | Level::Exhausted => self.critical,
        }
    }
}
