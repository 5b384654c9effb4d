//! A terminal that takes no output: signals and keys end the program all the same.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Signal, kill_process},
    termios::{Action, tcflow},
};

use crate::terminal::{DEADLINE, MAIN_SCREEN, OBSERVER, Terminal};

/// From a signal to the end of the program, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(10);

#[track_caller]
fn ends_soon(terminal: &mut Terminal, code: u32, what: &str) {
    let asked = Instant::now();
    assert_eq!(terminal.ends(), code, "{what}");
    assert!(asked.elapsed() < SOON, "{what} took {:?}", asked.elapsed());
}

/// With a reader again, what the terminal shows is what was left there.
fn read_the_rest(terminal: &Terminal) {
    terminal.is_stuck.store(false, Ordering::Relaxed);
    terminal.wait_for("the end of the alternate screen", |_| {
        let parser = terminal.parser.lock().unwrap();
        !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
    });
    terminal.is_restored();
}

#[test]
fn a_signal_ends_the_program_while_nobody_reads_the_terminal() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut terminal = Terminal::observer(160, 50);
        terminal.wait_for_words(&MAIN_SCREEN);
        terminal.fill("\x0c");
        kill_process(terminal.pid(), signal).unwrap();
        ends_soon(&mut terminal, code, &format!("{signal:?}"));
        read_the_rest(&terminal);
    }
}

#[test]
fn a_signal_ends_the_program_while_its_output_is_stopped() {
    let mut terminal = Terminal::observer(160, 50);
    terminal.wait_for_words(&MAIN_SCREEN);
    let slave = std::fs::File::open(format!("/proc/{}/fd/1", terminal.pid().as_raw_nonzero())).unwrap();
    tcflow(&slave, Action::OOff).unwrap();
    assert!(terminal.is_full(), "the output is not stopped");
    // A frame that the terminal does not take.
    terminal.press("\x0c?");
    kill_process(terminal.pid(), Signal::TERM).unwrap();
    ends_soon(&mut terminal, 143, "SIGTERM");
    read_the_rest(&terminal);
}

#[test]
fn a_key_ends_the_program_while_nobody_reads_the_terminal() {
    let mut terminal = Terminal::observer(160, 50);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.fill("\x0c");
    terminal.press("q");
    ends_soon(&mut terminal, 0, "q");
    read_the_rest(&terminal);
}

#[test]
fn a_recording_ends_although_nobody_reads_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording");
    let args = ["--own-netns", "record", file.to_str().unwrap()];
    let mut terminal = Terminal::start(80, 24, OBSERVER, &args, &[]);
    let deadline = Instant::now() + DEADLINE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "nothing was recorded");
        thread::yield_now();
    }
    // Outside of raw mode Ctrl-S stops the output.
    terminal.press("\x13");
    while !terminal.is_full() {
        assert!(Instant::now() < deadline, "Ctrl-S stops nothing");
        thread::yield_now();
    }
    kill_process(terminal.pid(), Signal::TERM).unwrap();
    ends_soon(&mut terminal, 0, "SIGTERM");
}
