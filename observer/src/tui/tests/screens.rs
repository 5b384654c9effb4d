//! Pictures of every screen, the sad ones included.

use std::time::Duration;

use insta::assert_snapshot;

use super::fixture::{
    ailing, arc, busy, degraded, empty, losing, one, recorded, suspended, text, thousands, ui, without_hooks,
};
use crate::{
    frame::{
        Frame, Playback,
        timeline::{IncidentMark, Timeline},
    },
    present::format,
    tui::{
        message::{Message, Move},
        prompt::Typed,
        screen_name::ScreenName,
        ui::update,
    },
};

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (160, 50);

fn shot(data: &Frame, (width, height): (u16, u16)) -> String {
    text(&ui(width, height), data)
}

fn shot_after(messages: &[Message], data: Frame, (width, height): (u16, u16)) -> String {
    let (mut ui, data) = (ui(width, height), arc(data));
    for message in messages {
        update(&mut ui, &data, *message);
    }
    text(&ui, &data)
}

#[test]
fn empty_host() {
    assert_snapshot!("empty_80x24", shot(&empty(), SMALL));
    assert_snapshot!("empty_160x50", shot(&empty(), LARGE));
}

#[test]
fn a_replay_of_a_recorder_shows_where_it_stands() {
    let mut data = busy();
    let mark = |number, second| IncidentMark {
        number,
        at: Duration::from_secs(1_795_749_127),
        position: Duration::from_secs(second),
        words: "ports exhausted".to_owned(),
    };
    let now = Duration::from_secs(1_795_749_127);
    data.playback = Some(Playback { speed: 1.0, is_stopped: false, is_over: false, is_live: false });
    data.timeline = Some(Timeline {
        position: Duration::from_secs(1_900),
        now,
        end: Duration::from_hours(1),
        gaps: vec![Duration::from_mins(10)],
        incidents: vec![mark(2, 1_700), mark(3, 3_000)],
    });
    // The clock of this machine may be that of another zone.
    let shot = |data: &Frame| shot(data, SMALL).replace(&format::local_time(now), "2026-11-27 03:12:07");
    assert_snapshot!("timeline_80x24", shot(&data));
    data.timeline.as_mut().unwrap().position = Duration::from_secs(1_690);
    assert!(shot(&data).contains("incident 2: ports exhausted"));
}

#[test]
fn before_the_first_scan() {
    let mut data = empty();
    data.snapshot.quality.last_scan = None;
    data.snapshot.namespaces.clear();
    data.snapshot.host.files = None;
    data.snapshot.host.processes.clear();
    assert_snapshot!("before_first_scan_80x24", shot(&data, SMALL));
}

#[test]
fn one_listener() {
    assert_snapshot!("one_80x24", shot(&one(), SMALL));
    assert_snapshot!("one_160x50", shot(&one(), LARGE));
}

#[test]
fn busy_host() {
    assert_snapshot!("busy_80x24", shot(&busy(), SMALL));
    assert_snapshot!("busy_117x30", shot(&busy(), (117, 30)));
    assert_snapshot!("busy_160x50", shot(&busy(), LARGE));
    assert_snapshot!("busy_220x60", shot(&busy(), (220, 60)));
    assert_snapshot!("busy_60x16", shot(&busy(), (60, 16)));
}

#[test]
fn something_is_likely_to_be_wrong() {
    assert_snapshot!("ailing_80x24", shot(&ailing(), SMALL));
    assert_snapshot!("ailing_100x40", shot(&ailing(), (100, 40)));
    assert_snapshot!("ailing_160x50", shot(&ailing(), LARGE));
    assert_snapshot!("ailing_60x16", shot(&ailing(), (60, 16)));
}

#[test]
fn thousands_of_endpoints() {
    assert_snapshot!("thousands_80x24", shot(&thousands(), SMALL));
    let down = [Message::Move(Move::PageDown), Message::Move(Move::PageDown), Message::NextSort];
    assert_snapshot!("thousands_scrolled_160x50", shot_after(&down, thousands(), LARGE));
}

#[test]
fn events_were_lost() {
    assert_snapshot!("losing_80x24", shot(&losing(), SMALL));
    assert_snapshot!("losing_160x50", shot(&losing(), LARGE));
    assert_snapshot!("losing_60x16", shot(&losing(), (60, 16)));
}

#[test]
fn hooks_are_missing() {
    assert_snapshot!("degraded_80x24", shot(&degraded(), SMALL));
    assert_snapshot!("degraded_160x50", shot(&degraded(), LARGE));
    assert_snapshot!("without_hooks_80x24", shot(&without_hooks(), SMALL));
}

#[test]
fn hooks_are_suspended() {
    assert_snapshot!("suspended_80x24", shot(&suspended(), SMALL));
    assert_snapshot!("suspended_160x50", shot(&suspended(), LARGE));
    assert_snapshot!("suspended_data_160x50", shot_after(&[Message::Show(ScreenName::Quality)], suspended(), LARGE));
}

#[test]
fn paused_while_the_world_goes_on() {
    for size @ (width, height) in [SMALL, LARGE] {
        let mut ui = ui(width, height);
        update(&mut ui, &arc(busy()), Message::TogglePause);
        update(&mut ui, &arc(busy()), Message::Move(Move::Down));
        let mut later = empty();
        later.snapshot.uptime += Duration::from_secs(75);
        assert_snapshot!(format!("paused_{}x{}", size.0, size.1), text(&ui, &later));
    }
}

#[test]
fn the_engine_is_silent() {
    assert_snapshot!("silent_80x24", shot_after(&[Message::Silence(Duration::from_secs(5))], busy(), SMALL));
}

#[test]
fn help_is_open() {
    assert_snapshot!("help_80x24", shot_after(&[Message::ToggleHelp], busy(), SMALL));
    assert_snapshot!("help_160x50", shot_after(&[Message::ToggleHelp], busy(), LARGE));
    let end = [Message::ToggleHelp, Message::Move(Move::Last)];
    assert_snapshot!("help_end_60x16", shot_after(&end, busy(), (60, 16)));
}

#[test]
fn too_small() {
    assert_snapshot!("too_small_50x10", shot(&busy(), (50, 10)));
}

#[test]
fn several_namespaces() {
    let mut data = busy();
    let mut other = data.snapshot.namespaces[0].clone();
    other.netns.0 += 7;
    data.snapshot.endpoints[0].key.netns = other.netns;
    data.snapshot.namespaces.push(other);
    assert_snapshot!("namespaces_160x50", shot(&data, LARGE));
    let small = shot(&data, (60, 16));
    for column in ["NETNS", "ESTAB", "SYN_S", "CLOSE_W", "TIME_W", "OTHER"] {
        assert!(small.contains(column), "no {column} in\n{small}");
    }
}

#[test]
fn no_size_panics() {
    for width in [0, 1, 2, 59, 60, 61, 79, 80, 100, 116, 117, 118, 300] {
        for height in [0, 1, 2, 15, 16, 17, 19, 20, 21, 33] {
            for data in [empty(), losing(), ailing(), recorded()] {
                shot(&data, (width, height));
                shot_after(&[Message::ToggleHelp, Message::Move(Move::Last)], data, (width, height));
            }
        }
    }
}

#[test]
fn every_other_screen() {
    for screen in &ScreenName::ALL[1..] {
        let name = screen.name().to_lowercase();
        let show = [Message::Show(*screen)];
        assert_snapshot!(format!("{name}_80x24"), shot_after(&show, busy(), SMALL));
        assert_snapshot!(format!("{name}_160x50"), shot_after(&show, busy(), LARGE));
        assert_snapshot!(format!("{name}_empty_80x24"), shot_after(&show, empty(), SMALL));
    }
}

#[test]
fn a_row_is_explained() {
    for screen in [ScreenName::Endpoints, ScreenName::Destinations, ScreenName::Limits, ScreenName::Services] {
        let name = screen.name().to_lowercase();
        let explain = [Message::Show(screen), Message::Explain];
        assert_snapshot!(format!("{name}_explained_80x24"), shot_after(&explain, busy(), SMALL));
    }
}

#[test]
fn a_row_is_explained_with_what_was_found_there() {
    let mut data = ailing();
    let (scope, explain) = (data.snapshot.limits[0].scope, [Message::Show(ScreenName::Limits), Message::Explain]);
    let without = shot_after(&explain, data.clone(), LARGE);
    assert!(!without.contains("remedy"), "{without}");
    data.snapshot.findings[0].scope = Some(scope);
    let with = shot_after(&explain, data, LARGE);
    for words in
        ["finding         Sockets of load-generator (4242)", "evidence        numbers", "remedy          what to do"]
    {
        assert!(with.contains(words), "no {words:?} in\n{with}");
    }
}

#[test]
fn the_connections_of_a_row_are_entered_and_left() {
    let (mut ui, mut data) = (ui(SMALL.0, SMALL.1), busy());
    update(&mut ui, &arc(data.clone()), Message::Enter);
    assert!(text(&ui, &data).contains("Loading…"), "the answer to another question");
    data.connections.as_mut().unwrap().query = ui.query().unwrap();
    assert_snapshot!("entered_80x24", text(&ui, &data));
    // A paused display says that it has no answer.
    let paused = shot_after(&[Message::TogglePause, Message::Enter], busy(), SMALL);
    assert!(paused.contains("The display is paused"), "{paused}");
    let back = shot_after(&[Message::Enter, Message::Close], busy(), SMALL);
    assert!(back.contains(">1 Endpoints"), "{back}");
}

#[test]
fn the_row_without_a_service_says_why() {
    let explain = [Message::Show(ScreenName::Services), Message::Move(Move::Last), Message::Explain];
    let shown = shot_after(&explain, busy(), LARGE);
    // It is the third of four by sockets: ssh.service has none.
    let down = Message::Move(Move::Up);
    let shown_above = shot_after(&[explain[0], explain[1], down, explain[2]], busy(), LARGE);
    assert!(!shown.contains("why unknown"), "{shown}");
    for words in
        ["SERVICE         unknown", "why unknown     The kernel reports a socket's cgroup", "belongs to no cgroup"]
    {
        assert!(shown_above.contains(words), "no {words:?} in\n{shown_above}");
    }
}

#[test]
fn the_connections_of_a_service_are_entered_and_left() {
    let show = Message::Show(ScreenName::Services);
    let entered = shot_after(&[show, Message::Enter], busy(), SMALL);
    assert!(entered.contains(">4 Connections of nginx.service   Esc goes back"), "{entered}");
    let left = shot_after(&[show, Message::Enter, Message::Close], busy(), SMALL);
    assert!(left.contains(">7 Services"), "{left}");
    let unknown = [show, Message::Move(Move::Last), Message::Move(Move::Up), Message::Enter];
    let unknown = shot_after(&unknown, busy(), SMALL);
    assert!(unknown.contains(">4 Connections of unknown services"), "{unknown}");
}

#[test]
fn a_filter_is_typed() {
    let typed = "comm:ngi".chars().map(|letter| Message::Type(Typed::Letter(letter)));
    let typed: Vec<Message> = [Message::Filter].into_iter().chain(typed).collect();
    assert_snapshot!("filtered_80x24", shot_after(&typed, busy(), SMALL));
}

/// What is on the screen, without line ends.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn reasons_and_remedies_are_whole_at_80_columns() {
    for data in [busy(), recorded()] {
        let failure = data.snapshot.failures[0].clone();
        let text = words(&shot_after(&[Message::Show(ScreenName::Failures)], data, SMALL));
        assert!(text.contains(&words(&failure.reason())), "{text}");
        assert!(text.contains(&words(failure.remedy().unwrap_or("remedy"))), "{text}");
    }
    for data in [ailing(), recorded()] {
        let finding = data.snapshot.findings[0].clone();
        let text = words(&shot_after(&[Message::Show(ScreenName::Limits)], data, SMALL));
        for part in [finding.sentence.trim_end_matches('.'), &finding.evidence, &finding.remedy] {
            assert!(text.contains(&words(part)), "no {part:?} in {text}");
        }
    }
}

#[test]
fn the_connections_of_a_row_are_all_of_them_and_the_filter_comes_back() {
    let (mut ui, data) = (ui(80, 24), arc(busy()));
    let filter = "comm:nginx";
    update(&mut ui, &data, Message::Filter);
    for letter in filter.chars() {
        update(&mut ui, &data, Message::Type(Typed::Letter(letter)));
    }
    update(&mut ui, &data, Message::Type(Typed::Accept));
    let filtered = ui.prompt.filter.clone();
    assert!(!filtered.is_empty());
    for leave in [Message::Close, Message::Show(ScreenName::Endpoints)] {
        update(&mut ui, &data, Message::Enter);
        assert_eq!(ui.screens.shown, ScreenName::Connections);
        assert!(ui.query().unwrap().filter.is_empty(), "TIME_WAIT sockets have no process");
        update(&mut ui, &data, leave);
        assert_eq!((ui.screens.shown, ui.prompt.text.as_str()), (ScreenName::Endpoints, filter));
        assert_eq!(ui.prompt.filter, filtered);
    }
}
