//! Colour says nothing alone, and can be switched off.

use std::ffi::OsStr;

use ratatui::style::{Color, Modifier};

use super::fixture::{arc, blind, buffer, busy, losing, ui};
use crate::tui::{
    message::{Message, Move},
    shot,
    theme::{Level, Theme, forbids_color},
    ui::update,
};

#[test]
fn without_colour_no_cell_has_one() {
    for (width, height) in [(50, 10), (60, 16), (80, 24), (160, 50)] {
        for data in [busy(), losing(), blind()] {
            let (mut ui, data) = (ui(width, height), arc(data));
            for message in [Message::TogglePause, Message::Move(Move::Down), Message::ToggleHelp] {
                update(&mut ui, &data, message);
                let buf = buffer(&ui, &data, &Theme::new(false));
                let colored = buf.content.iter().find(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
                assert_eq!(colored, None);
            }
        }
    }
}

#[test]
fn the_terminal_keeps_its_own_background() {
    let buf = shot(&losing(), 160, 50);
    assert!(buf.content.iter().all(|cell| cell.bg == Color::Reset));
    assert!(buf.content.iter().any(|cell| cell.fg != Color::Reset));
}

#[test]
fn the_selected_row_is_reversed() {
    let (mut ui, data) = (ui(80, 24), arc(busy()));
    update(&mut ui, &data, Message::Move(Move::Down));
    let buf = buffer(&ui, &data, &Theme::new(false));
    let reversed: Vec<_> = (0..24).filter(|y| buf[(0, *y)].style().add_modifier.contains(Modifier::REVERSED)).collect();
    assert_eq!(reversed, [6]);
}

#[test]
fn no_color_counts_when_it_is_not_empty() {
    assert!(!forbids_color(None));
    assert!(!forbids_color(Some(OsStr::new(""))));
    assert!(forbids_color(Some(OsStr::new("1"))));
    assert!(forbids_color(Some(OsStr::new("0"))));
}

#[test]
fn levels_change_at_70_90_and_100_percent() {
    for (ratio, level) in [
        (0.0, Level::Calm),
        (0.699, Level::Calm),
        (0.7, Level::High),
        (0.899, Level::High),
        (0.9, Level::Critical),
        (0.999, Level::Critical),
        (1.0, Level::Full),
    ] {
        assert_eq!(Level::of(ratio), level);
    }
}
