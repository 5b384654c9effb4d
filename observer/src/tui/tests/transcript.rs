//! A lab's transcript, beside the screen and below it.

use std::sync::Arc;

use insta::assert_snapshot;

use super::fixture::{arc, one, text, ui};
use crate::{
    frame::{
        Frame,
        transcript::{Speaker, Transcript, TranscriptLine},
    },
    tui::{
        message::{Effect, Message, ScreenRequest},
        ui::update,
    },
};

fn transcript() -> Transcript {
    let line = |speaker, text: &str| TranscriptLine { speaker, text: text.to_owned() };
    Transcript {
        title: "myth".to_owned(),
        lines: vec![
            line(Speaker::Opening, "Claim: one listening port holds more than 65,536 connections at the same time."),
            line(Speaker::Step, "1. A server listens on ONE address and ONE port: 127.0.0.1:7000."),
            line(Speaker::Theory, "The rule: a connection is known by four numbers, and two of them are the client's."),
            line(Speaker::Kernel, "It listens. That took one socket and one port; more will not be needed."),
            line(Speaker::Step, "2. Clients at 8 addresses connect to it: 100,000 connections in all."),
            line(Speaker::Observer, "100,000 connections by eBPF events as they came."),
            line(Speaker::Drawing, " 50 %     766 µs ██████████"),
        ],
        ..Transcript::default()
    }
}

fn with(transcript: Transcript) -> Frame {
    Frame { transcript: Some(Arc::new(transcript)), ..one() }
}

#[test]
fn it_stands_below_a_small_screen_and_beside_a_large_one() {
    let busy = Transcript { progress: Some((66_000, 100_000)), ..transcript() };
    assert_snapshot!("transcript_80x24", text(&ui(80, 24), &with(busy.clone())));
    assert_snapshot!("transcript_160x50", text(&ui(160, 50), &with(busy)));
}

#[test]
fn it_says_when_it_waits_and_when_it_is_over_and_its_end_is_seen() {
    let waiting = text(&ui(80, 24), &with(Transcript { is_waiting: true, ..transcript() }));
    assert!(waiting.contains("n: next step"), "{waiting}");
    let mut over = Transcript { is_over: true, ..transcript() };
    over.lines.push(TranscriptLine { speaker: Speaker::Good, text: "confirmed: \u{1b}[31mred".to_owned() });
    let over = text(&ui(80, 24), &with(over));
    assert!(over.contains("q quits") && over.contains("confirmed: ?[31mred"), "{over}");
}

#[test]
fn the_key_for_the_next_step_asks_a_lab_and_nobody_else() {
    let ask = |data| update(&mut ui(80, 24), &arc(data), Message::NextStep);
    assert_eq!(ask(with(transcript())), Effect::Ask(ScreenRequest::NextStep));
    assert_eq!(ask(one()), Effect::None);
}
