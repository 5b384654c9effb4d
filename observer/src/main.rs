//! The command line's entry: errors are printed here, with the terminal restored, and become exit codes.

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
};

use clap::CommandFactory as _;
use observer::{
    cli::{Cli, Job},
    doctor,
    export::{self, check::Status},
    host, lab, logging, record, replay, screen,
};

fn main() -> ExitCode {
    // Nobody types this: it is no part of the command line that people see.
    if let Some(code) = lab::worker::run_if_asked() {
        return code;
    }
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let is_check = cli.is_check();
    match run(cli) {
        Ok(code) => code,
        Err(error) if is_check => {
            export::check::unknown(&format!("{error:#}"), &mut io::stdout()).unwrap_or(Status::Unknown).into()
        }
        // The reader of our output has seen enough: that is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done where even standard error is gone.
            let _ = writeln!(io::stderr(), "observer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut options = cli.options();
    if let Some(path) = cli.proc() {
        host::proc::set_root(path)?;
    }
    let (log_file, look) = (cli.log_file.clone(), cli.screen_options());
    let job = cli.job(io::stdout().is_terminal());
    options.diagnostics = logging::start(log_file.as_deref())?;
    match job {
        Job::Screen => return screen::run(options, look),
        Job::Snapshot(args) => export::print(options, args.json, &mut io::stdout().lock())?,
        Job::Watch(schedule) => export::watch::run(options, schedule, &mut io::stdout().lock())?,
        Job::Record(record) => record::run(options, &record, &mut io::stderr())?,
        Job::ReplayScreen(replay) => return replay::show(replay, look),
        Job::ReplayPrint(replay, args) => replay::print(&replay.file, args.json, &mut io::stdout().lock())?,
        Job::Limits(args) => export::limits::print(options, args.json, &mut io::stdout().lock())?,
        Job::Check(thresholds) => {
            return Ok(export::check::run(options, thresholds, &mut io::stdout().lock())?.into());
        }
        Job::Labs => lab::list(&mut io::stdout().lock())?,
        Job::Lab(mut lab) => {
            lab.engine.diagnostics = options.diagnostics;
            return lab::run(*lab, look, io::stdout());
        }
        Job::Explain(topic) => lab::explain::print(topic, &mut io::stdout().lock())?,
        Job::Doctor => return doctor::run(options.rungs, &mut io::stdout().lock()),
        Job::Completions(shell) => {
            clap_complete::generate(shell, &mut Cli::command(), "observer", &mut io::stdout().lock());
        }
        Job::Man => clap_mangen::Man::new(Cli::command()).render(&mut io::stdout().lock())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}
