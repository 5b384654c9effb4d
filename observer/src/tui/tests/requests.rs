//! The mouse, and what the screen asks of others.

use ratatui::layout::Rect;

use super::fixture::{arc, busy, text, ui};
use crate::{
    frame::{Frame, Playback},
    model::snapshot::EndpointRow,
    present::Fields as _,
    tui::{
        layout::Areas,
        message::{Effect, Message, Move, ScreenRequest, Step},
        screen_name::ScreenName,
        ui::{Ui, update},
    },
};

fn click(ui: &mut Ui, data: &Frame, column: u16, row: u16) {
    assert_eq!(update(ui, &arc(data.clone()), Message::Click { column, row }), Effect::None);
}

/// Where the table of endpoints begins.
fn table(ui: &Ui) -> Rect {
    Areas::of(ui.area, false, false, ScreenName::Endpoints).screen
}

/// Where this word begins on the screen.
#[track_caller]
fn find(ui: &Ui, data: &Frame, word: &str) -> (u16, u16) {
    let screen = text(ui, data);
    let found = (0..).zip(screen.lines()).find_map(|(row, line)| {
        let bytes = line.find(word)?;
        Some((u16::try_from(line[..bytes].chars().count()).unwrap(), row))
    });
    found.unwrap_or_else(|| panic!("no {word} in\n{screen}"))
}

#[test]
fn a_click_selects_the_row_under_it_and_none_where_there_is_none() {
    let (mut ui, data) = (ui(80, 24), busy());
    let (column, row) = find(&ui, &data, "10.0.0.5:*");
    click(&mut ui, &data, column, row);
    let selected = ui.screens.endpoints.selected(&data, &ui.prompt.filter).unwrap();
    assert_eq!(selected.key.local_ip.to_string(), "10.0.0.5");
    let below = table(&ui).bottom() - 1;
    click(&mut ui, &data, 0, below);
    assert_eq!(ui.screens.endpoints.selected(&data, &ui.prompt.filter).unwrap().key, selected.key);
}

#[test]
fn a_click_on_a_column_sorts_by_it_and_another_one_reverses() {
    let (mut ui, data) = (ui(80, 24), busy());
    let (column, row) = find(&ui, &data, "OPEN/s");
    click(&mut ui, &data, column, row);
    assert_eq!(EndpointRow::field(ui.screens.endpoints.sort).unwrap().title(), "OPENED/s");
    assert!(!ui.screens.endpoints.reversed);
    click(&mut ui, &data, column, row);
    assert!(ui.screens.endpoints.reversed);
    click(&mut ui, &data, 79, row);
    assert_eq!(EndpointRow::field(ui.screens.endpoints.sort).unwrap().title(), "OPENED/s", "a picture has no order");
}

#[test]
fn a_click_on_the_name_of_a_screen_shows_it() {
    for screen in ScreenName::ALL {
        let (mut ui, data) = (ui(80, 24), busy());
        let (column, row) = find(&ui, &data, &format!("{} {}", screen.digit(), screen.short()));
        click(&mut ui, &data, column, row);
        assert_eq!(ui.screens.shown, screen);
    }
}

#[test]
fn a_click_closes_what_lies_on_top_and_goes_no_further() {
    let (mut ui, data) = (ui(80, 24), busy());
    update(&mut ui, &arc(data.clone()), Message::ToggleHelp);
    click(&mut ui, &data, 20, 3);
    assert_eq!((ui.help, ui.screens.shown), (None, ScreenName::Endpoints));
}

#[test]
fn no_click_panics() {
    for (width, height) in [(1, 1), (60, 16), (80, 24)] {
        for screen in ScreenName::ALL {
            let (mut ui, data) = (ui(width, height), busy());
            update(&mut ui, &arc(data.clone()), Message::Show(screen));
            for (column, row) in [(0, 0), (u16::MAX, u16::MAX), (width, 5), (3, height), (30, 5), (30, 6), (30, 12)] {
                click(&mut ui, &data, column, row);
            }
        }
    }
}

#[test]
fn the_mouse_is_switched_by_the_loop() {
    let mut ui = ui(80, 24);
    assert_eq!(update(&mut ui, &arc(busy()), Message::ToggleMouse), Effect::Mouse(true));
    assert_eq!(update(&mut ui, &arc(busy()), Message::ToggleMouse), Effect::Mouse(false));
}

#[test]
fn totals_are_restarted_by_the_engine() {
    assert_eq!(
        update(&mut ui(80, 24), &arc(busy()), Message::RestartTotals),
        Effect::Ask(ScreenRequest::RestartTotals)
    );
}

#[test]
fn a_replay_is_stopped_where_the_present_is_held() {
    let mut data = busy();
    let step = Message::Playback(Step::Back);
    let mut live = ui(80, 24);
    assert_eq!(update(&mut live, &arc(data.clone()), step), Effect::None);
    data.playback = Some(Playback { speed: 4.0, is_stopped: false, is_over: false, is_live: false });
    let mut ui = ui(80, 24);
    assert_eq!(update(&mut ui, &arc(data.clone()), step), Effect::Ask(ScreenRequest::Playback(Step::Back)));
    let held = update(&mut ui, &arc(data.clone()), Message::TogglePause);
    assert_eq!((held, ui.paused.is_none()), (Effect::Ask(ScreenRequest::Playback(Step::Stop)), true));
    assert!(text(&ui, &data).contains("REPLAY ×4"));
    data.playback = Some(Playback { speed: 1.0, is_stopped: true, is_over: false, is_live: false });
    assert!(text(&ui, &data).contains("REPLAY, STOPPED") && text(&ui, &data).contains("Space resume"));
    data.playback = Some(Playback { speed: 1.0, is_stopped: true, is_over: true, is_live: false });
    assert!(text(&ui, &data).contains("REPLAY, OVER"));
    // The cursor moves all the same.
    assert_eq!(update(&mut ui, &arc(data), Message::Move(Move::Down)), Effect::None);
}
