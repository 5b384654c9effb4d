//! The line with the names of the screens.

use ratatui::{
    layout::{Position, Rect},
    text::{Line, Span},
};

use super::{
    format,
    screen::Screen,
    theme::{Theme, ThemeName},
    widget::parts::{self, Part},
};

/// The screens with their digits; the one that is shown is never left out.
pub(crate) fn line(shown: Screen, theme: &Theme, width: u16) -> Line<'static> {
    let tab = |screen: &Screen| {
        let (place, name) = (screen.digit(), screen.name());
        if *screen == shown {
            Part::new(0, vec![Span::styled(format!(">{place} {name}"), theme.title)])
        } else {
            Part::new(place, vec![Span::raw(format!("{place} {name}"))])
        }
    };
    parts::fit_marked(Screen::ALL.iter().map(tab).collect(), " ", width)
}

/// The screen whose name is at this place.
pub(crate) fn at(shown: Screen, area: Rect, at: Position) -> Option<Screen> {
    if !area.contains(at) {
        return None;
    }
    let mut end = area.x;
    let line = line(shown, &Theme::new(ThemeName::Mono), area.width);
    let clicked = line.spans.iter().find(|span| {
        end += format::columns(span.width());
        at.x < end
    })?;
    Screen::ALL.into_iter().find(|screen| clicked.content.ends_with(screen.name()))
}
