//! What was not read is on the screen, also on a small one.

use super::fixture::{arc, busy, text, ui};
use crate::{
    frame::Frame,
    model::{
        capability::{BPF, SYS_ADMIN, SYS_PTRACE},
        gaps::{Gap, Skipped, Unread},
    },
    tui::{
        message::{Message, Move},
        screen_name::ScreenName,
        ui::update,
    },
};

fn with_gaps() -> Frame {
    let mut data = busy();
    data.snapshot.quality.gaps.set(Unread::Processes, Gap { count: 3, errno: Some(13) });
    data.snapshot.quality.gaps.set(Unread::Tracefs, Gap { count: 1, errno: Some(13) });
    data.snapshot.quality.gaps.skipped = Skipped {
        rounds: 7,
        operation: "BPF_ITER_CREATE of scan_tcp".to_owned(),
        errno: Some(24),
        cause: "EMFILE (Too many open files)".to_owned(),
    };
    data
}

#[test]
fn the_quality_line_says_what_was_not_read() {
    for (width, height) in [(80, 24), (160, 50), (60, 18)] {
        let text = text(&ui(width, height), &with_gaps());
        assert!(text.contains("4 not read") && text.contains("7 rounds skipped"), "{text}");
        assert!(!text.contains("EMFILE at"), "an old skip is no alarm: {text}");
    }
    let wide = text(&ui(250, 50), &with_gaps());
    for words in ["3 processes not read (EACCES)", "tracefs closed (EACCES)", "EMFILE at BPF_ITER_CREATE of scan_tcp"] {
        assert!(wide.contains(words), "no {words:?} in\n{wide}");
    }
    let nothing = text(&ui(250, 50), &busy());
    assert!(!nothing.contains("not read") && !nothing.contains("skipped"), "{nothing}");
}

#[test]
fn a_round_that_is_being_skipped_is_an_alarm_until_the_next_scan() {
    let mut data = with_gaps();
    data.snapshot.quality.last_skip_at = Some(data.snapshot.uptime);
    let alarmed = text(&ui(160, 50), &data);
    assert!(alarmed.contains("! 7 rounds skipped: EMFILE at BPF_ITER_CREATE of scan_tcp"), "{alarmed}");
}

#[test]
fn the_panel_says_what_would_help() {
    for (width, height) in [(160, 50), (80, 35), (80, 24), (60, 35)] {
        let (mut ui, data) = (ui(width, height), arc(with_gaps()));
        update(&mut ui, &data, Message::Show(ScreenName::Quality));
        let first = text(&ui, &data);
        update(&mut ui, &data, Message::Move(Move::PageDown));
        let second = text(&ui, &data);
        // The lines of the screen itself: a sentence may be in several of them, and on both pages.
        let is_title = |line: &&str| line.contains("Data quality: losses");
        let pages = [&first, &second].into_iter().flat_map(|page| {
            let below_title = page.lines().skip_while(move |line| !is_title(line)).skip(1);
            below_title.take_while(|line| !line.contains('│'))
        });
        let seen = pages.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
        for words in ["NOT READ", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "EMFILE (Too many open files)"] {
            assert!(seen.contains(words), "no {words:?} in\n{seen}");
        }
    }
    let (mut ui, data) = (ui(160, 50), arc(with_gaps()));
    update(&mut ui, &data, Message::Show(ScreenName::Quality));
    let text = text(&ui, &data);
    let footer = text.lines().last().unwrap();
    assert!(!footer.contains("Enter") && !footer.contains("explain"), "{footer}");
}

#[test]
fn the_panel_says_which_capabilities_are_held_and_what_the_others_cost() {
    let mut data = busy();
    data.snapshot.quality.gaps.capabilities = SYS_ADMIN.mask();
    data.snapshot.quality.given_capabilities |= SYS_ADMIN.mask();
    let (mut ui, data) = (ui(200, 90), arc(data));
    update(&mut ui, &data, Message::Show(ScreenName::Quality));
    let seen = text(&ui, &data).split_whitespace().collect::<Vec<_>>().join(" ");
    for (capability, holding) in [(BPF, "given up"), (SYS_ADMIN, "held"), (SYS_PTRACE, "missing")] {
        let meaning =
            data.snapshot.quality.capabilities().find(|(other, _)| *other == capability).unwrap().1.meaning(capability);
        let words = format!("{} {holding} {meaning}", capability.name.trim_start_matches("CAP_"));
        assert!(seen.contains(&words), "no {words:?} in\n{seen}");
    }
}
