//! A lab's transcript, beside the screen and below it.

use std::sync::Arc;

use insta::assert_snapshot;

use super::fixture::{arc, one, text, ui};
use crate::{
    model::{
        narration::{Narration, Told, Voice},
        snapshot::Snapshot,
    },
    tui::{
        message::{Effect, Message, Request},
        ui::update,
    },
};

fn told() -> Narration {
    let line = |voice, text: &str| Told { voice, text: text.to_owned() };
    Narration {
        title: "myth".to_owned(),
        lines: vec![
            line(Voice::Opening, "Claim: one listening port holds more than 65,536 connections at the same time."),
            line(Voice::Step, "1. A server listens on ONE address and ONE port: 127.0.0.1:7000."),
            line(Voice::Theory, "The rule: a connection is known by four numbers, and two of them are the client's."),
            line(Voice::Kernel, "It listens. That took one socket and one port; more will not be needed."),
            line(Voice::Step, "2. Clients at 8 addresses connect to it: 100,000 connections in all."),
            line(Voice::Observer, "100,000 connections by eBPF events as they came."),
            line(Voice::Drawing, " 50 %     766 µs ██████████"),
        ],
        ..Narration::default()
    }
}

fn with(narration: Narration) -> Snapshot {
    Snapshot { narration: Some(Arc::new(narration)), ..one() }
}

#[test]
fn it_stands_below_a_small_screen_and_beside_a_large_one() {
    let busy = Narration { progress: Some((66_000, 100_000)), ..told() };
    assert_snapshot!("transcript_80x24", text(&ui(80, 24), &with(busy.clone())));
    assert_snapshot!("transcript_160x50", text(&ui(160, 50), &with(busy)));
}

#[test]
fn it_says_when_it_waits_and_when_it_is_over_and_its_end_is_seen() {
    let waiting = text(&ui(80, 24), &with(Narration { is_waiting: true, ..told() }));
    assert!(waiting.contains("n: next step"), "{waiting}");
    let mut over = Narration { is_over: true, ..told() };
    over.lines.push(Told { voice: Voice::Good, text: "borne out: \u{1b}[31mred".to_owned() });
    let over = text(&ui(80, 24), &with(over));
    assert!(over.contains("q quits") && over.contains("borne out: ?[31mred"), "{over}");
}

#[test]
fn the_key_for_the_next_step_asks_a_lab_and_nobody_else() {
    let ask = |data| update(&mut ui(80, 24), &arc(data), Message::NextStep);
    assert_eq!(ask(with(told())), Effect::Ask(Request::NextStep));
    assert_eq!(ask(one()), Effect::None);
}
