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

/// A script of root's around observer, which is not root any more: its shell waits until both have stopped.
#[test]
fn ctrl_z_stops_the_script_that_runs_observer_and_the_screen_comes_back() {
    let script = format!("unset SUDO_UID; trap : CONT; {OBSERVER}; exit 7");
    let mut terminal = Terminal::start(80, 24, "bash", &["-c", &script], &[]);
    terminal.wait_for_words(&MAIN_SCREEN);
    let shell = terminal.pid().as_raw_nonzero().get();
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let observer: i32 = children.trim().parse().unwrap();
    for task in std::fs::read_dir(format!("/proc/{observer}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let has = |key: &str, value: &str| status.lines().any(|line| line.starts_with(key) && line.contains(value));
        assert!(has("Uid:", "65534\t65534\t65534\t65534") && has("NoNewPrivs:", "\t1"), "{status}");
        let is_engine = has("Name:", "engine");
        assert_eq!(has("CapEff:", "0000000000000000"), !is_engine, "{status}");
    }
    let entered =
        |terminal: &Terminal| String::from_utf8_lossy(&terminal.raw.lock().unwrap()).matches("\x1b[?1049h").count();
    assert_eq!(entered(&terminal), 1);
    terminal.press("\x1a");
    for pid in [shell, observer] {
        let stat = format!("/proc/{pid}/stat");
        terminal.wait_for("the stop", |_| std::fs::read_to_string(&stat).unwrap().contains(") T "));
    }
    rustix::process::kill_process_group(terminal.pid(), rustix::process::Signal::CONT).unwrap();
    // Keys from before the screen is taken again are discarded.
    terminal.wait_for("the screen again", |_| entered(&terminal) == 2);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.press("q");
    assert_eq!(terminal.ends(), 7, "{}", terminal.screen());
}
