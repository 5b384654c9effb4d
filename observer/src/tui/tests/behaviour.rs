//! What messages do.

use std::{collections::HashSet, sync::Arc, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;

use super::fixture::{arc, busy, empty, text, thousands, ui};
use crate::{
    frame::Frame,
    model::{
        filter::Filter,
        snapshot::{EndpointKey, EndpointRow},
    },
    present::{
        Fields as _, Order,
        field::{NETNS_ID, SERVICE_ID},
    },
    tui::{
        keymap::{KEYMAP, message},
        layout::scroll_offset,
        message::{Effect, Message, Move},
        prompt::Typed,
        screen::Endpoints,
        screen_name::ScreenName,
        table::{TableSource as _, TableState, columns},
        ui::{Ui, paste, update},
    },
};

fn table(ui: &Ui) -> &TableState<Endpoints> {
    &ui.screens.endpoints
}

fn selected(ui: &Ui, data: &Frame) -> Option<EndpointKey> {
    let rows = table(ui).sorted(data, &ui.prompt.filter);
    table(ui).position(&rows).map(|index| rows[index].key)
}

fn after(messages: &[Message], data: &Arc<Frame>) -> Ui {
    let mut ui = ui(80, 24);
    for message in messages {
        assert_eq!(update(&mut ui, data, *message), Effect::None, "{message:?}");
    }
    ui
}

#[test]
fn quit_suspend_and_redraw_are_left_to_the_loop() {
    let data = arc(busy());
    let mut ui = ui(80, 24);
    assert_eq!(update(&mut ui, &data, Message::Quit), Effect::Quit);
    assert_eq!(update(&mut ui, &data, Message::Suspend), Effect::Suspend);
    assert_eq!(update(&mut ui, &data, Message::Redraw), Effect::Redraw);
}

#[test]
fn pause_holds_the_snapshot_and_lets_it_go() {
    let (data, later) = (arc(busy()), arc(empty()));
    let mut ui = after(&[Message::TogglePause], &data);
    assert!(Arc::ptr_eq(ui.paused.as_ref().unwrap(), &data));
    assert_eq!(ui.shown(&later).snapshot.endpoints.len(), data.snapshot.endpoints.len());
    update(&mut ui, &later, Message::TogglePause);
    assert!(ui.paused.is_none());
    assert!(ui.shown(&later).snapshot.endpoints.is_empty());
}

#[test]
fn while_paused_the_cursor_moves_over_what_is_shown() {
    let data = arc(busy());
    let mut ui = after(&[Message::TogglePause], &data);
    update(&mut ui, &arc(empty()), Message::Move(Move::Last));
    assert_eq!(selected(&ui, &data), Some(data.snapshot.endpoints[4].key));
}

#[test]
fn help_opens_scrolls_and_closes() {
    let data = arc(busy());
    assert_eq!(after(&[Message::ToggleHelp], &data).help, Some(0));
    assert_eq!(after(&[Message::ToggleHelp, Message::ToggleHelp], &data).help, None);
    assert_eq!(after(&[Message::ToggleHelp, Message::Close], &data).help, None);
    let down = after(&[Message::ToggleHelp, Message::Move(Move::Down)], &data);
    assert_eq!((down.help, table(&down).cursor), (Some(1), None));
    let end = after(&[Message::ToggleHelp, Message::Move(Move::Last), Message::Move(Move::PageDown)], &data);
    assert!(text(&end, &data).contains(" the end "));
}

#[test]
fn the_help_takes_the_keys_while_it_is_open() {
    let data = arc(busy());
    for binding in KEYMAP {
        let mut ui = after(&[Message::ToggleHelp], &data);
        let effect = update(&mut ui, &data, binding.message);
        match binding.message {
            Message::Quit | Message::Suspend | Message::Redraw => assert_ne!(effect, Effect::None),
            Message::ToggleHelp | Message::Close => assert_eq!(ui.help, None),
            Message::Move(_) => assert!(ui.help.is_some()),
            other => {
                let untouched = after(&[Message::ToggleHelp], &data);
                assert_eq!((effect, format!("{ui:?}")), (Effect::None, format!("{untouched:?}")), "{other:?}");
            }
        }
    }
}

#[test]
fn an_explanation_that_does_not_fit_is_paged_through() {
    let data = arc(busy());
    let explained = [Message::Show(ScreenName::Limits), Message::Explain];
    let first = text(&after(&explained, &data), &data);
    assert!(first.contains("… ") && first.contains(" more lines: PgDn "), "{first}");
    assert!(first.contains("raise it"), "what to do comes first: {first}");
    let paged =
        after(&[&explained[..], &[Message::Move(Move::PageDown), Message::Move(Move::PageDown)]].concat(), &data);
    let end = text(&paged, &data);
    assert!(end.contains(" the end ") && end.contains("HITS"), "{end}");
    assert_eq!(
        text(&after(&[&explained[..], &[Message::Move(Move::Down)]].concat(), &data), &data)
            .matches("raise it")
            .count(),
        1
    );
}

#[test]
fn pasted_text_goes_into_the_filter_or_nowhere() {
    let data = arc(busy());
    let mut closed = after(&[], &data);
    paste(&mut closed, &data, "q?");
    assert_eq!(format!("{closed:?}"), format!("{:?}", after(&[], &data)));
    let mut open = after(&[Message::Filter], &data);
    paste(&mut open, &data, " port:443\tcomm:q\u{7}\u{1b}\r\n");
    assert_eq!((open.prompt.text.as_str(), open.prompt.is_open), ("port:443 comm:q", true));
    paste(&mut open, &data, &"x".repeat(10_000));
    assert!(open.prompt.text.chars().count() <= 200);
    // The end of what is typed is seen.
    let row = text(&open, &data).lines().last().unwrap().to_owned();
    assert!(row.starts_with("filter …") && row.contains("xx█"), "{row}");
}

#[test]
fn escape_lets_go_of_the_row() {
    let data = arc(busy());
    assert_eq!(table(&after(&[Message::Move(Move::Down), Message::Close], &data)).cursor, None);
}

#[test]
fn resize_and_silence_are_remembered() {
    let data = arc(busy());
    let ui = after(&[Message::Resize { width: 100, height: 40 }, Message::Silence(Duration::from_secs(9))], &data);
    assert_eq!(ui.area, Rect::new(0, 0, 100, 40));
    assert_eq!(ui.silence, Duration::from_secs(9));
}

#[test]
fn the_first_step_selects_the_first_row_in_sight() {
    let data = arc(busy());
    assert_eq!(selected(&after(&[], &data), &data), None);
    assert_eq!(selected(&after(&[Message::Move(Move::Down)], &data), &data), Some(data.snapshot.endpoints[0].key));
    let down = [Message::Move(Move::Down), Message::Move(Move::Down)];
    assert_eq!(selected(&after(&down, &data), &data), Some(data.snapshot.endpoints[1].key));
}

#[test]
fn a_row_is_followed_when_the_order_changes() {
    let data = arc(busy());
    let ui = after(&[Message::Move(Move::Down), Message::Move(Move::Down)], &data);
    let key = selected(&ui, &data);
    let mut changed = busy();
    changed.snapshot.endpoints[1].sockets = 1;
    changed.snapshot.endpoints.reverse();
    assert_eq!(selected(&ui, &changed), key);
    let ui = after(&[Message::Move(Move::Down), Message::Move(Move::Down), Message::ReverseSort], &data);
    assert_eq!(selected(&ui, &data), key);
}

#[test]
fn when_the_selected_row_is_gone_its_place_is_kept() {
    let data = arc(busy());
    let ui = after(&[Message::Move(Move::Down), Message::Move(Move::Down)], &data);
    let mut changed = busy();
    changed.snapshot.endpoints.remove(1);
    assert_eq!(selected(&ui, &changed), Some(changed.snapshot.endpoints[1].key));
    changed.snapshot.endpoints.truncate(1);
    assert_eq!(selected(&ui, &changed), Some(changed.snapshot.endpoints[0].key));
    changed.snapshot.endpoints.clear();
    assert_eq!(selected(&ui, &changed), None);
}

#[test]
fn pages_move_by_what_is_seen() {
    let step = |to: Move, from| to.apply(from, 10, 100);
    assert_eq!(step(Move::Up, 0), 0);
    assert_eq!(step(Move::Down, 99), 99);
    assert_eq!(step(Move::PageDown, 5), 15);
    assert_eq!(step(Move::PageUp, 15), 5);
    assert_eq!(step(Move::HalfPageDown, 5), 10);
    assert_eq!(step(Move::HalfPageUp, 10), 5);
    assert_eq!(step(Move::First, 50), 0);
    assert_eq!(step(Move::Last, 50), 99);
    assert_eq!(Move::Last.apply(0, 10, 0), 0);
}

#[test]
fn scrolling_moves_as_little_as_possible() {
    assert_eq!(scroll_offset(None, 0, 10, 100), 0);
    assert_eq!(scroll_offset(Some(5), 0, 10, 100), 0);
    assert_eq!(scroll_offset(Some(10), 0, 10, 100), 1);
    assert_eq!(scroll_offset(Some(3), 20, 10, 100), 3);
    assert_eq!(scroll_offset(Some(25), 20, 10, 100), 20);
    assert_eq!(scroll_offset(None, 95, 10, 100), 90);
    assert_eq!(scroll_offset(Some(4), 95, 10, 5), 0);
    assert_eq!(scroll_offset(Some(4), 0, 0, 5), 0);
    assert_eq!(scroll_offset(None, 7, 10, 0), 0);
}

#[test]
fn the_last_row_can_be_reached_and_seen() {
    let data = arc(thousands());
    let ui = after(&[Message::Move(Move::Last)], &data);
    let text = text(&ui, &data);
    assert!(text.contains("–3,005 of 3,005"), "{text}");
}

#[test]
fn most_sockets_come_first_and_equals_stand_still() {
    let mut data = thousands();
    let keys = |data: &Frame| {
        TableState::<Endpoints>::default()
            .sorted(data, &Filter::default())
            .into_iter()
            .map(|row| row.key)
            .collect::<Vec<_>>()
    };
    let sockets: Vec<_> = TableState::<Endpoints>::default()
        .sorted(&data, &Filter::default())
        .into_iter()
        .map(|row| row.sockets)
        .collect();
    assert!(sockets.is_sorted_by(|a, b| a >= b));
    let before = keys(&data);
    data.snapshot.endpoints.reverse();
    assert_eq!(keys(&data), before);
}

#[test]
fn numbers_are_sorted_down_and_text_up() {
    let data = busy();
    let first = |title, reversed| {
        let sort = Endpoints::FIELDS.iter().find(|field| field.title() == title).unwrap().id;
        let state = TableState::<Endpoints> { sort, reversed, ..TableState::default() };
        state.sorted(&data, &Filter::default())[0].process.map(|process| process.comm.to_string())
    };
    assert_eq!(first("PROCESS", false).as_deref(), Some("caddy"));
    assert_eq!(first("PROCESS", true), None);
    assert_eq!(first("ESTABLISHED", false).as_deref(), Some("nginx"));
    assert_eq!(first("ESTABLISHED", true).as_deref(), Some("sshd"));
    assert_eq!(first("TIME_WAIT", false).as_deref(), Some("load-generator"));
    assert_eq!(EndpointRow::field(Endpoints::SORT).unwrap().title(), "ALL SOCKETS");
}

#[test]
fn sorting_goes_round_all_columns_in_sight_and_back() {
    let data = arc(busy());
    let mut ui = ui(80, 24);
    let mut seen = Vec::new();
    while !seen.contains(&table(&ui).sort) {
        seen.push(table(&ui).sort);
        update(&mut ui, &data, Message::NextSort);
    }
    assert_eq!(table(&ui).sort, Endpoints::SORT);
    let shown = columns::<Endpoints>(80, Endpoints::SORT, &data);
    let numbers_and_text = shown.iter().filter(|(index, _)| Endpoints::FIELDS[*index].order != Order::None);
    assert_eq!(seen.len(), numbers_and_text.count());
    update(&mut ui, &data, Message::ReverseSort);
    assert!(table(&ui).reversed);
    update(&mut ui, &data, Message::NextSort);
    assert!(!table(&ui).reversed);
}

#[test]
fn all_that_matters_is_in_80_columns_and_the_rest_goes_by_rank() {
    let data = busy();
    let sorts = Endpoints::FIELDS.iter().filter(|field| field.is_on_screen()).map(|field| field.id);
    for (width, sort) in (1..250).flat_map(|width| sorts.clone().map(move |sort| (width, sort))) {
        let columns = columns::<Endpoints>(width, sort, &data);
        let total: u16 = columns.iter().map(|(_, width)| width).sum();
        assert!(total <= width || columns.len() == 1, "{total} columns in {width}");
        assert_eq!(columns[0].0, 0);
        // What the rows are sorted by is seen.
        let is_wanted = |id| id != NETNS_ID && id != SERVICE_ID;
        let has_sort = columns.iter().any(|(index, _)| Endpoints::FIELDS[*index].id == sort);
        assert!(has_sort || width < 80 || !is_wanted(sort), "{sort} in {width}");
    }
    let shown = columns::<Endpoints>(80, Endpoints::SORT, &data);
    let shown: Vec<_> = shown.iter().map(|(index, _)| Endpoints::FIELDS[*index].title()).collect();
    let required = [
        "LOCAL ENDPOINT",
        "PROCESS",
        "DIRECTION",
        "ALL SOCKETS",
        "ESTABLISHED",
        "SYN_SENT",
        "CLOSE_WAIT",
        "TIME_WAIT",
        "OTHER STATES",
        "OPENED/s",
    ];
    assert_eq!(shown, required);
    // Their titles are whole at 100 columns, and still there at 60.
    let titles = |width| -> Vec<_> {
        let columns = columns::<Endpoints>(width, Endpoints::SORT, &data).into_iter();
        columns.map(|(index, width)| Endpoints::FIELDS[index].title_within(usize::from(width) - 1)).collect()
    };
    let states =
        |titles: &[&str]| titles.iter().position(|title| *title == "ESTAB").map(|at| titles[at..at + 5].join(" "));
    assert_eq!(states(&titles(100)).as_deref(), Some("ESTAB SYN_SENT CLOSE_WAIT TIME_WAIT OTHER"));
    assert_eq!(states(&titles(60)).as_deref(), Some("ESTAB SYN_S CLOSE_W TIME_W OTHER"));
    let ranks: HashSet<_> = Endpoints::FIELDS.iter().map(|field| field.rank).collect();
    assert_eq!(ranks.len(), Endpoints::FIELDS.len(), "two columns of one rank would go together");
}

fn press(code: KeyCode, modifiers: KeyModifiers) -> Option<Message> {
    message(KeyEvent::new(code, modifiers), false)
}

#[test]
fn no_key_stands_for_two_things() {
    let keys: Vec<_> = KEYMAP.iter().flat_map(|binding| binding.keys).collect();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

#[test]
fn keys_do_what_they_do_everywhere() {
    let (none, shift, ctrl) = (KeyModifiers::NONE, KeyModifiers::SHIFT, KeyModifiers::CONTROL);
    for (code, modifiers, expected) in [
        (KeyCode::Char('q'), none, Message::Quit),
        (KeyCode::Char('c'), ctrl, Message::Quit),
        (KeyCode::Char('?'), none, Message::ToggleHelp),
        (KeyCode::Char('?'), shift, Message::ToggleHelp),
        (KeyCode::Char('h'), none, Message::ToggleHelp),
        (KeyCode::F(1), none, Message::ToggleHelp),
        (KeyCode::Char(' '), none, Message::TogglePause),
        (KeyCode::Char('p'), none, Message::TogglePause),
        (KeyCode::Char('j'), none, Message::Move(Move::Down)),
        (KeyCode::Up, none, Message::Move(Move::Up)),
        (KeyCode::Char('g'), none, Message::Move(Move::First)),
        (KeyCode::Char('G'), shift, Message::Move(Move::Last)),
        (KeyCode::Char('d'), ctrl, Message::Move(Move::HalfPageDown)),
        (KeyCode::Char('s'), none, Message::NextSort),
        (KeyCode::Char('S'), shift, Message::ReverseSort),
        (KeyCode::Char('l'), ctrl, Message::Redraw),
        (KeyCode::Char('z'), ctrl, Message::Suspend),
        (KeyCode::Esc, none, Message::Close),
    ] {
        assert_eq!(press(code, modifiers), Some(expected), "{code:?} {modifiers:?}");
    }
}

#[test]
fn other_keys_do_nothing() {
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::NONE), None);
    assert_eq!(press(KeyCode::Char('q'), KeyModifiers::ALT), None);
    let released = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::from(KeyCode::Char('q')) };
    assert_eq!(message(released, false), None);
}

fn typed(text: &str) -> Vec<Message> {
    let letters = text.chars().map(|letter| message(KeyEvent::from(KeyCode::Char(letter)), true).unwrap());
    [Message::Filter].into_iter().chain(letters).collect()
}

#[test]
fn a_filter_holds_from_the_first_letter_and_esc_gives_up_first_the_row_then_the_filter() {
    let data = arc(busy());
    let mut ui = after(&typed("comm:ngi"), &data);
    let rows = |ui: &Ui| table(ui).sorted(&data, &ui.prompt.filter).len();
    assert_eq!(rows(&ui), 1);
    // What makes no sense yet leaves in force what did.
    update(&mut ui, &data, Message::Type(Typed::EraseAll));
    assert_eq!(rows(&ui), data.snapshot.endpoints.len());
    for message in &typed("port:8080 dir:")[1..] {
        update(&mut ui, &data, *message);
    }
    // `dir` alone is a part of a name.
    assert_eq!(rows(&ui), 0);
    update(&mut ui, &data, Message::Type(Typed::EraseWord));
    for message in &typed("10.0.0.0/x:")[1..] {
        update(&mut ui, &data, *message);
    }
    assert_eq!(
        ui.prompt.error.as_ref().unwrap().to_string(),
        "there is no key 10.0.0.0/x: but port: state: comm: pid: netns: dir: service: unit: pod: container:"
    );
    update(&mut ui, &data, Message::Type(Typed::EraseWord));
    assert_eq!(rows(&ui), 2);
    update(&mut ui, &data, Message::Type(Typed::Accept));
    assert!(!ui.prompt.is_open && ui.prompt.error.is_none());
    update(&mut ui, &data, Message::Move(Move::Down));
    update(&mut ui, &data, Message::Close);
    assert_eq!((rows(&ui), selected(&ui, &data)), (2, None));
    update(&mut ui, &data, Message::Close);
    assert_eq!(rows(&ui), data.snapshot.endpoints.len());
    // Given up: what was there before holds again.
    let mut ui = after(&[typed("sshd"), vec![Message::Type(Typed::Accept)], typed("x")].concat(), &data);
    assert_eq!(rows(&ui), 0);
    update(&mut ui, &data, Message::Type(Typed::Cancel));
    assert_eq!(rows(&ui), 1);
}
