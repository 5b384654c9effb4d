//! `cargo xtask test`: all that must hold of a change, in one run. The first step that fails ends it, once the steps that
//! run beside it have ended.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tally::Tally;
use crate::{debian_root, deny, dist, ebpf, finish, process, tools, vm, workspace};

/// Names the file to which a test that cannot run on this machine appends `SKIPPED <test>: <why>` before it returns:
/// libtest knows no such outcome, and hides what a passing test prints.
const SKIPPED_TESTS: &str = "OBSERVER_SKIPPED_TESTS";

/// Tests of what the CI machine's kernel is built without (VRFs). They run in the guests, on every kernel.
const LEFT_TO_GUESTS: [&str; 1] = ["devices::a_vrf_has_its_ports_for_itself_unless_they_are_joined"];

/// Runs every step.
pub(crate) fn run() -> ExitCode {
    summing(steps)
}

/// Runs the tests on other kernels alone.
pub(crate) fn run_vms(request: &vm::Request) -> ExitCode {
    summing(|tally| vm::prepare(request)?.run(tally))
}

/// The sum of the tests is the last line of all, below any error: that is where it is looked for.
fn summing(work: impl FnOnce(&mut Tally) -> Result<()>) -> ExitCode {
    let mut tally = Tally::default();
    let code = finish(work(&mut tally));
    if tally != Tally::default() {
        println!("{tally}");
    }
    code
}

fn steps(tally: &mut Tally) -> Result<()> {
    tools::for_tests()?;
    debian_root::make()?;
    step("format", || cargo("fmt --all --check"))?;
    // The crate `observer` keeps one processor busy for most of its compilation: the BPF side has folders of its own, and the
    // other processor.
    thread::scope(|scope| {
        let beside = scope.spawn(of_the_bpf_side);
        let host = of_the_host();
        both(host, beside.join())
    })?;
    let guests = vm::prepare(&vm::Request::default())?;
    let mut in_guests = Tally::default();
    // Tests on this kernel leave half of the processors' time to others: they wait for timers and for the kernel.
    let outcome = thread::scope(|scope| {
        let beside = scope.spawn(|| step("tests on other kernels", || guests.run(&mut in_guests)));
        let native = step("tests", || tests(tally));
        both(native, beside.join())
    });
    *tally += in_guests;
    outcome
}

/// Fails if one of two steps that ran side by side failed; prints the other one's error if both did.
fn both(one: Result<()>, other: thread::Result<Result<()>>) -> Result<()> {
    let other = other.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if let (Err(_), Err(error)) = (&one, &other) {
        eprintln!("error: {error:#}");
    }
    one.and(other)
}

fn of_the_host() -> Result<()> {
    step("lints", || cargo("clippy --workspace --all-targets --locked -- -D warnings"))?;
    // Of the program: what tests have is the same with fewer features, or is not there.
    step("lints without features", || {
        cargo("clippy --package observer --lib --bins --no-default-features --locked -- -D warnings")
    })?;
    step("build", || cargo("test --workspace --locked --no-run"))
}

fn of_the_bpf_side() -> Result<()> {
    step("licences and sources of dependencies", deny::check)?;
    step("lints of the BPF side", ebpf::lint)?;
    step("BPF objects are what the source builds", ebpf::check)?;
    step("no BPF code in the host's program", host_is_free_of_bpf)?;
    step("packages", dist::check_quickly)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("==> {name}");
    let start = Instant::now();
    let result = work();
    println!("    {name}: {:.1} s", start.elapsed().as_secs_f32());
    result
}

fn cargo(arguments: &str) -> Result<()> {
    process::run(process::cargo().args(arguments.split(' ')))
}

/// `aya-ebpf` exports a `memcpy` of its own that returns nothing: a host program that links it gets wrong pointers.
fn host_is_free_of_bpf() -> Result<()> {
    for arch in ebpf::ARCHES {
        let mut tree = process::cargo();
        tree.args("tree --locked --package observer --edges normal --prefix none".split(' '));
        tree.args(["--target", &format!("{arch}-unknown-linux-gnu")]);
        let tree = process::stdout(&mut tree)?;
        if let Some(package) = tree.lines().find(|line| line.starts_with("aya-ebpf")) {
            bail!("{package} gets into `observer` on {arch}: see `cargo tree --invert aya-ebpf`");
        }
    }
    Ok(())
}

fn tests(sum: &mut Tally) -> Result<()> {
    let skip_list = workspace::target_dir()?.join("skipped-tests.txt");
    fs::write(&skip_list, "").with_context(|| format!("write {}", skip_list.display()))?;
    let mut command = process::cargo();
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]).env(SKIPPED_TESTS, &skip_list);
    // Those that change limits of the whole host: they run on the other kernels.
    command.args(["--", "--skip", "throwaway::"]);

    let mut tally = Tally::default();
    let outcome = run_summing(command, &mut tally);
    let skipped = skipped_tests(&skip_list)?;
    tally.count_skipped(skipped.len());
    *sum += tally;
    for line in &skipped {
        println!("{line}");
    }

    outcome?;
    ensure!(tally.ignored == 0, "tests are marked #[ignore]: a test that cannot run says so, and is counted");
    let in_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
    let is_left = |line: &str| LEFT_TO_GUESTS.iter().any(|test| line.starts_with(&format!("SKIPPED {test}: ")));
    ensure!(!in_ci || skipped.iter().all(|line| is_left(line)), "tests were skipped: in CI every test must run");
    Ok(())
}

/// Passes on what `command` prints as it comes, and sums the results in it.
pub(crate) fn run_summing(mut command: Command, tally: &mut Tally) -> Result<()> {
    // One pipe for both streams keeps their lines in order.
    let (reader, writer) = io::pipe().context("make a pipe")?;
    command.stdout(writer.try_clone().context("share a pipe")?).stderr(writer);
    let mut child = command.spawn().context("start `cargo test`")?;
    // The pipe ends when nobody can write to it any more: the command must let go of our copies.
    command.stdout(io::stdout()).stderr(io::stderr());

    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("read what the tests print")? > 0 {
        io::stdout().write_all(&line).context("pass on what the tests print")?;
        tally.add_line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    process::expect_success(&command, child.wait().context("wait for the tests")?)
}

/// What tests have said, each of them once.
fn skipped_tests(list: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}
