//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    engine::{Options, Watched},
    probe::plan::{ForcedRung, ForcedRungs},
};

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
    /// Watch only the network namespace in which observer is started, instead of all.
    #[arg(long, global = true)]
    own_netns: bool,
    /// Bytes of the ring buffer between kernel and observer: a power of two, at least 4096.
    #[arg(long, global = true, value_name = "BYTES", default_value_t = Options::RING_BYTES, value_parser = ring_bytes)]
    ring_bytes: u32,
    /// Attach a hook by this rung and no other, to find out what a kernel can do: connect=fentry|kprobe|state_hook,
    /// accept=fexit|kretprobe|syscall_tp. Can be given once for each hook.
    #[arg(long = "rung", global = true, value_name = "HOOK=RUNG")]
    rungs: Vec<ForcedRung>,
    /// Tell of EMFILE and ENFILE in every system call that makes descriptors, not only in socket and accept.
    #[arg(long, global = true)]
    every_fd_call: bool,
}

/// What the kernel takes for the size of a ring buffer.
fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|error| format!("{error}"))?;
    // `RINGBUF_MAX_DATA_SZ` of kernel/bpf/ringbuf.c leaves more than this; a page is at least 4 KiB.
    if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("not a power of two from 4096 to 1073741824".to_owned())
    }
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
    /// How the engine is to run; diagnostics are the logger's to switch on.
    #[must_use]
    pub fn options(&self) -> Options {
        let watched = if self.own_netns { Watched::Own } else { Watched::All };
        let rungs = ForcedRungs::new(self.rungs.iter().copied());
        Options { watched, ring_bytes: self.ring_bytes, rungs, every_fd_call: self.every_fd_call, ..Options::default() }
    }

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
