//! Which subcommand a command line names, whether or not the rest of it makes sense: a monitoring plugin must answer a
//! wrong option in its own way.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// The first word that is neither an option nor an option's value. `None` where there is no such word.
pub(super) fn named<'a>(program: &Command, words: &'a [OsString]) -> Option<&'a OsStr> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        // What is not text is no option of ours.
        let text = word.to_str().unwrap_or_default();
        match text.strip_prefix("--") {
            Some("") => return words.next().map(OsString::as_os_str),
            Some(long) => {
                let option = program.get_arguments().find(|arg| arg.get_long() == Some(long));
                if option.is_some_and(takes_next_word) {
                    words.next();
                }
            }
            None if text.len() > 1 && text.starts_with('-') => {}
            None => return Some(word),
        }
    }
    None
}

/// Whether the option's value is a word of its own.
fn takes_next_word(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_subcommand_is_found_among_options_and_their_values() {
        let named = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            named(&Cli::command(), &words).map(|word| word.to_str().unwrap().to_owned())
        };
        for (line, expected) in [
            ("check --bogus", Some("check")),
            ("record check --bogus", Some("record")),
            ("--log-file check snapshot --bogus", Some("snapshot")),
            ("--log-file=check check --bogus", Some("check")),
            ("--config check check", Some("check")),
            ("--attach check", None),
            ("--own-netns check --warn 0", Some("check")),
            ("--mouse=false --theme pink check", Some("check")),
            ("--bogus check", Some("check")),
            ("-x check", Some("check")),
            ("-- check", Some("check")),
            ("help check", Some("help")),
            ("lab check", Some("lab")),
            ("explain check", Some("explain")),
            ("chec", Some("chec")),
            ("--help", None),
            ("", None),
        ] {
            assert_eq!(named(line).as_deref(), expected, "{line}");
        }
    }
}
