//! What a guest says on its console, and what that amounts to. The lines for the host are written by `init`.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail};

/// How much of the console an error shows: the report of a kernel that panics has 70 lines and more, and its cause stands first.
const SHOWN_LINES: usize = 120;

/// How the machine came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself: powered off, or restarted by a panic.
    ByItself,
    /// Stopped from here: nothing was printed for this long.
    Silent(Duration),
    /// Stopped from here: it ran for this long.
    OutOfTime(Duration),
}

/// The console up to now.
#[derive(Debug, Default)]
pub(crate) struct Console {
    last_lines: VecDeque<String>,
    job: Option<String>,
    test: Option<String>,
    /// What the kernel said when it gave up.
    panic: Option<String>,
    finished: bool,
    /// The exit code of each job that ended.
    results: Vec<(String, i32)>,
    /// What tests found out about the kernel.
    pub(crate) facts: Vec<String>,
    /// What tests that could not run said.
    pub(crate) skipped: Vec<String>,
}

impl Console {
    /// Takes note of a line; returns what of it to show to people.
    pub(crate) fn line(&mut self, line: &str) -> Option<String> {
        if let Some(at) = line.find("Kernel panic - not syncing") {
            self.panic = Some(line[at..].to_owned());
        }
        if self.last_lines.len() == SHOWN_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(line.to_owned());

        // A test that dies leaves its line unfinished: ours may start in the middle.
        let Some((kind, rest)) =
            line.find("VM-").and_then(|at| line[at + 3..].split_once(' ').or(Some((&line[at + 3..], ""))))
        else {
            self.test = running_test(line).or(self.test.take());
            return (!self.finished || self.panic.is_some()).then(|| line.to_owned());
        };
        match kind {
            "READY" => return Some(format!("Linux {rest}")),
            "JOB" => {
                self.job = Some(rest.to_owned());
                return Some(format!("job {rest}"));
            }
            "RESULT" => {
                self.test = None;
                let (name, code) = rest.rsplit_once(' ')?;
                self.results.push((name.to_owned(), code.parse().ok()?));
                return Some(format!("job {name}: exit code {code}"));
            }
            "FACT" => self.facts.push(rest.to_owned()),
            "SKIPPED" => {
                self.skipped.push(rest.to_owned());
                return Some(rest.to_owned());
            }
            "EXIT" => self.finished = true,
            _ => return Some(line.to_owned()),
        }
        None
    }

    /// Takes note of a line that has no end yet: where a test hangs, its name stands in it.
    pub(crate) fn unfinished(&mut self, line: &str) {
        self.test = running_test(line).or(self.test.take());
    }

    /// Fails unless every one of `jobs` ran and ended with code 0, and the machine with them.
    pub(crate) fn verdict(&self, end: End, jobs: &[&str]) -> Result<()> {
        let tail = self.tail();
        let during = self.during();
        if let Some(panic) = &self.panic {
            bail!("the kernel panicked{during}: {panic}{tail}");
        }
        match end {
            End::Silent(time) => bail!("hung{during}: nothing printed for {} s{tail}", time.as_secs()),
            End::OutOfTime(time) => bail!("stopped{during}: not done after {} s{tail}", time.as_secs()),
            End::ByItself if !self.finished => bail!("ended without a verdict{during}{tail}"),
            End::ByItself => {}
        }
        let mut failed = Vec::new();
        for &job in ["setup"].iter().chain(jobs) {
            match self.results.iter().find(|(name, _)| name == job) {
                Some((_, 0)) => {}
                Some((_, code)) => failed.push(format!("job {job} failed with exit code {code}")),
                None => failed.push(format!("job {job} has no verdict")),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("{}", failed.join(", "))
    }

    fn during(&self) -> String {
        let is_over = |job: &String| self.results.iter().any(|(name, _)| name == job);
        let job = self.job.as_ref().filter(|job| !is_over(job)).map(|job| format!(" in job {job}"));
        let test = self.test.as_ref().map(|test| format!(", test {test}"));
        [job, test].into_iter().flatten().collect()
    }

    fn tail(&self) -> String {
        let lines: Vec<_> = self.last_lines.iter().map(|line| format!("\n    {line}")).collect();
        format!("; the last lines of its console:{}", lines.concat())
    }
}

/// The test that libtest has started by this line and not ended: with one thread it prints the name first.
fn running_test(line: &str) -> Option<String> {
    let (name, _) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for line in lines {
            console.line(line);
        }
        console
    }

    const START: [&str; 4] = ["VM-READY 6.1.0", "VM-JOB setup", "VM-RESULT setup 0", "VM-JOB live"];

    fn error(console: &Console, end: End) -> String {
        format!("{:#}", console.verdict(end, &["live"]).unwrap_err())
    }

    #[test]
    fn every_job_needs_its_verdict() {
        let mut console = console(&START);
        assert!(error(&console, End::ByItself).starts_with("ended without a verdict in job live"));
        console.line("VM-EXIT");
        assert_eq!(error(&console, End::ByItself), "job live has no verdict");
        console.line("VM-RESULT live 0");
        console.verdict(End::ByItself, &["live"]).unwrap();
    }

    #[test]
    fn a_verdict_may_follow_an_unfinished_line() {
        let mut console = console(&START);
        console.line("test churn::counts_are_exact ... VM-RESULT live 134");
        console.line("VM-EXIT");
        assert_eq!(error(&console, End::ByItself), "job live failed with exit code 134");
    }

    #[test]
    fn the_test_that_hangs_is_named() {
        let mut console = console(&START);
        console.line("test ports::one ... ok");
        console.unfinished("test ports::other ... ");
        let reported = error(&console, End::Silent(Duration::from_mins(1)));
        assert!(reported.starts_with("hung in job live, test ports::other: nothing printed for 60 s"), "{reported}");
    }

    #[test]
    fn a_panic_after_the_last_verdict_is_one() {
        let mut console = console(&START);
        for line in ["VM-RESULT live 0", "VM-EXIT", "Kernel panic - not syncing: Attempted to kill init!"] {
            console.line(line);
        }
        assert!(
            error(&console, End::ByItself).starts_with("the kernel panicked: Kernel panic - not syncing: Attempted")
        );
    }

    #[test]
    fn facts_and_skipped_tests_are_kept() {
        let console = console(&["VM-FACT hook=accept method=fexit", "VM-SKIPPED SKIPPED a::test: why"]);
        assert_eq!(console.facts, ["hook=accept method=fexit"]);
        assert_eq!(console.skipped, ["SKIPPED a::test: why"]);
    }
}
