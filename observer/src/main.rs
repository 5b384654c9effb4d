//! The command line's entry: errors are printed here, with the terminal restored, and become exit codes.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::CommandFactory as _;
use observer::{
    cli::{self, Cli, Job},
    doctor, errno,
    export::{self, check::Status},
    host, lab, last_words, logging, outlet, record, replay, screen,
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
    if is_check {
        last_words::speak_at_abort();
    }
    match run(cli) {
        Ok(code) => code,
        Err(error) if is_check => {
            export::check::unknown(&errno::sentence(&error), &mut io::stdout()).unwrap_or(Status::Unknown).into()
        }
        // The reader of our output has seen enough: that is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            outlet::to_stderr(&format!("observer: {}\n", errno::sentence(&error)));
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
    let has_screen = cli::can_show_screen(io::stdout().is_terminal(), env::var_os("TERM").as_deref());
    let job = cli.job(has_screen);
    let log = logging::start(log_file.as_deref())?;
    options.diagnostics = log.is_kept();
    match job {
        Job::Screen => return screen::run(options, look),
        Job::Snapshot(args) => export::print(options, args.json, args.sort, &mut io::stdout().lock())?,
        Job::Watch(schedule) => export::watch::run(options, schedule, &mut io::stdout().lock())?,
        Job::Record(record) => outlet::to_stderr(&format!("observer: {}\n", record::run(options, &record)?)),
        Job::ReplayScreen(replay) => return replay::show(replay, look),
        Job::ReplayPrint(replay, args) => replay::print(&replay.file, args.json, &mut io::stdout().lock())?,
        Job::Limits(args) => export::limits::print(options, args.json, args.sort, &mut io::stdout().lock())?,
        Job::Check(thresholds) => {
            return Ok(export::check::run(options, thresholds, &mut io::stdout().lock())?.into());
        }
        Job::Labs => lab::list(&mut io::stdout().lock())?,
        Job::Lab(mut lab) => {
            lab.engine.diagnostics = options.diagnostics;
            return lab::run(*lab, look, io::stdout());
        }
        Job::Explain(topic) => lab::explain::print(topic, &mut io::stdout().lock())?,
        Job::Doctor => return doctor::run(options.methods, &mut io::stdout().lock()),
        Job::Completions(shell) => {
            // clap_complete panics where its writer fails.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "observer", &mut script);
            print(&script)?;
        }
        Job::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("write to standard output")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}
