//! The command line's entry: errors are printed here, with the terminal restored, and become exit codes.

use std::{io, process::ExitCode};

use observer::{
    cli::Cli,
    errno,
    export::{self, check::Status},
    host::rights,
    lab, last_words, outlet,
    replay::WrongMoment,
    serve,
};

fn main() -> ExitCode {
    // Files that the user names are opened without them.
    rights::lower();
    // A lab and `serve` start their processes this way; the command line of users does not have it.
    if let Some(code) = lab::worker::run_if_asked().or_else(serve::run_if_asked) {
        return code;
    }
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let is_check = cli.is_check();
    if is_check {
        last_words::speak_at_abort();
    }
    match cli.run() {
        Ok(code) => code,
        Err(error) if is_check => {
            export::check::unknown(&errno::sentence(&error), &mut io::stdout()).unwrap_or(Status::Unknown).into()
        }
        // The reader of the output has closed it: no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            outlet::to_stderr(&format!("observer: {}\n", errno::sentence(&error)));
            if error.is::<WrongMoment>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}
