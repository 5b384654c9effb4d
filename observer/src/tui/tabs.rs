//! The line with the names of the screens.

use ratatui::{
    layout::{Position, Rect},
    text::{Line, Span},
};

use super::{
    format,
    screen_name::ScreenName,
    theme::{Theme, ThemeName},
    widget::parts::{self, Part},
};

/// The screens with their digits; the one that is shown is never left out.
pub(crate) fn line(shown: ScreenName, theme: &Theme, width: u16) -> Line<'static> {
    let tab = |screen: &ScreenName| {
        let (place, name) = (screen.digit(), screen.name());
        if *screen == shown {
            Part::new(0, vec![Span::styled(format!(">{place} {name}"), theme.title)])
        } else {
            Part::new(place, vec![Span::raw(format!("{place} {name}"))])
        }
    };
    parts::fit_marked(ScreenName::ALL.iter().map(tab).collect(), " ", width)
}

/// The screen whose name is at this place.
pub(crate) fn at(shown: ScreenName, area: Rect, at: Position) -> Option<ScreenName> {
    if !area.contains(at) {
        return None;
    }
    let mut end = area.x;
    let line = line(shown, &Theme::new(ThemeName::Mono), area.width);
    let clicked = line.spans.iter().find(|span| {
        end += format::columns(span.width());
        at.x < end
    })?;
    ScreenName::ALL.into_iter().find(|screen| clicked.content.ends_with(screen.name()))
}
