//! Colour says nothing alone, and can be switched off; so can everything that is not ASCII.

use std::time::Duration;

use insta::assert_snapshot;
use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier},
};

use super::fixture::{ailing, arc, buffer, busy, inbound, losing, one, recorded, rows, ui, without_hooks};
use crate::{
    frame::Frame,
    model::units::TcpState,
    tui::{
        Look, ascii,
        message::{Message, Move},
        screen_name::ScreenName,
        shot,
        theme::{Theme, ThemeName},
        ui::update,
    },
};

fn in_theme(theme: ThemeName, data: Frame) -> Buffer {
    let data = arc(data);
    shot(|_| data.clone(), "", (160, 50), Look { theme, ..Look::default() })
}

#[test]
fn without_colour_no_cell_has_one() {
    for (width, height) in [(50, 10), (60, 16), (80, 24), (160, 50)] {
        for data in [recorded(), losing(), without_hooks()] {
            let (mut ui, data) = (ui(width, height), arc(data));
            for message in [Message::TogglePause, Message::Move(Move::Down), Message::ToggleHelp] {
                update(&mut ui, &data, message);
                let buf = buffer(&ui, &data, &Theme::new(ThemeName::Mono));
                let colored = buf.content.iter().find(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
                assert_eq!(colored, None);
            }
        }
    }
}

#[test]
fn the_terminal_keeps_its_own_background() {
    for theme in [ThemeName::Dark, ThemeName::Light] {
        let buf = in_theme(theme, losing());
        assert!(buf.content.iter().all(|cell| cell.bg == Color::Reset));
        assert!(buf.content.iter().any(|cell| cell.fg != Color::Reset));
    }
}

#[test]
fn a_theme_for_light_ground_has_no_colour_that_vanishes_there() {
    let pale = [Color::Yellow, Color::Cyan, Color::White, Color::LightYellow];
    assert!(in_theme(ThemeName::Light, losing()).content.iter().all(|cell| !pale.contains(&cell.fg)));
}

#[test]
fn in_high_contrast_nothing_is_dim_and_the_urgent_stands_out() {
    let buf = in_theme(ThemeName::HighContrast, losing());
    assert!(buf.content.iter().all(|cell| !cell.modifier.contains(Modifier::DIM)));
    assert!(buf.content.iter().any(|cell| cell.bg != Color::Reset));
}

#[test]
fn the_selected_row_is_reversed() {
    let (mut ui, data) = (ui(80, 24), arc(busy()));
    update(&mut ui, &data, Message::Move(Move::Down));
    let buf = buffer(&ui, &data, &Theme::new(ThemeName::Mono));
    let reversed: Vec<_> = (0..24).filter(|y| buf[(0, *y)].style().add_modifier.contains(Modifier::REVERSED)).collect();
    assert_eq!(reversed, [6]);
}

#[test]
fn in_ascii_everything_is_ascii_and_says_the_same() {
    let screens = ScreenName::ALL.map(Message::Show);
    let parts = [Message::Explain, Message::Close, Message::ToggleHelp, Message::Close, Message::TogglePause];
    for data in [recorded(), losing(), without_hooks(), ailing()] {
        for (width, height) in [(60, 16), (80, 24), (160, 50)] {
            let (mut ui, data) = (ui(width, height), arc(data.clone()));
            for message in screens.into_iter().chain(parts) {
                update(&mut ui, &data, message);
                let unfolded = buffer(&ui, &data, &Theme::new(ThemeName::Mono));
                let mut folded = unfolded.clone();
                ascii::fold(&mut folded);
                assert!(folded.content.iter().all(|cell| cell.symbol().is_ascii()));
                // A question mark that was not there would be a letter that has no likeness.
                let unknown = unfolded.content.iter().zip(&folded.content).find(|(a, b)| a != b && b.symbol() == "?");
                assert_eq!(unknown, None);
            }
        }
    }
    let mut buf = buffer(&ui(80, 24), &ailing(), &Theme::new(ThemeName::Mono));
    ascii::fold(&mut buf);
    assert_snapshot!("ascii_80x24", rows(&buf));
}

#[test]
fn letters_from_outside_become_question_marks_in_ascii() {
    let mut buf = Buffer::with_lines(["日本 ≤ 5", "≤5"]);
    ascii::fold(&mut buf);
    assert_eq!(rows(&buf), "? ?  <=5\n<5");
}

#[test]
fn an_endpoint_with_more_connections_than_ports_is_marked() {
    let mut data = one();
    let mut row = inbound([10, 0, 0, 5], 8_443, &[(TcpState::Established, 65_536)]);
    row.beyond_port_numbers = None;
    data.snapshot.endpoints.insert(0, row);
    let shown = |data: &Frame| rows(&buffer(&ui(160, 50), data, &Theme::new(ThemeName::Mono)));
    assert!(!shown(&data).contains(">65,536"), "as many as there are ports is not more");
    data.snapshot.endpoints[0].sockets += 1;
    data.snapshot.endpoints[0].beyond_port_numbers = Some(data.snapshot.uptime.saturating_sub(Duration::from_secs(12)));
    let marked = shown(&data);
    assert!(marked.contains("10.0.0.5:8443 >65,536"), "{marked}");
    assert!(marked.contains("10.0.0.5:8443 PASSED 65,536 12 s AGO"), "{marked}");
    data.snapshot.uptime += Duration::from_mins(1);
    let later = shown(&data);
    assert!(later.contains("10.0.0.5:8443 >65,536") && !later.contains("PASSED"), "{later}");
}
