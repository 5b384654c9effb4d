//! The runner itself, on a real kernel: each failure of a guest is reported as what it is.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, thread};

use anyhow::Result;

use super::arch::X86_64;
use super::console::Console;
use super::initramfs::Root;
use super::kernel::{self, Kernel};
use super::qemu::{Limits, Machine};
use super::userland::Userland;
use super::{Job, run_jobs};
use crate::tools;

/// Generous: the machine may be busy with other tests.
const LIMITS: Limits = Limits { total: Duration::from_mins(3), silence: Duration::from_mins(2) };

/// A kernel to boot, or why this machine cannot boot any.
fn kernel() -> Result<&'static Kernel, &'static str> {
    static KERNEL: OnceLock<Result<Kernel, String>> = OnceLock::new();
    let ready = || {
        tools::for_vms(&X86_64)?;
        Ok(kernel::newest(&["6.1".to_owned()], &X86_64)?.remove(0))
    };
    let kernel = KERNEL.get_or_init(|| ready().map_err(|error: anyhow::Error| format!("{error:#}")));
    kernel.as_ref().map_err(String::as_str)
}

/// Runs one job in a guest; `None` where the machine cannot, which it reports as every test does.
fn run(job: &'static str, commands: &str, limits: Limits) -> Option<(Console, Result<()>)> {
    let kernel = match kernel() {
        Ok(kernel) => kernel,
        Err(why) => {
            skip(why);
            return None;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine { arch: &X86_64, kvm: false, limits, is_background: false };
    let jobs = [Job { name: job, commands: commands.to_owned() }];
    let mut root = Root::new(kernel).unwrap();
    Userland::Host.install(&mut root).unwrap();
    Some(run_jobs(kernel, root, &machine, &jobs, &dir.path().join("initramfs"), |line| println!("{line}")).unwrap())
}

/// Fails unless the guest's failure is reported with all of these words.
#[track_caller]
fn fails(job: &'static str, commands: &str, limits: Limits, words: &[&str]) {
    let Some((_, verdict)) = run(job, commands, limits) else {
        return;
    };
    let error = format!("{:#}", verdict.unwrap_err());
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}

fn skip(why: &str) {
    let thread = thread::current();
    let line = format!("SKIPPED {}: {why}", thread.name().unwrap_or("a test of virtual machines"));
    eprintln!("{line}");
    if let Some(list) = env::var_os("OBSERVER_SKIPPED_TESTS") {
        let mut list = OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{line}").unwrap();
    }
}

#[test]
fn a_job_that_ends_well_is_a_success_and_its_words_arrive() {
    let commands = "echo a fact >>$OBSERVER_FACTS; echo SKIPPED a test: why >>$OBSERVER_SKIPPED_TESTS; ss -Htan";
    if let Some((console, verdict)) = run("well", commands, LIMITS) {
        verdict.unwrap();
        assert_eq!(console.facts, ["a fact"]);
        assert_eq!(console.skipped, ["SKIPPED a test: why"]);
    }
}

#[test]
fn an_exit_code_is_reported_with_its_job() {
    fails("three", "(exit 3); echo not reached", LIMITS, &["job three failed with exit code 3"]);
}

#[test]
fn a_panic_of_the_kernel_is_reported_with_its_last_words() {
    let words =
        ["the kernel panicked in job crash: Kernel panic - not syncing: sysrq triggered crash", "sysrq_handle_crash"];
    fails("crash", "echo c >/proc/sysrq-trigger", LIMITS, &words);
}

#[test]
fn a_guest_that_hangs_is_stopped() {
    // Longer than a boot is silent.
    let limits = Limits { silence: Duration::from_secs(20), ..LIMITS };
    fails("hang", "sleep 1000", limits, &["hung in job hang", "nothing printed for 20 s"]);
}

#[test]
fn a_guest_that_goes_on_and_on_is_stopped() {
    let limits = Limits { total: Duration::from_secs(20), ..LIMITS };
    fails("endless", "while sleep 1; do echo more; done", limits, &["stopped", "not done after 20 s"]);
}

#[test]
fn a_guest_that_powers_off_early_has_no_verdict() {
    fails("early", "poweroff -f", LIMITS, &["ended without a verdict in job early"]);
}

#[test]
fn what_qemu_complains_of_is_reported() {
    if kernel().is_err() {
        return skip("no QEMU");
    }
    let machine = Machine { arch: &X86_64, kvm: false, limits: LIMITS, is_background: false };
    let nowhere = Path::new("/nowhere");
    let (end, console) = machine.boot(nowhere, nowhere, |line| println!("{line}")).unwrap();
    let error = format!("{:#}", console.verdict(end, &[]).unwrap_err());
    assert!(error.contains("ended without a verdict") && error.contains("/nowhere"), "{error}");
}
