//! `cargo xtask vm`: the live tests on Debian's kernels of several series, each in a virtual machine of its own.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tally::Tally;
use crate::{process, tools, workspace};

use arch::{Arch, X86_64};
use console::Console;
use guest::Programs;
use initramfs::Root;
use kernel::Kernel;
use qemu::{Limits, Machine};
use support::Facts;
use userland::Userland;

pub(crate) mod arch;
mod console;
mod debian;
pub(crate) mod guest;
mod initramfs;
mod kernel;
mod modules;
mod qemu;
mod support;
#[cfg(test)]
mod tests;
mod userland;

/// The kernels that every change is tested on: the oldest that the observer is for, the long-lived ones, the newest.
pub(crate) const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.3"];

/// Tests that cannot run on a kernel, and say so. Every other test must run there, and these must not: a test that finds
/// too little by mistake differs from a kernel that has too little.
const LACKING: [(&str, &str); 2] = [
    ("5.10", "fd_owners::every_subflow_of_a_multipath_connection_belongs_to_its_process"),
    ("5.10", "adversarial::protocols::multipath_connections_are_counted_by_their_subflows"),
];

/// Far above what a kernel takes, and still above it where the machine is shared with as much work again.
const LIMITS: Limits = Limits { total: Duration::from_mins(30), silence: Duration::from_mins(8) };

/// Shell commands for the guests; the first that fails ends it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) commands: String,
}

/// What is asked of `cargo xtask vm`.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) arch: &'static Arch,
    /// None are [`SERIES`].
    pub(crate) series: Vec<String>,
    pub(crate) kvm: bool,
    /// Write the page of what the kernels support in place of checking it.
    pub(crate) write_docs: bool,
    /// Arguments for the test binary, such as a part of a test's name.
    pub(crate) test_args: Vec<String>,
    /// Every test on every kernel, in place of those that a kernel can make a difference to.
    pub(crate) all_tests: bool,
}

impl Default for Request {
    /// What every change is tested by.
    fn default() -> Self {
        Self {
            arch: &X86_64,
            series: Vec::new(),
            kvm: false,
            write_docs: false,
            test_args: Vec::new(),
            all_tests: false,
        }
    }
}

/// Kernels, and what the guests that boot them have in common.
pub(crate) struct Guests {
    kernels: Vec<Kernel>,
    userland: Userland,
    programs: Programs,
    machine: Machine,
    request: Request,
    /// Whether every test of every kernel is to run.
    is_whole: bool,
}

/// What a kernel's run came to.
struct Report<'a> {
    kernel: &'a Kernel,
    tally: Tally,
    console: Console,
    verdict: Result<()>,
    took: Duration,
}

/// Gets the kernels asked for and all that they need to run: nothing is installed, fetched or compiled after it.
pub(crate) fn prepare(request: &Request) -> Result<Guests> {
    let Request { arch, kvm, .. } = *request;
    let is_whole = request.series.is_empty() && request.test_args.is_empty() && arch.is_native();
    ensure!(is_whole || !request.write_docs, "the page of what kernels support is made of all tests on all kernels");
    tools::for_vms(arch)?;
    let mut series = request.series.clone();
    if series.is_empty() {
        series = SERIES.map(str::to_owned).into();
    }
    let kernels = kernel::newest(&series, arch)?;
    Ok(Guests {
        kernels,
        userland: Userland::of(arch)?,
        programs: guest::build(arch)?,
        machine: Machine { arch, kvm, limits: LIMITS, is_background: true },
        request: request.clone(),
        is_whole,
    })
}

impl Report<'_> {
    /// What is wrong with it, `is_whole` if every test was to run.
    fn failure(&self, is_whole: bool) -> Option<String> {
        let series = &self.kernel.series;
        if let Err(error) = &self.verdict {
            return Some(format!("on Linux {series}: {error:#}"));
        }
        let lacking = LACKING.iter().filter(|(lacking, _)| lacking == series).map(|&(_, test)| test);
        skipped_unlike(&self.console.skipped, &lacking.collect::<Vec<_>>(), is_whole)
            .map(|difference| format!("on Linux {series}: {difference}"))
    }

    fn facts(&self) -> Facts<'_> {
        Facts { kernel: self.kernel, lines: &self.console.facts }
    }
}

/// The first difference between the lines `SKIPPED <test>: <why>` and the tests that are to be skipped.
fn skipped_unlike(lines: &[String], expected: &[&str], is_whole: bool) -> Option<String> {
    let test_of = |line: &str| Some(line.strip_prefix("SKIPPED ")?.split_once(": ")?.0.to_owned());
    let tests: Vec<_> = lines.iter().map(|line| test_of(line).unwrap_or_else(|| line.clone())).collect();
    if let Some(line) = lines.iter().zip(&tests).find(|(_, test)| !expected.contains(&test.as_str())) {
        return Some(format!("this must run there: {}", line.0));
    }
    let ran = expected.iter().find(|&&test| is_whole && !tests.iter().any(|skipped| skipped == test))?;
    Some(format!("{ran} is known to be skipped there, and was not"))
}

/// What each job forces, beside the tests that every kernel runs with it. Whether a method works at all is for the tests of
/// `attach_methods` to try.
const JOBS: [(&str, &str); 3] = [
    ("preferred", ""),
    ("probes", "connect=kprobe,accept=kretprobe"),
    ("tracepoints", "state=raw_tp,destroy=raw_tp,connect=state_hook,accept=syscall_tp,failures=syscall_tp"),
];

/// Tests whose truth an attach method can touch. libtest looks for these anywhere in a name, `fd_owners::` included.
const METHOD_TESTS: &str = "acceptors:: connections:: owners:: refusals:: counts_are_exact_after_churn";
const NO_METHOD_TESTS: &str = "--skip fd_owners:: --skip port_owners::";
/// Of these, the ones that connect and accept have a part in: all that kprobes are used for.
const PROBE_TESTS: &str = "acceptors:: by_events_alone owners::each counts_are_exact_after_churn";

/// What the preferred methods have to show beyond [`METHOD_TESTS`], by what a kernel does unlike the one that `cargo xtask
/// test` runs on (6.18), where every test runs too. What reads /proc alone, or tests the program rather than its numbers,
/// is the same on all of them. `cargo xtask vm --all-tests` runs everything everywhere.
const KERNEL_TESTS: [(&str, &str); SERIES.len()] = [
    // The oldest: nothing of what came since, neither fields nor helpers.
    ("5.10", EVERYTHING_COUNTED),
    // Bind buckets with an address of their own, and no range of a socket yet.
    ("6.1", PORTS),
    // Ranges of a socket (6.3), and no `tcp_tw_reuse_delay` yet (6.14).
    ("6.12", PORTS_AND_RANGES),
    // The same as outside.
    ("6.18", LIMITS_OF_THE_HOST),
    ("7.3", EVERYTHING_COUNTED),
];
const EVERYTHING_COUNTED: &str = "adversarial:: attach_methods:: calls:: cgroups:: devices:: drops:: failures:: fd_owners:: \
    headroom:: hits:: limits:: port_owners:: privileges:: throwaway::";
const PORTS: &str = "attach_methods:: devices::a_vrf_has headroom:: privileges:: throwaway::";
const PORTS_AND_RANGES: &str = "attach_methods:: calls:: devices::a_vrf_has headroom:: privileges:: throwaway::";
/// Tests that do not run outside: they change limits of the whole host, or need modules.
const LIMITS_OF_THE_HOST: &str = "attach_methods:: devices::a_vrf_has throwaway::";

/// Tests of `observer serve` in which a kernel has a part: the sandbox of the process that speaks HTTP, its replacement, TCP and
/// Unix sockets.
const SERVE_TESTS: &str = "confined:: an_http_process_that_dies signals_end_it";
/// Where they run: without Landlock, and on the newest. `cargo xtask test` runs them on 6.18.
const SERVE_KERNELS: [&str; 2] = ["5.10", "7.3"];

/// Of the load of tests that are made of load, in percent: an emulated processor is that much slower. `OBSERVER_LOAD` in
/// the environment of the task says otherwise.
const LOAD: &str = "10";

fn jobs(series: &str, request: &Request) -> Vec<Job> {
    let load = env::var("OBSERVER_LOAD").unwrap_or_else(|_| LOAD.to_owned());
    let chosen = request.test_args.iter().map(|arg| format!("'{arg}'")).collect::<Vec<_>>().join(" ");
    let job = |(name, methods): (&'static str, &str)| {
        let tests = match (chosen.as_str(), name) {
            ("", "preferred") => preferred_tests(series, request.all_tests),
            ("", "probes") => format!("{PROBE_TESTS} {NO_METHOD_TESTS}"),
            ("", _) => format!("{METHOD_TESTS} {NO_METHOD_TESTS}"),
            (chosen, _) => chosen.to_owned(),
        };
        let environment = format!("export OBSERVER_LOAD={load} OBSERVER_ATTACH={methods}");
        Job { name, commands: format!("{environment}\n/tests/live --test-threads=1 {tests}") }
    };
    let serve = |tests| Job { name: "serve", commands: format!("/tests/serve --test-threads=1 {tests}") };
    let serve_tests = Some(serve_tests(series, request)).filter(|tests| !tests.is_empty());
    JOBS.into_iter().map(job).chain(serve_tests.map(serve)).collect()
}

/// Of [`SERVE_TESTS`], those that were chosen; or all, on their kernels.
fn serve_tests(series: &str, request: &Request) -> String {
    let is_one = |test: &&str| match request.test_args.as_slice() {
        [] => request.all_tests || SERVE_KERNELS.contains(&series),
        chosen => chosen.iter().any(|arg| arg == test),
    };
    SERVE_TESTS.split_whitespace().filter(is_one).collect::<Vec<_>>().join(" ")
}

/// What libtest is to choose; all where it is nothing.
fn preferred_tests(series: &str, all_tests: bool) -> String {
    let of_kernel = KERNEL_TESTS.iter().find(|(known, _)| *known == series).filter(|_| !all_tests);
    of_kernel.map_or_else(String::new, |(_, tests)| format!("{METHOD_TESTS} {tests}"))
}

impl Guests {
    /// Runs the jobs on every kernel, and adds the tests that ran to `tally`.
    pub(crate) fn run(&self, tally: &mut Tally) -> Result<()> {
        let reports = self.run_all();
        for report in &reports {
            *tally += report.tally;
            let verdict = if report.failure(self.is_whole).is_none() { "ok" } else { "FAILED" };
            let Report { kernel, tally, took, .. } = report;
            println!("{:>5} {verdict}: {tally} in {:.0} s ({})", kernel.series, took.as_secs_f32(), kernel.package);
        }
        let failures: Vec<_> = reports.iter().filter_map(|report| report.failure(self.is_whole)).collect();
        if !failures.is_empty() {
            bail!("{}", failures.join("\n"));
        }
        if !self.is_whole {
            return Ok(());
        }
        let facts: Vec<_> = reports.iter().map(Report::facts).collect();
        if self.request.write_docs { support::write(&facts) } else { support::check(&facts) }
    }

    /// Three kernels at a time on two processors: about a quarter of a guest's time passes in waits of its kernel, most of them
    /// for RCU where programs are attached and detached.
    fn run_all(&self) -> Vec<Report<'_>> {
        let order: Vec<_> = self.kernels.iter().map(|kernel| &kernel.series).collect();
        let workers = process::processors() * 3 / 2;
        let mut kernels: Vec<_> = self.kernels.iter().collect();
        // The longest first, so that no processor is left with one at the end.
        kernels.sort_by_key(|kernel| Reverse(preferred_tests(&kernel.series, false).len()));
        let waiting = Mutex::new(VecDeque::from(kernels));
        let done = Mutex::new(Vec::new());
        let work = || {
            while let Some(kernel) = { lock(&waiting).pop_front() } {
                let report = self.run_on(kernel);
                lock(&done).push(report);
            }
        };
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        let mut reports = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        reports.sort_by_key(|report| order.iter().position(|series| **series == report.kernel.series));
        reports
    }

    fn run_on<'a>(&self, kernel: &'a Kernel) -> Report<'a> {
        let start = Instant::now();
        let mut tally = Tally::default();
        let show = |line: &str| {
            tally.add_line(line);
            println!("[{} {:.1} s] {line}", kernel.series, start.elapsed().as_secs_f32());
        };
        let (console, verdict) = self.boot(kernel, show).unwrap_or_else(|error| (Console::default(), Err(error)));
        tally.count_skipped(console.skipped.len());
        Report { kernel, tally, console, verdict, took: start.elapsed() }
    }

    fn boot(&self, kernel: &Kernel, show: impl FnMut(&str)) -> Result<(Console, Result<()>)> {
        let mut root = Root::new(kernel)?;
        self.userland.install(&mut root)?;
        self.programs.install(&mut root)?;
        let name = format!("initramfs-{}-{}.cpio", self.machine.arch.name, kernel.series);
        let folder = workspace::target_dir()?.join("vm");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let initramfs = folder.join(name);
        let jobs = jobs(&kernel.series, &self.request);
        run_jobs(kernel, root, &self.machine, &jobs, &initramfs, show)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Boots a kernel with the jobs in its root file system; fails only where that cannot be done.
fn run_jobs(
    kernel: &Kernel,
    mut root: Root,
    machine: &Machine,
    jobs: &[Job],
    initramfs: &Path,
    show: impl FnMut(&str),
) -> Result<(Console, Result<()>)> {
    for (number, job) in jobs.iter().enumerate() {
        root.text(format!("/jobs/{number:02}-{}", job.name), &format!("set -e\n{}\n", job.commands));
    }
    root.write(initramfs)?;
    let (end, console) = machine.boot(&kernel.image, initramfs, show).context("boot a guest")?;
    let names: Vec<_> = jobs.iter().map(|job| job.name).collect();
    let verdict = console.verdict(end, &names);
    Ok((console, verdict))
}

#[cfg(test)]
mod choice {
    use super::*;

    #[test]
    fn every_kernel_has_its_tests_and_every_choice_finds_some() {
        assert_eq!(KERNEL_TESTS.map(|(series, _)| series), SERIES);
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../observer/tests");
        let lists = KERNEL_TESTS.iter().map(|(_, tests)| *tests).chain([METHOD_TESTS, PROBE_TESTS]);
        let lacking = LACKING.iter().map(|&(_, test)| test);
        for choice in lists.flat_map(str::split_whitespace).chain(lacking) {
            assert_chosen(&tests.join("live"), choice, &["churn", "connections"]);
        }
        for choice in SERVE_TESTS.split_whitespace() {
            assert_chosen(&tests.join("serve"), choice, &["supervised"]);
        }
    }

    /// `module::`, `module::child::test`, `module::part_of_a_name`; or `part_of_a_name` in one of `files`.
    #[track_caller]
    fn assert_chosen(folder: &Path, choice: &str, files: &[&str]) {
        let (module, name) = choice.rsplit_once("::").unwrap_or(("", choice));
        let files = if module.is_empty() { files } else { &[module][..] };
        let found = files.iter().any(|file| {
            let path = folder.join(file.replace("::", "/")).with_extension("rs");
            fs::read_to_string(path).is_ok_and(|text| text.contains(name))
        });
        assert!(found, "no test is called {choice}");
    }
}

#[cfg(test)]
mod skipping {
    use super::*;

    fn difference(lines: &[&str], is_whole: bool) -> Option<String> {
        let lines: Vec<_> = lines.iter().map(|&line| line.to_owned()).collect();
        skipped_unlike(&lines, &["a::lacking"], is_whole)
    }

    #[test]
    fn what_a_kernel_lacks_is_skipped_there_and_nothing_else() {
        assert_eq!(difference(&["SKIPPED a::lacking: no such thing"], true), None);
        let other = difference(&["SKIPPED a::lacking: no such thing", "SKIPPED b::other: why"], true).unwrap();
        assert!(other.contains("must run there: SKIPPED b::other: why"), "{other}");
        let ran = difference(&[], true).unwrap();
        assert!(ran.contains("a::lacking is known to be skipped"), "{ran}");
        assert_eq!(difference(&[], false), None);
    }
}
