//! `cargo xtask vm`: the live tests on Debian's kernels of several series, each in a virtual machine of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tally::Tally;
use crate::{tools, workspace};

use console::Console;
use guest::Programs;
use initramfs::Root;
use kernel::Kernel;
use qemu::{Limits, Machine};
use support::Facts;

mod console;
mod debian;
mod guest;
mod initramfs;
mod kernel;
mod modules;
mod qemu;
mod support;
#[cfg(test)]
mod tests;

/// The kernels that every change is tested on: the oldest that the observer is for, the long-lived ones, the newest.
pub(crate) const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.3"];

/// A processor's names, as each program calls it, and how QEMU makes a machine with it.
#[derive(Debug)]
pub(crate) struct Arch {
    target: &'static str,
    debian: &'static str,
    /// Debian's small kernels for virtual machines.
    flavour: &'static str,
    qemu: &'static str,
    machine: &'static str,
    console: &'static str,
}

const X86_64: Arch = Arch {
    target: "x86_64-unknown-linux-gnu",
    debian: "amd64",
    flavour: "cloud-amd64",
    qemu: "qemu-system-x86_64",
    machine: "q35",
    console: "ttyS0",
};

/// Far above what the slowest kernel takes on a loaded machine.
const LIMITS: Limits = Limits { total: Duration::from_mins(20), silence: Duration::from_mins(3) };

/// Shell commands for the guests; the first that fails ends it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) commands: String,
}

/// What is asked of `cargo xtask vm`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// None are [`SERIES`].
    pub(crate) series: Vec<String>,
    pub(crate) kvm: bool,
    /// Write the page of what the kernels support in place of checking it.
    pub(crate) write_docs: bool,
    /// Arguments for the test binary, such as a part of a test's name.
    pub(crate) test_args: Vec<String>,
}

/// What a kernel's run came to.
struct Report {
    kernel: Kernel,
    tally: Tally,
    console: Console,
    verdict: Result<()>,
    took: Duration,
}

/// Runs the jobs on every kernel asked for, and adds the tests that ran to `tally`.
pub(crate) fn run(request: &Request, tally: &mut Tally) -> Result<()> {
    let is_whole = request.series.is_empty() && request.test_args.is_empty();
    ensure!(is_whole || !request.write_docs, "the page of what kernels support is made of all tests on all kernels");
    tools::for_vms()?;
    let mut series = request.series.clone();
    if series.is_empty() {
        series = SERIES.map(str::to_owned).into();
    }
    let kernels = kernel::newest(&series, &X86_64)?;
    let programs = guest::build(&X86_64)?;
    let machine = Machine { arch: &X86_64, kvm: request.kvm, limits: LIMITS };
    let jobs = jobs(&request.test_args);

    let reports = run_all(kernels, |kernel| run_on(kernel, &programs, &machine, &jobs))?;
    for report in &reports {
        *tally += report.tally;
        let verdict = if report.verdict.is_ok() { "ok" } else { "FAILED" };
        let Report { kernel, tally, took, .. } = report;
        println!("{:>5} {verdict}: {tally} in {:.0} s ({})", kernel.series, took.as_secs_f32(), kernel.package);
    }
    let failures: Vec<_> = reports.iter().filter_map(Report::failure).collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    let skipped = reports.iter().any(|report| !report.console.skipped.is_empty());
    ensure!(!skipped, "tests were skipped: a guest is made so that every test can run");
    if !is_whole {
        return Ok(());
    }
    let facts: Vec<_> = reports.iter().map(Report::facts).collect();
    if request.write_docs { support::write(&facts) } else { support::check(&facts) }
}

impl Report {
    fn failure(&self) -> Option<String> {
        let error = self.verdict.as_ref().err()?;
        Some(format!("on Linux {}: {error:#}", self.kernel.series))
    }

    fn facts(&self) -> Facts<'_> {
        Facts { kernel: &self.kernel, lines: &self.console.facts }
    }
}

fn jobs(test_args: &[String]) -> Vec<Job> {
    let args: Vec<_> = test_args.iter().map(|arg| format!(" '{arg}'")).collect();
    vec![Job { name: "live", commands: format!("/tests/live --test-threads=1{}", args.concat()) }]
}

/// As many kernels at a time as there are processors: each guest has one.
fn run_all(kernels: Vec<Kernel>, run: impl Fn(Kernel) -> Result<Report> + Sync) -> Result<Vec<Report>> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(VecDeque::from(kernels));
    let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || std::iter::from_fn(take).map(&run).collect::<Vec<_>>();
    let mut reports = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        done.flatten().collect::<Result<Vec<_>>>()
    })?;
    reports.sort_by_key(|report| SERIES.iter().position(|&series| series == report.kernel.series));
    Ok(reports)
}

fn run_on(kernel: Kernel, programs: &Programs, machine: &Machine, jobs: &[Job]) -> Result<Report> {
    let mut root = Root::new(&kernel)?;
    programs.install(&mut root)?;
    let initramfs = workspace::target_dir()?.join("vm").join(format!("initramfs-{}.cpio", kernel.series));
    let start = Instant::now();
    let mut tally = Tally::default();
    let shown = |line: &str| {
        tally.add_line(line);
        println!("[{} {:.1} s] {line}", kernel.series, start.elapsed().as_secs_f32());
    };
    let (console, verdict) = run_jobs(&kernel, root, machine, jobs, &initramfs, shown)?;
    tally.count_skipped(console.skipped.len());
    Ok(Report { kernel, tally, console, verdict, took: start.elapsed() })
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
