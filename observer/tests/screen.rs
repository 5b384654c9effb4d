//! The live screen in a real pseudo-terminal: what it shows, what its keys do, and that it restores the terminal.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[path = "program/limit.rs"]
mod limit;
#[path = "screen/scarce.rs"]
mod scarce;
#[path = "screen/stopped.rs"]
mod stopped;
#[path = "screen/streams.rs"]
mod streams;
#[path = "screen/terminal.rs"]
mod terminal;
#[path = "screen/typed.rs"]
mod typed;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use portable_pty::PtySize;
use rustix::process::{Signal, kill_process};

use self::terminal::{MAIN_SCREEN, OBSERVER, Terminal};

#[test]
fn q_leaves_the_terminal_as_it_was() {
    for key in ["q", "\x03"] {
        let mut terminal = Terminal::observer(80, 24);
        terminal.wait_for_words(&MAIN_SCREEN);
        terminal.press(key);
        assert_eq!(terminal.ends(), 0, "{key:?}");
        terminal.is_restored();
    }
}

/// A recording of this many seconds, and its folder.
fn recording(seconds: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording");
    let args = ["--own-netns", "record", file.to_str().unwrap(), "--for", seconds];
    assert!(std::process::Command::new(OBSERVER).args(args).output().unwrap().status.success());
    (folder, file)
}

#[test]
fn a_recording_is_shown_as_the_present_is() {
    let (_folder, file) = recording("1.1");
    for more in [["--speed", "100"], ["--from", "1"]] {
        let args = [["replay", file.to_str().unwrap()], more].concat();
        let mut terminal = Terminal::start(80, 24, OBSERVER, &args, &[]);
        terminal.wait_for_words(&MAIN_SCREEN);
        // Beyond its end, it stays.
        terminal.press("?");
        terminal.wait_for_words(&["KEYS"]);
        terminal.press("\x1b");
        terminal.wait_for("no help", |screen| !screen.contains("KEYS"));
        terminal.press("q");
        assert_eq!(terminal.ends(), 0, "{more:?}");
        terminal.is_restored();
    }
    let args = ["replay", file.to_str().unwrap(), "--from", "1000"];
    let mut terminal = Terminal::start(80, 24, OBSERVER, &args, &[]);
    assert_eq!(terminal.ends(), 2, "{}", terminal.screen());
    terminal.is_restored();
}

#[test]
fn a_replay_is_stopped_and_goes_back_and_ahead() {
    let (_folder, file) = recording("3");
    let mut terminal = Terminal::start(80, 24, OBSERVER, &["replay", file.to_str().unwrap()], &[]);
    terminal.wait_for_words(&["REPLAY"]);
    terminal.press(" ");
    terminal.wait_for_words(&["REPLAY, STOPPED", "Space resume"]);
    terminal.press("]]");
    terminal.wait_for_words(&["REPLAY ×4, STOPPED"]);
    terminal.press("[[\x1b[C");
    terminal.wait_for_words(&["REPLAY, OVER"]);
    terminal.press("\x1b[D");
    terminal.wait_for_words(&["REPLAY, STOPPED", "observed for 0.0 s"]);
    terminal.press(" ");
    terminal.wait_for_words(&["REPLAY, OVER"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_restored();
}

#[test]
fn the_mouse_is_captured_on_request_and_released() {
    let mut terminal = Terminal::observer(80, 24);
    let mode = |terminal: &Terminal| terminal.parser.lock().unwrap().screen().mouse_protocol_mode();
    terminal.wait_for_words(&MAIN_SCREEN);
    assert_eq!(mode(&terminal), vt100::MouseProtocolMode::None, "off unless asked for");
    terminal.press("m");
    terminal.wait_for("the mouse", |_| mode(&terminal) != vt100::MouseProtocolMode::None);
    // SGR coordinates count from one.
    let screen = terminal.screen();
    let (row, line) = screen.lines().enumerate().find(|(_, line)| line.contains("8 Data")).unwrap();
    let column = line.find("8 Data").unwrap() + 1;
    terminal.press(&format!("\x1b[<0;{column};{}M\x1b[<0;{column};{}m", row + 1, row + 1));
    terminal.wait_for_words(&[">8 Data"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    assert_eq!(mode(&terminal), vt100::MouseProtocolMode::None, "given back");
    terminal.is_restored();
}

#[test]
fn a_terminal_without_unicode_gets_ascii() {
    let mut terminal = Terminal::start(80, 24, OBSERVER, &[], &[("LC_ALL", "C")]);
    terminal.wait_for_words(&MAIN_SCREEN);
    for (key, word) in
        [("2", ">2"), ("3", ">3"), ("4", ">4"), ("5", ">5"), ("6", ">6"), ("7", ">7"), ("8", ">8"), ("?", "KEYS")]
    {
        terminal.press(key);
        terminal.wait_for_words(&[word]);
    }
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    assert!(terminal.raw.lock().unwrap().is_ascii());
    terminal.is_restored();
}

#[test]
fn signals_leave_the_terminal_as_it_was() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let mut terminal = Terminal::observer(80, 24);
        terminal.wait_for_words(&MAIN_SCREEN);
        kill_process(terminal.pid(), signal).unwrap();
        assert_eq!(terminal.ends(), code, "{signal:?}");
        terminal.is_restored();
    }
}

#[test]
fn ctrl_z_gives_the_shell_its_terminal_back_and_fg_the_screen() {
    let mut terminal = Terminal::start(100, 30, "bash", &["--norc", "--noprofile", "-i"], &[("PS1", "shell> ")]);
    terminal.wait_for_words(&["shell>"]);
    terminal.press(&format!("{OBSERVER}\n"));
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.press("\x1a");
    terminal.wait_for_words(&["Stopped", "shell>"]);
    terminal.press("echo still $((6 * 7))\n");
    terminal.wait_for_words(&["still 42"]);
    terminal.press("fg\n");
    terminal.wait_for("the screen again", |screen| screen.contains("ESTAB") && !screen.contains("still 42"));
    terminal.press("q");
    // At start, after the stop, after echo, and now: typed earlier, a line would go to observer.
    terminal.wait_for("the shell's next prompt", |screen| screen.matches("shell>").count() == 4);
    terminal.press("exit\n");
    terminal.ends();
    terminal.is_restored();
}

#[test]
fn help_and_pause_open_and_close() {
    let mut terminal = Terminal::observer(160, 50);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.press("?");
    terminal.wait_for_words(&["KEYS", "Ctrl-C"]);
    terminal.press("\x1b");
    terminal.wait_for("no help", |screen| !screen.contains("KEYS"));
    terminal.press(" ");
    terminal.wait_for_words(&["PAUSED"]);
    terminal.press(" ");
    terminal.wait_for("no pause", |screen| !screen.contains("PAUSED"));
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_terminal_that_is_too_small_is_an_error_and_its_screen_is_untouched() {
    let mut terminal = Terminal::observer(50, 10);
    assert_eq!(terminal.ends(), 1);
    let raw = String::from_utf8(terminal.raw.lock().unwrap().clone()).unwrap();
    assert!(raw.contains("50 columns and 10 lines") && raw.contains("observer snapshot"), "{raw}");
    assert!(!raw.contains('\x1b'), "the screen was touched: {raw:?}");
}

#[test]
fn a_terminal_made_too_small_says_so_and_recovers() {
    let mut terminal = Terminal::observer(80, 24);
    terminal.wait_for_words(&MAIN_SCREEN);
    let resize = |terminal: &Terminal, cols, rows| {
        terminal.parser.lock().unwrap().screen_mut().set_size(rows, cols);
        terminal.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).unwrap();
    };
    resize(&terminal, 50, 10);
    terminal.wait_for_words(&["too small"]);
    resize(&terminal, 160, 50);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn no_color_is_honoured() {
    let colours = |env: &[(&str, &str)]| {
        let mut terminal = Terminal::start(80, 24, OBSERVER, &[], env);
        terminal.wait_for_words(&MAIN_SCREEN);
        terminal.press("q");
        terminal.ends();
        let raw = String::from_utf8_lossy(&terminal.raw.lock().unwrap()).into_owned();
        // SGR 30 to 37, 38;…, 90 to 97: a foreground colour.
        raw.split("\x1b[")
            .skip(1)
            .filter_map(|sequence| sequence.split_once('m').map(|(parameters, _)| parameters.to_owned()))
            .filter(|parameters| parameters.starts_with("38;") || parameters.starts_with("48;"))
            .count()
    };
    assert_eq!(colours(&[("NO_COLOR", "1")]), 0);
    assert!(colours(&[]) > 0, "no colour at all without NO_COLOR: this test could not fail");
}

#[test]
fn a_terminal_that_does_not_read_loses_frames_and_no_events() {
    const PAIRS: usize = 2_000;
    let mut terminal = Terminal::observer(160, 50);
    terminal.wait_for_words(&MAIN_SCREEN);
    // Each key draws the whole screen: in the end more than the terminal can buffer while nobody reads.
    terminal.fill("\x0c");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pairs: Vec<_> =
        (0..PAIRS).map(|_| (std::net::TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).collect();
    assert!(terminal.is_unread(), "the terminal was not stuck all the time");
    terminal.is_stuck.store(false, Ordering::Relaxed);
    let row = |screen: &str| screen.lines().find(|line| line.starts_with(&address.to_string())).map(str::to_owned);
    terminal.wait_for("all connections", |screen| row(screen).is_some_and(|row| row.contains("2,000")));
    terminal.wait_for_words(&["lost 0"]);
    drop(pairs);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_restored();
}

/// The test runs itself again in a terminal, shows the screen there and panics on another thread.
#[test]
fn a_panic_of_any_thread_leaves_the_terminal_as_it_was_and_its_message_readable() {
    const SIGNAL_FILE: &str = "OBSERVER_TEST_PANIC_WHEN_THERE";
    if let Some(path) = std::env::var_os(SIGNAL_FILE) {
        return panic_behind_the_screen(std::path::Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let signal = dir.path().join("now");
    let this = std::env::current_exe().unwrap();
    let name = "a_panic_of_any_thread_leaves_the_terminal_as_it_was_and_its_message_readable";
    let mut terminal = Terminal::start(
        100,
        30,
        this.to_str().unwrap(),
        &[name, "--exact", "--nocapture"],
        // A backtrace would push the message off the screen.
        &[(SIGNAL_FILE, signal.to_str().unwrap()), ("RUST_BACKTRACE", "0")],
    );
    terminal.wait_for_words(&["Waiting for the first scan", "q quit"]);
    std::fs::write(&signal, "").unwrap();
    assert_eq!(terminal.ends(), 101, "{}", terminal.screen());
    terminal.wait_for_words(&["the engine's fault"]);
    terminal.is_restored();
}

fn panic_behind_the_screen(signal: &std::path::Path) {
    let snapshot = observer::model::Model::default().snapshot(std::time::SystemTime::now(), Duration::ZERO, 0);
    let (_publish, frames) = tokio::sync::watch::channel(Arc::new(observer::frame::Frame::from(snapshot)));
    let signal = signal.to_owned();
    thread::spawn(move || {
        while !signal.exists() {
            thread::yield_now();
        }
        panic!("the engine's fault");
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(observer::tui::run(
        frames,
        tokio::sync::mpsc::unbounded_channel().0,
        observer::tui::Look::default(),
    ));
    assert!(matches!(ended, Ok(observer::tui::Ended::Quit)), "{ended:?}");
}

#[test]
fn every_screen_is_reached_by_its_digit_and_left_by_another() {
    let mut terminal = Terminal::observer(160, 50);
    terminal.wait_for_words(&MAIN_SCREEN);
    for (digit, words) in [
        ("2", [">2 Destinations", "Destinations"]),
        ("3", [">3 Processes", "OPEN FDS"]),
        ("4", [">4 Connections", "Connections"]),
        ("5", [">5 Limits", "open files"]),
        ("6", [">6 Failures", "Failures"]),
        ("7", [">7 Services", "SERVICE"]),
        ("8", [">8 Data", "HOOKS"]),
        ("\t", [">1 Endpoints", "ESTAB"]),
        ("\x1b[Z", [">8 Data", "LOSSES"]),
        ("3", [">3 Processes", "OPEN FDS"]),
    ] {
        terminal.press(digit);
        terminal.wait_for_words(&words);
    }
    // What follows an Esc at once would be one key with it.
    terminal.press("i");
    terminal.wait_for_words(&["SOFT LIMIT", "Esc closes"]);
    terminal.press("\x1b");
    terminal.wait_for("nothing explained", |screen| !screen.contains("Esc closes"));
    terminal.press("/comm:nobody");
    terminal.wait_for_words(&["filter comm:nobody", "No row matches the filter."]);
    terminal.press("\x1b");
    terminal.wait_for("no filter", |screen| !screen.contains("filter comm"));
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_restored();
}

#[test]
fn a_lab_runs_below_the_screen_and_its_verdict_is_the_exit_code() {
    let mut terminal = Terminal::start(80, 24, OBSERVER, &["lab", "accept", "--scale", "100", "--step"], &[]);
    terminal.wait_for_words(&["lab accept", "n: next step"]);
    for step in ["1. In this", "2. Clients connect", "3. Look at", "4. The clients"] {
        terminal.press("n");
        terminal.wait_for_words(&[step, "next step"]);
    }
    terminal.press("n");
    terminal.wait_for_words(&["confirmed", "q quits"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_restored();
}
