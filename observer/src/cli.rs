//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Live TCP connections of a Linux host by local endpoint, with the ports and file descriptors that are left.
///
/// Without a command it shows the live screen; where standard output is not a terminal, it prints what `snapshot` does.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit status: 0 done, 1 failure, 2 wrong usage.")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Write a log, with the diagnostics of the kernel side, to this file.
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach, scan, print what is there now, and exit.
    Snapshot(SnapshotArgs),
    /// Tell what this kernel can do for observer: exit status 0 if the main job can run, 1 if not.
    Doctor,
}

/// Choices of `observer snapshot`.
#[derive(Debug, Default, Args)]
pub struct SnapshotArgs {
    /// Print one JSON object (schema 1) instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What was asked for.
#[derive(Debug)]
pub enum Job {
    /// The live screen.
    Screen,
    /// One print.
    Snapshot(SnapshotArgs),
    /// The kernel's abilities.
    Doctor,
}

impl Cli {
    /// What was asked for, given whether standard output is a terminal.
    #[must_use]
    pub fn job(self, stdout_is_terminal: bool) -> Job {
        match self.command {
            Some(Command::Snapshot(args)) => Job::Snapshot(args),
            Some(Command::Doctor) => Job::Doctor,
            None if stdout_is_terminal => Job::Screen,
            None => Job::Snapshot(SnapshotArgs::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_terminal_plain_observer_prints_a_snapshot() {
        let parse = || Cli::parse_from(["observer"]);
        assert!(matches!(parse().job(true), Job::Screen));
        assert!(matches!(parse().job(false), Job::Snapshot(SnapshotArgs { json: false })));
    }
}
