//! A screen whose descriptors run out while it is shown: it goes on, and takes and leaves the terminal without new
//! ones.

use rustix::process::{Signal, kill_process};

use crate::{
    limit,
    terminal::{MAIN_SCREEN, OBSERVER, Terminal},
};

/// Sets the program's soft fd limit and returns the one before. A limit up to three leaves no fd beside the standard streams.
fn limit_descriptors(terminal: &Terminal, soft: u64) -> u64 {
    limit::limit_descriptors(terminal.pid().as_raw_nonzero().get().unsigned_abs(), soft)
}

#[test]
fn the_first_key_comes_through_without_a_descriptor_left() {
    let mut terminal = Terminal::observer(80, 24);
    terminal.wait_for_words(&MAIN_SCREEN);
    limit_descriptors(&terminal, 2);
    terminal.press("?");
    terminal.wait_for_words(&["KEYS"]);
    terminal.press("q");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    terminal.is_restored();
}

#[test]
fn a_screen_that_was_stopped_comes_back_without_a_descriptor_left() {
    let mut terminal = Terminal::observer(80, 24);
    terminal.wait_for_words(&MAIN_SCREEN);
    limit_descriptors(&terminal, 2);
    // A stop, and what `fg` sends: the terminal is left and taken again.
    let entered =
        |terminal: &Terminal| String::from_utf8_lossy(&terminal.raw.lock().unwrap()).matches("\x1b[?1049h").count();
    let before = entered(&terminal);
    kill_process(terminal.pid(), Signal::TSTP).unwrap();
    terminal.wait_for("the terminal given back", |_| !terminal.parser.lock().unwrap().screen().alternate_screen());
    // A SIGCONT that comes before the stop would be spent.
    let stat = format!("/proc/{}/stat", terminal.pid().as_raw_nonzero());
    terminal.wait_for("the stop", |_| std::fs::read_to_string(&stat).unwrap().contains(") T "));
    kill_process(terminal.pid(), Signal::CONT).unwrap();
    terminal.wait_for("the screen again", |_| entered(&terminal) > before);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    terminal.is_restored();
}

/// Then poll() itself is refused (EINVAL), and with it the keyboard.
#[test]
fn keys_wait_while_the_limit_of_descriptors_is_zero() {
    let mut terminal = Terminal::observer(80, 24);
    terminal.wait_for_words(&MAIN_SCREEN);
    limit_descriptors(&terminal, 0);
    terminal.press("?");
    terminal.wait_for_words(&["skipped"]);
    assert!(!terminal.screen().contains("KEYS"), "{}", terminal.screen());
    limit_descriptors(&terminal, 1_000);
    terminal.wait_for_words(&["KEYS"]);
    terminal.press("qq");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    terminal.is_restored();
}

#[test]
fn the_screen_says_which_rounds_are_skipped_and_goes_on() {
    let mut terminal = Terminal::start(220, 50, OBSERVER, &["--own-netns"], &[]);
    terminal.wait_for_words(&["last scan"]);
    let before = limit_descriptors(&terminal, 3);
    terminal.wait_for("the banner", |screen| {
        screen.contains("skipped: EMFILE at") && screen.contains("as old as the last scan")
    });
    limit_descriptors(&terminal, before);
    terminal.wait_for("the end of the banner", |screen| {
        screen.contains("rounds skipped") && !screen.contains("as old as the last scan")
    });
    terminal.press("q");
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
}
