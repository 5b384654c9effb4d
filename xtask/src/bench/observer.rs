//! The observer under measurement: how it is built, started and asked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::running::{Running, wait_until};
use super::terminal::Terminal;
use crate::{process, workspace};

/// Words of a frame that is complete, after the first scan.
const FIRST_FRAME: [&str; 3] = ["observer", ", took ", "q quit"];

/// What is packaged, and not what `cargo build --release` gives: hosts run that.
const PROFILE: &str = "dist";

/// Beside `target/dist`, where packages are.
fn target_dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("bench-build"))
}

pub(super) fn build() -> Result<()> {
    let build = ["build", "--quiet", "--profile", PROFILE, "--locked", "--package", "observer", "--target-dir"];
    process::run(process::cargo().args(build).arg(target_dir()?))
}

/// It watches the namespace that it is started in, so that nothing else on the host is counted.
pub(super) fn command() -> Result<Command> {
    let mut command = of_host()?;
    command.arg("--own-netns");
    Ok(command)
}

/// It watches all of the host.
pub(super) fn of_host() -> Result<Command> {
    let mut command = Command::new(target_dir()?.join(PROFILE).join("observer"));
    // Settings of whoever measures are not measured.
    command.args(["--config", "/dev/null"]);
    Ok(command)
}

/// The live screen, after its first frame.
pub(super) fn screen() -> Result<Terminal> {
    let mut terminal = Terminal::start(&mut command()?)?;
    terminal.wait_for(&FIRST_FRAME)?;
    Ok(terminal)
}

/// `observer watch`, and where it writes.
pub(super) struct Watch {
    pub(super) running: Running,
    output: PathBuf,
}

impl Watch {
    /// Starts it, and waits for its first line.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        Self::start_of(command()?, folder)
    }

    /// The same of an observer that is started with these arguments.
    pub(super) fn start_of(mut command: Command, folder: &Path) -> Result<Self> {
        let output = folder.join("watch.json");
        command.args(["watch", "--interval", "0.5"]).stdin(Stdio::null()).stdout(File::create(&output)?);
        let watch = Self { running: Running::start(&mut command)?, output };
        wait_until("first line of observer", || Ok(watch.last_line()?.is_some()))?;
        Ok(watch)
    }

    /// The last line that is complete.
    pub(super) fn last_line(&self) -> Result<Option<String>> {
        let text = fs::read_to_string(&self.output).context("read what observer wrote")?;
        // What comes after the last line end is not complete.
        let complete = text.rsplit_once('\n').map(|(lines, _)| lines);
        Ok(complete.and_then(|lines| lines.lines().last()).map(str::to_owned))
    }

    fn lines(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.output)?.lines().count())
    }

    /// A line that was begun after this was called.
    pub(super) fn next(&self) -> Result<Value> {
        // The next one may be in the making.
        let enough = self.lines()? + 2;
        wait_until("next line of observer", || Ok(self.lines()? >= enough))?;
        let line = self.last_line()?.context("observer wrote nothing")?;
        serde_json::from_str(&line).context("read a line of observer")
    }
}

/// A number in a document, by its path.
pub(super) fn number(document: &Value, path: &str) -> Result<u64> {
    document.pointer(path).and_then(Value::as_u64).with_context(|| format!("{path} in what observer wrote"))
}

/// Sockets by state, in the words of `ss`.
pub(super) type States = BTreeMap<String, u64>;

/// The same of a document.
pub(super) fn states(document: &Value) -> Result<States> {
    let mut states = States::new();
    for row in document["endpoints"].as_array().context("no endpoints")? {
        for (state, count) in row["states"].as_object().context("no states")? {
            *states.entry(state.clone()).or_default() += count.as_u64().context("a count is no number")?;
        }
        if row["listening"] == true {
            *states.entry("listen".to_owned()).or_default() += 1;
        }
    }
    Ok(states)
}

/// The same from `ss`, whose names of states differ in case and hyphens.
pub(super) fn states_of_ss() -> Result<States> {
    let mut states = States::new();
    for line in process::stdout(Command::new("ss").arg("-Htan"))?.lines() {
        let state = match line.split_whitespace().next().context("an empty line of ss")? {
            "ESTAB" => "established".to_owned(),
            "SYN-RECV" => "syn_received".to_owned(),
            // Bound and no more: it has no row.
            "UNCONN" => continue,
            other => other.to_ascii_lowercase().replace('-', "_"),
        };
        *states.entry(state).or_default() += 1;
    }
    Ok(states)
}

/// The difference of two counts, summed over all states.
pub(super) fn difference(one: &States, other: &States) -> u64 {
    let count = |states: &States, state: &str| states.get(state).copied().unwrap_or_default();
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    names.into_iter().map(|state| count(one, state).abs_diff(count(other, state))).sum()
}

/// How long the last scan took, as the foot of the screen has it.
pub(super) fn scan_time(screen: &str) -> Result<f64> {
    let words = screen.rsplit_once(", took ").context("no scan on the screen")?.1;
    let mut words = words.split_whitespace();
    let (Some(number), Some(unit)) = (words.next(), words.next()) else {
        anyhow::bail!("no time of a scan");
    };
    let number: f64 = number.replace(',', "").parse().with_context(|| format!("time of a scan: {number}"))?;
    let seconds = match unit {
        "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        _ => anyhow::bail!("unit of a scan's time: {unit}"),
    };
    ensure!(seconds > 0.0, "a scan that took no time");
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foot_of_the_screen_shows_how_long_a_scan_took() {
        let foot = |took| format!("0 events/s │ lost 0 │ drift 0 │ last scan 0.4 s ago, took {took}   \nq quit");
        assert!((scan_time(&foot("3 ms")).unwrap() - 0.003).abs() < 1e-9);
        assert!((scan_time(&foot("1.2 s")).unwrap() - 1.2).abs() < 1e-9);
        assert!(scan_time("last scan").is_err());
    }

    #[test]
    fn counts_differ_by_what_either_lacks() {
        let states = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let one: States = states(&[("established", 5), ("listen", 1)]);
        assert_eq!(difference(&one, &states(&[("established", 3), ("time_wait", 4)])), 2 + 1 + 4);
        assert_eq!(difference(&one, &one), 0);
    }
}
