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

/// The screens with their digits, by their short names where the others do not fit; the one that is shown is never left out.
pub(crate) fn line(shown: ScreenName, theme: &Theme, width: u16) -> Line<'static> {
    let parts = |name: fn(ScreenName) -> &'static str| {
        let tab = |screen: &ScreenName| {
            let place = screen.digit();
            if *screen == shown {
                Part::new(0, vec![Span::styled(format!(">{place} {}", name(*screen)), theme.title)])
            } else {
                Part::new(place, vec![Span::raw(format!("{place} {}", name(*screen)))])
            }
        };
        ScreenName::ALL.iter().map(tab).collect::<Vec<_>>()
    };
    let long = parts(ScreenName::name);
    let fits = parts::width(&long, SEPARATOR) <= usize::from(width);
    parts::fit_marked(if fits { long } else { parts(ScreenName::short) }, SEPARATOR, width)
}

const SEPARATOR: &str = " ";

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
    let is_named = |screen: &ScreenName| {
        [screen.name(), screen.short()]
            .iter()
            .any(|name| clicked.content.ends_with(&format!("{} {name}", screen.digit())))
    };
    ScreenName::ALL.into_iter().find(is_named)
}
