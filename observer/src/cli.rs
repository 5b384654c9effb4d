//! The command line.

mod subcommand;

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use crate::{
    config::Settings,
    engine::Options,
    export::{
        check::{self, Thresholds},
        watch::Schedule,
    },
    lab::{self, Lab, explain::Topic},
    model::{limit::Limit, snapshot::EndpointRow},
    present::sort,
    probe::plan::{self, ForcedMethod, ForcedMethods},
    record, replay, tui,
};

const AFTER_HELP: &str = "Settings can also stand in the environment, under the names in brackets, and in the file of --config, in TOML and \
    with _ for -: theme = \"light\". The command line decides before the environment, and that before the file.\n\n\
    Exit status: 0 done, 1 failure, 2 wrong usage.";

/// Live TCP connections of a Linux host by local endpoint, with the ports and file descriptors that are left.
///
/// Without a command it shows the live screen. Where standard output is not a terminal, or one that cannot show a screen
/// (TERM is unset or "dumb"), it prints what `snapshot` does.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Write a log, with the diagnostics of the kernel side, to the end of this regular file.
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    #[arg(long = "attach", global = true, value_name = "HOOK=METHOD", help = attach_help())]
    methods: Vec<ForcedMethod>,
    /// Settings, in place of `observer/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`.
    #[arg(long, global = true, value_name = "FILE", env = "OBSERVER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Settings")]
    settings: Settings,
}

fn attach_help() -> String {
    format!("Attach a hook with this method only: {}. Give it once for each hook", plan::choices())
}

/// A threshold of `observer check`.
fn percent(text: &str) -> Result<u8, String> {
    text.trim_end_matches('%')
        .parse()
        .ok()
        .filter(|percent| (1..=100).contains(percent))
        .ok_or("not 1 to 100".to_owned())
}

/// A length of time, in seconds: at most a year, so that no clock overflows.
fn seconds(text: &str) -> Result<Duration, String> {
    let is_sane = |seconds: &f64| (0.0..=31_536_000.0).contains(seconds);
    text.parse().ok().filter(is_sane).map(Duration::from_secs_f64).ok_or("not a number of seconds".to_owned())
}

/// A length of time that is not too short to do something in it.
fn interval(text: &str) -> Result<Duration, String> {
    seconds(text).ok().filter(|time| *time >= Duration::from_millis(50)).ok_or("not 0.05 seconds or more".to_owned())
}

/// How much faster than it was.
fn speed(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|speed| (0.01..=1000.0).contains(speed)).ok_or("not 0.01 to 1000".to_owned())
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach, scan, print what is there now, and exit.
    Snapshot(SnapshotArgs),
    /// Print a line of JSON at every interval: the object that `snapshot --json` prints, for scripts.
    Watch(WatchArgs),
    /// Record all that the kernel reports to a file, until Ctrl-C or SIGTERM.
    ///
    /// The file has its name as soon as the start has succeeded, and from then on holds all but the last second, whatever
    /// ends observer. It holds addresses and processes of the whole host, so its owner alone can read it (mode 0600).
    Record(RecordArgs),
    /// Show a recording on the live screen, without root; where standard output is no terminal, print its end.
    Replay(ReplayArgs),
    /// Print everything that can run out, the most urgent first; where each limit comes from, how to raise it and what
    /// that risks; and how many connections there can be.
    Limits(LimitsArgs),
    /// Check all limits as a monitoring plugin does: one line with performance data, and an exit status.
    ///
    /// Attaches, scans once, and prints one line: the status, the limits that are as full as the thresholds (or else the
    /// fullest one), and behind a `|` the fullest limit of each kind as label=used;warn;crit;min;max. A threshold there
    /// is the highest number that is not yet one percent too much. Where there is no limit in practice the thresholds and the
    /// maximum are empty.
    ///
    /// After these come counters that only grow (unit c), so that monitoring can alert on their rate: how often limits were
    /// hit, by the kernel's own count. accept_queue_hits is ListenOverflows, syn_queue_hits TCPReqQFullDrop +
    /// TCPReqQFullDoCookies (every SYN with tcp_syncookies=2), time_wait_hits TCPTimeWaitOverflow, tcp_memory_hits
    /// TCPAbortOnMemory (orphans included), conntrack_hits the connections that found the table full. They are those of the
    /// network namespace in which check runs, since boot, or since that namespace was made: a sum over all namespaces would
    /// fall with each that ends. For another one: ip netns exec NAME observer check --own-netns. Refused connect() calls and
    /// descriptors are counted by nobody but a running observer: see watch.
    #[command(after_help = CHECK_STATUS)]
    Check(CheckArgs),
    /// Put a claim to the test in a private network namespace; without a name, list the labs.
    ///
    /// What the rule foretells, what observer counts or foretells, and what the kernel then does are compared. Nothing
    /// outside of the namespace is changed, and nothing is left behind.
    #[command(after_help = LAB_STATUS)]
    Lab(LabArgs),
    /// Explain what a lab shows or what can run out, with this host's numbers; without a topic, list them.
    Explain {
        /// The name of a lab or of a limit: `observer explain` names them.
        #[arg(value_parser = Topic::parse)]
        topic: Option<Topic>,
    },
    /// Tell what this kernel can do for observer: exit status 0 if the main job can run, 1 if not.
    Doctor,
    /// Print the completions of a shell, for its own folder of these: bash, elvish, fish, powershell, zsh.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, in roff: `observer man | man -l -`.
    Man,
}

/// Choices of `observer snapshot`.
#[derive(Debug, Default, Args)]
pub struct SnapshotArgs {
    /// Print one JSON object (schema 2) instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Sort the table by this field: time_wait, closed_per_second, ... (docs/metrics.md has all).
    #[arg(long, value_name = "ID", value_parser = sort::parse::<EndpointRow>, conflicts_with = "json")]
    pub sort: Option<&'static str>,
}

/// Choices of `observer watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// From one line to the next.
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// End after as many lines.
    #[arg(short = 'n', value_name = "COUNT")]
    count: Option<u64>,
}

/// Choices of `observer record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The recording; `-` is standard output (`./-` a file of that name).
    file: PathBuf,
    /// End after as many seconds.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    length: Option<Duration>,
    /// Replace a regular file that is there. Links, devices and folders are never replaced.
    #[arg(long)]
    force: bool,
}

/// Choices of `observer replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The recording; `-` is standard input, which is read to its end first.
    file: PathBuf,
    /// How much faster than it was recorded the screen moves.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
    speed: f64,
    /// Where the screen begins, in seconds since the start of the recording.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    from: Duration,
    /// Print the end of the recording as `snapshot --json` does.
    #[arg(long)]
    json: bool,
}

const CHECK_STATUS: &str = "Exit status, as the Monitoring Plugins Development Guidelines have it: 0 OK, 1 WARNING, \
    2 CRITICAL, 3 UNKNOWN (also for limits that could not be read, wrong usage, missing rights, and this help).";

/// Choices of `observer limits`.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// Print one JSON object (schema 2) instead of text.
    #[arg(long)]
    pub json: bool,
    /// Sort the table by this field: ratio, used, seconds_to_full, ... (docs/metrics.md has all).
    #[arg(long, value_name = "ID", value_parser = sort::parse::<Limit>, conflicts_with = "json")]
    pub sort: Option<&'static str>,
}

/// Choices of `observer check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Warn of a limit that is as full as this.
    #[arg(long, short, value_name = "PERCENT", default_value = "80", value_parser = percent)]
    warn: u8,
    /// A limit that is as full as this is critical.
    #[arg(long, short, value_name = "PERCENT", default_value = "95", value_parser = percent)]
    crit: u8,
}

const LAB_STATUS: &str =
    "Exit status: 0 the claim was borne out, 1 it was not (or the lab could not run), 2 wrong usage.";

/// Choices of `observer lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// Which one: `observer lab` names them.
    #[arg(value_parser = lab::parse)]
    name: Option<&'static Lab>,
    /// Tell it line by line, without the live screen beside it; so it is where standard output is no terminal.
    #[arg(long, requires = "name", conflicts_with = "json")]
    plain: bool,
    /// Print the verdict alone, as one JSON object (schema 2).
    #[arg(long, requires = "name")]
    json: bool,
    /// Wait for a key before each step: `n` on the screen, Enter without it.
    #[arg(long, requires = "name", conflicts_with = "json")]
    step: bool,
    /// Hold at most so many connections at a time.
    #[arg(long, requires = "name", value_name = "CONNECTIONS")]
    scale: Option<u32>,
    /// Record what observer sees to this new file, for `observer replay`.
    #[arg(long, requires = "name", value_name = "FILE")]
    record: Option<PathBuf>,
}

impl LabArgs {
    fn job(self, engine: Options, has_screen: bool) -> Job {
        let Self { name, plain, json, step, scale, record } = self;
        let Some(lab) = name else { return Job::Labs };
        let form = match (json, plain || !has_screen) {
            (true, _) => lab::Form::Json,
            (false, true) => lab::Form::Plain,
            (false, false) => lab::Form::Screen,
        };
        Job::Lab(Box::new(lab::Options { lab, form, waits: step, scale, record, engine }))
    }
}

/// Whether standard output can show the live screen: it is a terminal, and `term` (the environment's TERM) names one that
/// has a cursor to move.
#[must_use]
pub fn can_show_screen(stdout_is_terminal: bool, term: Option<&OsStr>) -> bool {
    let term = term.unwrap_or_default();
    stdout_is_terminal && !["", "dumb", "unknown"].iter().any(|name| term == *name)
}

/// What was asked for.
#[derive(Debug)]
pub enum Job {
    /// The live screen.
    Screen,
    /// One print.
    Snapshot(SnapshotArgs),
    /// Print after print.
    Watch(Schedule),
    /// A recording.
    Record(record::Options),
    /// The live screen, from a recording.
    ReplayScreen(replay::Options),
    /// One print, from a recording.
    ReplayPrint(replay::Options, SnapshotArgs),
    /// The limits and the arithmetic.
    Limits(LimitsArgs),
    /// A monitoring plugin's line.
    Check(Thresholds),
    /// The names of the labs.
    Labs,
    /// A lab.
    Lab(Box<lab::Options>),
    /// Theory.
    Explain(Option<Topic>),
    /// The kernel's abilities.
    Doctor,
    /// What a shell completes.
    Completions(Shell),
    /// The manual page.
    Man,
}

impl Cli {
    /// Reads the command line; what is wrong with it is said, and becomes an exit code.
    pub fn read() -> Result<Self, ExitCode> {
        let cli = Self::try_parse().and_then(|mut cli| match &cli.command {
            Some(Command::Check(CheckArgs { warn, crit })) if warn > crit => {
                let words = format!("--warn {warn} is above --crit {crit}\n");
                Err(clap::Error::raw(ErrorKind::ValueValidation, words))
            }
            _ => {
                let file = Settings::read(cli.config.as_deref());
                let file = file.map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")))?;
                cli.settings = std::mem::take(&mut cli.settings).or(file);
                Ok(cli)
            }
        });
        cli.map_err(|error| {
            // Nothing is left to be done where the output is gone.
            let _ = error.print();
            let words: Vec<OsString> = env::args_os().skip(1).collect();
            if subcommand::named(&Self::command(), &words) != Some(OsStr::new("check")) {
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX));
            }
            if error.use_stderr() {
                let _ = check::unknown(&error.to_string(), &mut io::stdout());
            }
            check::Status::Unknown.into()
        })
    }

    /// Whether failures are told as a monitoring plugin tells them.
    #[must_use]
    pub const fn is_check(&self) -> bool {
        matches!(self.command, Some(Command::Check(_)))
    }

    /// How the engine is to run; diagnostics are the logger's to switch on.
    #[must_use]
    pub fn options(&self) -> Options {
        self.settings.engine(ForcedMethods::new(self.methods.iter().copied()))
    }

    /// Where processes are read, if not in /proc.
    #[must_use]
    pub fn proc(&self) -> Option<&Path> {
        self.settings.proc()
    }

    /// How the screen is to look.
    #[must_use]
    pub fn screen_options(&self) -> tui::Options {
        self.settings.look(|name| env::var_os(name))
    }

    /// What was asked for, given whether standard output can show the screen ([`can_show_screen`]).
    #[must_use]
    pub fn job(self, has_screen: bool) -> Job {
        let options = self.options();
        match self.command {
            Some(Command::Snapshot(args)) => Job::Snapshot(args),
            Some(Command::Watch(WatchArgs { interval, count })) => Job::Watch(Schedule { interval, count }),
            Some(Command::Record(RecordArgs { file, length, force })) => {
                Job::Record(record::Options { file, length, replaces: force })
            }
            Some(Command::Replay(ReplayArgs { file, speed, from, json })) => {
                let options = replay::Options { file, speed, from };
                if has_screen && !json {
                    Job::ReplayScreen(options)
                } else {
                    Job::ReplayPrint(options, SnapshotArgs { json, sort: None })
                }
            }
            Some(Command::Limits(args)) => Job::Limits(args),
            Some(Command::Check(CheckArgs { warn, crit })) => Job::Check(Thresholds { warn, crit }),
            Some(Command::Lab(args)) => args.job(options, has_screen),
            Some(Command::Explain { topic }) => Job::Explain(topic),
            Some(Command::Doctor) => Job::Doctor,
            Some(Command::Completions { shell }) => Job::Completions(shell),
            Some(Command::Man) => Job::Man,
            None if has_screen => Job::Screen,
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
        assert!(matches!(parse().job(false), Job::Snapshot(SnapshotArgs { json: false, sort: None })));
    }

    #[test]
    fn a_terminal_without_a_cursor_has_no_screen() {
        let can = |term: &str| can_show_screen(true, Some(OsStr::new(term)));
        assert_eq!(["dumb", "", "unknown", "xterm-256color", "vt100"].map(can), [false, false, false, true, true]);
        assert!(!can_show_screen(true, None) && !can_show_screen(false, Some(OsStr::new("xterm"))));
    }
}
