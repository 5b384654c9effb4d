//! What holds of every table whatever is done to it.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::fixture::{ailing, arc, buffer, busy, empty, recorded, thousands, ui};
use crate::{
    frame::Frame,
    tui::{
        layout::scroll_offset,
        message::{Message, Move, Step},
        prompt::Typed,
        screen::Endpoints,
        screen_name::ScreenName,
        table::TableState,
        theme::{Theme, ThemeName},
        ui::{Ui, update},
    },
};

fn moves() -> impl Strategy<Value = Move> {
    use Move::{Down, First, HalfPageDown, HalfPageUp, Last, PageDown, PageUp, Up};
    prop::sample::select(vec![Up, Down, PageUp, PageDown, HalfPageUp, HalfPageDown, First, Last])
}

fn message() -> impl Strategy<Value = Message> {
    use Message::{
        Close, Enter, Explain, Filter, NextScreen, NextSort, PreviousScreen, ReverseSort, ToggleHelp, TogglePause,
    };
    let plain = vec![
        Close,
        Enter,
        Explain,
        Filter,
        NextScreen,
        NextSort,
        PreviousScreen,
        ReverseSort,
        ToggleHelp,
        TogglePause,
        Message::Playback(Step::Back),
    ];
    let typed = prop_oneof![
        prop::sample::select(vec![Typed::Accept, Typed::Cancel, Typed::Erase, Typed::EraseWord, Typed::EraseAll]),
        prop::sample::select("port:4 in10./-日\u{7}".chars().collect::<Vec<_>>()).prop_map(Typed::Letter),
    ];
    prop_oneof![
        4 => moves().prop_map(Message::Move),
        4 => prop::sample::select(plain),
        2 => typed.prop_map(Message::Type),
        1 => prop::sample::select(ScreenName::ALL.to_vec()).prop_map(Message::Show),
        1 => (0..200_u16, 0..60_u16).prop_map(|(column, row)| Message::Click { column, row }),
        1 => (0..200_u16, 0..60_u16).prop_map(|(width, height)| Message::Resize { width, height }),
    ]
}

static HOSTS: LazyLock<[Arc<Frame>; 5]> =
    LazyLock::new(|| [empty(), busy(), ailing(), thousands(), recorded()].map(arc));

fn table(ui: &Ui) -> &TableState<Endpoints> {
    &ui.screens.endpoints
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn the_selected_row_is_in_sight_and_nothing_moves_without_need(
        (len, selected) in (1..5_000_usize).prop_flat_map(|len| (Just(len), 0..len)),
        old in 0..6_000_usize,
        height in 1..100_usize,
    ) {
        let first = scroll_offset(Some(selected), old, height, len);
        prop_assert!(first <= selected && selected < first + height);
        prop_assert!(first <= len.saturating_sub(height), "empty lines below the last row");
        let was_in_sight = old <= selected && selected < old + height && old <= len.saturating_sub(height);
        prop_assert!(!was_in_sight || first == old);
    }

    #[test]
    fn no_order_of_keys_clicks_and_sizes_panics(
        host in 0..5_usize,
        messages in prop::collection::vec(message(), 0..40),
    ) {
        let data = &HOSTS[host];
        let mut ui = ui(80, 24);
        for message in messages {
            update(&mut ui, data, message);
            buffer(&ui, data, &Theme::new(ThemeName::Mono));
        }
    }

    #[test]
    fn the_row_under_the_cursor_is_drawn_whatever_came_before(
        moves in prop::collection::vec(moves(), 1..20),
        sorts in 0..6_usize,
    ) {
        let data = arc(thousands());
        let mut ui = ui(80, 24);
        for _ in 0..sorts {
            update(&mut ui, &data, Message::NextSort);
        }
        for to in moves {
            update(&mut ui, &data, Message::Move(to));
        }
        let rows = table(&ui).sorted(&data, &ui.prompt.filter);
        let index = table(&ui).position(&rows).unwrap();
        let page = usize::from(ui.areas(&data).screen.height) - 2;
        let first = table(&ui).offset;
        prop_assert!(first <= index && index < first + page, "{index} is not in {first}..{}", first + page);
    }
}
