//! What is typed and pasted, and terminals that have no screen.

use crate::terminal::{MAIN_SCREEN, OBSERVER, Terminal};

#[test]
fn pasted_text_is_no_command() {
    let mut terminal = Terminal::observer(80, 24);
    terminal.wait_for_words(&MAIN_SCREEN);
    assert!(terminal.parser.lock().unwrap().screen().bracketed_paste(), "pasted text arrives as keys");
    // Were these keys, the program would end.
    terminal.press("\x1b[200~q5?\x03\x1b[201~");
    terminal.press("/");
    terminal.wait_for_words(&["filter", "Enter keeps it"]);
    terminal.press("\x1b[200~port:443\r\ncomm:q\x07\r\n\x1b[201~");
    terminal.wait_for_words(&["filter port:443", "comm:q", ">1 Endpoints", "Enter keeps it"]);
    terminal.press("\r");
    terminal.wait_for_words(&["Esc clears it"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_restored();
}

#[test]
fn ctrl_l_draws_over_what_others_have_written() {
    let mut terminal = Terminal::observer(80, 24);
    terminal.wait_for_words(&MAIN_SCREEN);
    for (keys, words) in [("", "q quit"), ("/", "Enter keeps it")] {
        terminal.press(keys);
        terminal.wait_for_words(&[words]);
        terminal.parser.lock().unwrap().process(b"\x1b[12;1Hwall: the host goes down\x1b[3;70Hnow");
        terminal.press("\x0c");
        terminal.wait_for("no foreign text", |screen| !screen.contains("goes down") && screen.contains(words));
    }
    terminal.press("\x1b");
    terminal.wait_for_words(&["q quit"]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn keys_do_not_act_beneath_the_help() {
    let mut terminal = Terminal::observer(80, 24);
    terminal.wait_for_words(&MAIN_SCREEN);
    terminal.press("?");
    terminal.wait_for_words(&["KEYS"]);
    terminal.press("5 i/\t");
    terminal.press("?");
    terminal.wait_for("the screen as it was", |screen| {
        screen.contains(">1 Endpoints") && screen.contains("q quit") && !screen.contains("KEYS")
    });
    assert!(!terminal.screen().contains("PAUSED"), "{}", terminal.screen());
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_recording_is_not_written_to_a_terminal() {
    let mut terminal = Terminal::start(80, 24, OBSERVER, &["--own-netns", "record", "-", "--for", "0.1"], &[]);
    assert_eq!(terminal.ends(), 1);
    terminal.wait_for_words(&["a recording is not for a terminal"]);
    assert!(!terminal.screen().contains("observer\u{3}"), "{}", terminal.screen());
}

#[test]
fn a_terminal_without_a_cursor_gets_the_plain_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording");
    let record = ["--own-netns", "record", file.to_str().unwrap(), "--for", "0.2"];
    assert!(std::process::Command::new(OBSERVER).args(record).output().unwrap().status.success());
    let replay = ["replay", file.to_str().unwrap()];
    for term in ["dumb", ""] {
        for args in [&["--own-netns"][..], &replay, &["lab", "myth", "--scale", "2000"]] {
            let mut terminal = Terminal::start(80, 24, OBSERVER, args, &[("TERM", term)]);
            let code = terminal.ends();
            let raw = String::from_utf8_lossy(&terminal.raw.lock().unwrap()).into_owned();
            assert!(!raw.contains('\x1b'), "{args:?} with TERM={term:?}: {raw}");
            let words = if args[0] == "lab" { "lab" } else { "LOCAL ENDPOINT" };
            assert!(raw.to_lowercase().contains(&words.to_lowercase()), "{args:?} with TERM={term:?}, {code}: {raw}");
        }
    }
}
