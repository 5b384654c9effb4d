//! The tools that are compared: observer, and what people use today.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::load::{EVENTS_PER_CONNECTION, PORTS};
use super::observer::{self, Watch};
use super::running::{Running, wait_until};
use crate::apt::Need;

/// What the peers are in.
pub(super) const NEEDS: [Need; 4] = [
    Need { packages: &["libbpf-tools"], purpose: "tcpstates and tcplife, to compare with" },
    Need { packages: &["bpfcc-tools"], purpose: "tcpstates-bpfcc and tcplife-bpfcc, to compare with" },
    Need { packages: &["bpftrace"], purpose: "counts in the kernel, to compare with" },
    Need { packages: &["iproute2"], purpose: "`ss`, to compare with" },
];

/// From when a tool holds its links until they are all attached.
const SETTLE: Duration = Duration::from_millis(500);

/// What runs beside the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Screen,
    Watch,
    /// A peer that prints lines: its program, and how many of them each connection must give.
    Lines {
        program: &'static str,
        package: &'static str,
        per_connection: u32,
    },
    /// A count in the kernel, printed at its end.
    Bpftrace,
}

impl Tool {
    pub(super) const ALL: [Self; 7] = [
        Self::Screen,
        Self::Watch,
        Self::Bpftrace,
        Self::Lines { program: "tcplife", package: "libbpf-tools", per_connection: 2 },
        Self::Lines { program: "tcpstates", package: "libbpf-tools", per_connection: EVENTS_PER_CONNECTION },
        Self::Lines { program: "tcplife-bpfcc", package: "bpfcc-tools", per_connection: 2 },
        Self::Lines { program: "tcpstates-bpfcc", package: "bpfcc-tools", per_connection: EVENTS_PER_CONNECTION },
    ];

    pub(super) fn name(self) -> String {
        match self {
            Self::Screen => "observer, live screen".to_owned(),
            Self::Watch => "observer watch".to_owned(),
            Self::Lines { program, package, .. } => format!("{program} ({package})"),
            Self::Bpftrace => "bpftrace, count in the kernel".to_owned(),
        }
    }

    /// Starts it and waits until it observes. `folder` is for what it prints.
    pub(super) fn start(self, folder: &Path) -> Result<Started> {
        let files = Files { out: folder.join("out"), err: folder.join("err") };
        let started = match self {
            Self::Screen => Observing::Screen(observer::screen()?.look_away()?),
            Self::Watch => Observing::Watch(Watch::start(folder)?),
            Self::Lines { program, per_connection, .. } => match files.start(&mut Command::new(program))? {
                Ok(running) => Observing::Peer { running, per_connection, name: self.name() },
                Err(refusal) => return Ok(Started::Refused(refusal)),
            },
            Self::Bpftrace => match files.start(Command::new("bpftrace").args(["-e", &count_in_kernel()]))? {
                Ok(running) => Observing::Peer { running, per_connection: EVENTS_PER_CONNECTION, name: self.name() },
                Err(refusal) => return Ok(Started::Refused(refusal)),
            },
        };
        Ok(Started::Running(Box::new(Instrument { observing: started, files })))
    }
}

fn count_in_kernel() -> String {
    let ports = PORTS.map(|port| format!("args->sport == {port} || args->dport == {port}")).join(" || ");
    // 7 is CLOSE and 10 LISTEN: the listeners come and go too.
    let of_connection = "args->newstate != 10 && (args->oldstate != 10 || args->newstate != 7)";
    format!("tracepoint:sock:inet_sock_set_state /({ports}) && {of_connection}/ {{ @ = count(); }}")
}

/// What became of a start.
pub(super) enum Started {
    Running(Box<Instrument>),
    /// In the tool's words.
    Refused(String),
}

/// A tool that observes.
pub(super) struct Instrument {
    observing: Observing,
    files: Files,
}

enum Observing {
    Screen(Running),
    Watch(Watch),
    Peer { running: Running, per_connection: u32, name: String },
}

/// What a tool has to say about its own losses, and what is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// Events that it says it has lost; `None` where it says nothing of the kind.
    pub(super) own: Option<u64>,
    /// Missed runs of its programs: the kernel skipped them because the same program was running on that CPU. `None` where
    /// the kernel does not report them.
    pub(super) missed_runs: Option<u64>,
    /// Events, lines or opened connections that are not there, or too many.
    pub(super) missing: u64,
    /// Counts at the end that are not what `ss` says; `None` where it has no such counts.
    pub(super) wrong: Option<u64>,
}

impl Instrument {
    pub(super) fn running(&self) -> &Running {
        match &self.observing {
            Observing::Screen(running) | Observing::Peer { running, .. } => running,
            Observing::Watch(watch) => &watch.running,
        }
    }

    /// Ends it, and asks what it missed of so many connections.
    pub(super) fn finish(self, connections: u32) -> Result<Account> {
        match self.observing {
            Observing::Screen(_) => Ok(Account::default()),
            Observing::Watch(watch) => {
                let document = watch.next()?;
                let wrong = settled_difference(&watch, document.clone())?;
                let lost = observer::number(&document, "/quality/lost_total")?;
                // A kernel before 5.12 does not report them.
                let missed_runs = observer::number(&document, "/quality/missed_total").ok();
                let opened = observer::number(&document, "/totals/opened_total")?;
                let missing = opened.abs_diff(2 * u64::from(connections));
                Ok(Account { own: Some(lost), missed_runs, missing, wrong: Some(wrong) })
            }
            Observing::Peer { mut running, per_connection, name } => {
                running.interrupt(&name)?;
                let printed = fs::read_to_string(&self.files.out).context("read what a tool printed")?;
                let complaints = fs::read_to_string(&self.files.err).context("read what a tool complained of")?;
                let seen = counted(&printed).unwrap_or_else(|| lines_of_load(&printed));
                let due = u64::from(connections) * u64::from(per_connection);
                Ok(Account {
                    own: Some(lost(&complaints)),
                    missed_runs: None,
                    missing: seen.abs_diff(due),
                    wrong: None,
                })
            }
        }
    }
}

/// Sockets counted otherwise than by `ss`, once the load's last changes have been reported.
fn settled_difference(watch: &Watch, mut document: Value) -> Result<u64> {
    for _ in 0..4 {
        let truth = observer::states_of_ss()?;
        if observer::difference(&observer::states(&document)?, &truth) == 0 {
            return Ok(0);
        }
        document = watch.next()?;
    }
    Ok(observer::difference(&observer::states(&document)?, &observer::states_of_ss()?))
}

/// Where a peer prints: to files, which cost it less than a terminal would.
struct Files {
    out: PathBuf,
    err: PathBuf,
}

impl Files {
    /// Starts a peer and waits until its hooks are attached; otherwise returns what it says.
    fn start(&self, command: &mut Command) -> Result<Result<Running, String>> {
        command.stdin(Stdio::null()).stdout(File::create(&self.out)?).stderr(File::create(&self.err)?);
        let mut running = Running::start(command)?;
        let mut ended = false;
        wait_until("hooks of a tool", || {
            ended = running.has_ended()?;
            Ok(ended || holds_links(&running))
        })?;
        if !ended {
            thread::sleep(SETTLE);
            ended = running.has_ended()?;
        }
        if !ended {
            return Ok(Ok(running));
        }
        let words = fs::read_to_string(&self.out)? + &fs::read_to_string(&self.err)?;
        // modprobe is asked for what the tool can do without, or complains of next.
        let is_reason = |line: &&str| !line.trim().is_empty() && !line.starts_with("modprobe:");
        let reason = words.lines().find(is_reason).unwrap_or("it ended without a word");
        Ok(Err(reason.trim().chars().take(110).collect()))
    }
}

/// Whether it has programs and what attaches them among its descriptors.
fn holds_links(running: &Running) -> bool {
    let Ok(descriptors) = fs::read_dir(running.proc("fd")) else { return false };
    let names = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    let has = |kinds: &[&str]| names.iter().any(|name| kinds.iter().any(|kind| name.contains(kind)));
    has(&["bpf-prog"]) && has(&["bpf_link", "bpf-link", "[perf_event]"])
}

/// The one count of a bpftrace program, such as `@: 32`.
fn counted(printed: &str) -> Option<u64> {
    printed.lines().find_map(|line| line.strip_prefix("@: ")?.trim().parse().ok())
}

/// Lines with a port of the load in a column of their own, but for the beginning and the end of its listeners.
fn lines_of_load(printed: &str) -> u64 {
    let ports = PORTS.map(|port| port.to_string());
    let is_of_load = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_listener = |step: &[&str]| matches!(step, ["CLOSE", "->", "LISTEN"] | ["LISTEN", "->", "CLOSE"]);
        words.iter().any(|word| ports.iter().any(|port| port == word)) && !words.windows(3).any(is_listener)
    };
    printed.lines().filter(is_of_load).map(|_| 1).sum()
}

/// The sum of all "lost N events" and the like.
fn lost(complaints: &str) -> u64 {
    let mut words = complaints.split(|c: char| !c.is_alphanumeric());
    let mut sum = 0;
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("lost") {
            sum += words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_summed_in_whatever_words() {
        assert_eq!(lost("lost 12 events on CPU #1!\nPossibly lost 3 samples\nLost 4 events\n"), 19);
        assert_eq!(lost("nothing was lost"), 0);
    }

    #[test]
    fn only_the_loads_lines_count() {
        let printed = "\
            ff01 1 load 0.0.0.0   47001 0.0.0.0   0     CLOSE       -> LISTEN      0.000\n\
            ff02 1 load 127.0.0.1 0     127.0.0.1 47001 CLOSE       -> SYN_SENT    0.000\n\
            ff03 1 load 127.0.0.1 47001 127.0.0.1 4700  LISTEN      -> SYN_RECV    0.000\n\
            ff03 1 load 127.0.0.1 47001 127.0.0.1 4700  ESTABLISHED -> CLOSE_WAIT  0.000\n\
            ff04 1 else 127.0.0.1 80    127.0.0.1 4700  ESTABLISHED -> CLOSE_WAIT  0.000\n\
            ff01 1 load 0.0.0.0   47001 0.0.0.0   0     LISTEN      -> CLOSE       0.000\n";
        assert_eq!(lines_of_load(printed), 3);
        assert_eq!(counted("Attaching 1 probe...\n\n@: 320\n"), Some(320));
    }
}
