//! The command line: what it may say, and the command that runs. Each subcommand has a file with its arguments and
//! its `run`; the printing ones are a source ([`source::SourceArgs`]) and a renderer (`export`).

mod check;
mod lab;
mod limits;
mod record;
mod replay;
mod report;
mod serve;
mod snapshot;
mod source;
mod subcommand;
mod value;
mod watch;

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use self::{
    check::CheckArgs,
    lab::LabArgs,
    limits::LimitsArgs,
    record::RecordArgs,
    replay::ReplayArgs,
    report::ReportArgs,
    serve::ServeArgs,
    snapshot::{FormArgs, SnapshotArgs},
    watch::WatchArgs,
};
use crate::{
    attach,
    config::UserSettings,
    doctor, engine,
    export::check::{Status, unknown},
    frame::{Detail, FrameSource as _, RecordedSource},
    host,
    lab::explain::{self, Topic},
    logging,
    probe::plan::{self, ForcedMethod, ForcedMethods},
    screen, tui,
};

const AFTER_HELP: &str = "Settings can also stand in the environment, under the names in brackets, and in the file of --config, in TOML and \
    with _ in place of -: theme = \"light\". The command line overrides the environment, and the environment overrides \
    the file.\n\n\
    Exit status: 0 done, 1 failure, 2 wrong usage. check and lab have their own: see their help.";

/// Show the live TCP connections of a Linux host by local endpoint, with the ports and file descriptors that are left.
///
/// Without a command it shows the live screen. Where standard output is not a terminal, or is a terminal that cannot show a
/// screen (TERM is unset or "dumb"), it prints what `snapshot` prints.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Append a log, with the diagnostics of the kernel side, to this regular file.
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    #[arg(long = "attach", global = true, value_name = "HOOK=METHOD", help = attach_help())]
    methods: Vec<ForcedMethod>,
    /// Show the live screen of the `observer serve --attach-socket` at this Unix socket. Needs no rights but to connect, and loads no
    /// programs. Without rights to load them, observer tries /run/observer/attach.sock by itself.
    #[arg(long, value_name = "PATH")]
    attach_to: Option<PathBuf>,
    /// Read settings from this file instead of `observer/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`.
    #[arg(long, global = true, value_name = "FILE", env = "OBSERVER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Settings")]
    settings: UserSettings,
}

fn attach_help() -> String {
    format!("Attach a hook with this method only: {}. Give it once for each hook", plan::choices())
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Attach, scan, print what is there now, and exit.
    Snapshot(SnapshotArgs),
    /// Print a line of JSON at every interval: the object of `snapshot --json`.
    Watch(WatchArgs),
    /// Serve metrics to Prometheus and snapshots as JSON over HTTP, until Ctrl-C or SIGTERM.
    ///
    /// Paths: /metrics (OpenMetrics 1.0 or the text format 0.0.4, as the client accepts), /snapshot (the object of
    /// `snapshot --json`), /-/healthy, /-/ready, and / with links and the state of observer. HTTP has a process of its own,
    /// without capabilities, files and most system calls. It has neither TLS nor passwords: listen on loopback or on a Unix
    /// socket, and put a proxy in front of it where other hosts read.
    Serve(ServeArgs),
    /// Record everything that the kernel reports to a file, until Ctrl-C or SIGTERM; or a flight recorder with --keep.
    ///
    /// The file gets its name once the start has succeeded. From then on it contains everything but the last second,
    /// whatever ends observer. It contains addresses and processes of the whole host: only its owner can read it
    /// (mode 0600).
    ///
    /// With --keep or --max-bytes it is a flight recorder: a directory of segments within that time and these bytes, of which the
    /// oldest go. What was recorded around incidents is kept apart. `observer replay` and `observer report` read it.
    Record(RecordArgs),
    /// Show a recording, or what a recorder has kept, on the live screen, without root. Where standard output is no terminal, print
    /// its end.
    Replay(ReplayArgs),
    /// Print what a recorder's directory says about all the time that it has: incidents, peaks, failures and findings, with times.
    Report(ReportArgs),
    /// Print everything that can run out, the most urgent first: the source of each limit, how to raise it, and the risk.
    Limits(LimitsArgs),
    /// Check all limits as a monitoring plugin does: one line with performance data, and an exit status.
    ///
    /// Attaches, scans once, and prints one line: the status, the limits beyond a threshold (or else the fullest one), and
    /// behind a `|` the fullest limit of each kind as label=used;warn;crit;min;max. Thresholds there are the highest
    /// numbers that are still below --warn and --crit. Where there is no practical limit, the thresholds and the maximum
    /// are empty.
    ///
    /// Then come counters that only grow (unit c), for alerts on their rate: how often limits were hit, by the kernel's
    /// own count. accept_queue_hits is ListenOverflows, syn_queue_hits TCPReqQFullDrop + TCPReqQFullDoCookies (every SYN
    /// with tcp_syncookies=2), time_wait_hits TCPTimeWaitOverflow, tcp_memory_hits TCPAbortOnMemory (orphans included),
    /// conntrack_hits the connections that found the table full. They belong to the network namespace in which check
    /// runs (in a recording: to the host's own), since boot or since the namespace was made. A sum over all namespaces
    /// would fall with each that ends. For another namespace: ip netns exec NAME observer check --own-netns. The kernel
    /// does not count refused connect() calls and descriptors; a running observer does: see watch.
    #[command(after_help = check::STATUS)]
    Check(CheckArgs),
    /// Test a claim in a private network namespace. Without a name, list the labs.
    ///
    /// A lab compares the theory, what observer counts or predicts, and what the kernel then does. It changes nothing
    /// outside of the namespace, and leaves nothing behind.
    #[command(after_help = lab::STATUS)]
    Lab(LabArgs),
    /// Explain a lab or a limit with this host's numbers. Without a topic, list them.
    Explain {
        /// The name of a lab or a limit, as `observer explain` lists them.
        #[arg(value_parser = Topic::parse)]
        topic: Option<Topic>,
    },
    /// Check whether this kernel and these rights are ready for observer: exit status 0 if so, 1 if not.
    Doctor,
    /// Generate shell completions: bash, elvish, fish, powershell, zsh.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Generate the man page, in roff: `observer man | man -l -`.
    Man {
        /// Write this page and one for each subcommand into this folder, which exists.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
}

/// What every command may need.
struct Context {
    /// How a live engine runs.
    engine: engine::EngineOptions,
    /// How the screen looks.
    look: tui::Look,
    /// Whether standard output can show the screen.
    has_screen: bool,
}

/// Whether standard output can show the live screen: it is a terminal, and `term` (the environment's TERM) names one that
/// has a cursor to move.
#[must_use]
pub fn can_show_screen(stdout_is_terminal: bool, term: Option<&OsStr>) -> bool {
    let term = term.unwrap_or_default();
    stdout_is_terminal && !["", "dumb", "unknown"].iter().any(|name| term == *name)
}

impl Cli {
    /// Reads the command line and the settings. Prints what is wrong with them, and returns the exit code.
    pub fn read() -> Result<Self, ExitCode> {
        Self::try_parse().and_then(Self::with_settings).map_err(|error| {
            // Nothing is left to be done where the output is gone.
            let _ = error.print();
            let words: Vec<OsString> = env::args_os().skip(1).collect();
            if subcommand::named(&Self::command(), &words) != Some(OsStr::new("check")) {
                return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX));
            }
            if error.use_stderr() {
                let _ = unknown(&error.to_string(), &mut io::stdout());
            }
            Status::Unknown.into()
        })
    }

    fn with_settings(mut self) -> Result<Self, clap::Error> {
        let wrong = |words: String| clap::Error::raw(ErrorKind::ValueValidation, words + "\n");
        if let Some(Command::Check(args)) = &self.command {
            args.validate().map_err(wrong)?;
        }
        if let (Some(_), Some(command)) = (&self.attach_to, &self.command) {
            let advice = match command {
                Command::Snapshot(_) | Command::Watch(_) | Command::Limits(_) | Command::Check(_) => {
                    "it goes behind the name of the command"
                }
                _ => "only the live screen, snapshot, watch, limits and check read a service",
            };
            return Err(wrong(format!("--attach-to: {advice}")));
        }
        let file = UserSettings::read(self.config.as_deref()).map_err(|error| wrong(error.to_string()))?;
        self.settings = self.settings.or(file);
        Ok(self)
    }

    /// Whether failures are reported as a monitoring plugin reports them.
    #[must_use]
    pub const fn is_check(&self) -> bool {
        matches!(self.command, Some(Command::Check(_)))
    }

    /// Runs the command.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(path) = self.settings.proc() {
            host::proc::set_root(path)?;
        }
        let has_screen = can_show_screen(io::stdout().is_terminal(), env::var_os("TERM").as_deref());
        let log = logging::start(self.log_file.as_deref())?;
        let mut engine = self.settings.engine(ForcedMethods::new(self.methods.iter().copied()));
        engine.diagnostics = log.is_kept();
        let look = self.settings.look(|name| env::var_os(name));
        run(self.command, self.attach_to, &Context { engine, look, has_screen })
    }
}

/// What no command says: the live screen, or a table where there is no screen.
fn run_screen(attach_to: Option<PathBuf>, context: &Context) -> anyhow::Result<ExitCode> {
    let service = match attach_to {
        Some(path) => Some(crate::replay::connect(&path)?),
        None => attach::found(context.engine.watched)?,
    };
    match service {
        Some(service) if context.has_screen => attach::show(service, context.look),
        Some(service) => FormArgs::default().print(&RecordedSource::of_service(service)?.frame(Detail::TABLE)?),
        None if context.has_screen => screen::run(context.engine, context.look),
        None => SnapshotArgs::default().run(context),
    }
}

fn run(command: Option<Command>, attach_to: Option<PathBuf>, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        None => run_screen(attach_to, context),
        Some(Command::Snapshot(args)) => args.run(context),
        Some(Command::Watch(args)) => args.run(context),
        Some(Command::Serve(args)) => args.run(context),
        Some(Command::Record(args)) => args.run(context),
        Some(Command::Replay(args)) => args.run(context),
        Some(Command::Report(args)) => args.run(),
        Some(Command::Limits(args)) => args.run(context),
        Some(Command::Check(args)) => args.run(context),
        Some(Command::Lab(args)) => args.run(context),
        Some(Command::Explain { topic }) => {
            explain::print(topic, &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Doctor) => doctor::run(context.engine.methods, &mut io::stdout().lock()),
        Some(Command::Completions { shell }) => {
            // clap_complete panics where its writer fails.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "observer", &mut script);
            print(&script)
        }
        Some(Command::Man { folder: Some(folder) }) => {
            clap_mangen::generate_to(Cli::command(), &folder)
                .with_context(|| format!("write man pages into {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Man { folder: None }) => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&page)
        }
    }
}

/// Writes all of it to standard output.
fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
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
    fn a_terminal_without_a_cursor_has_no_screen() {
        let can = |term: &str| can_show_screen(true, Some(OsStr::new(term)));
        assert_eq!(["dumb", "", "unknown", "xterm-256color", "vt100"].map(can), [false, false, false, true, true]);
        assert!(!can_show_screen(true, None) && !can_show_screen(false, Some(OsStr::new("xterm"))));
    }
}
