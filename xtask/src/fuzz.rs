//! `cargo xtask fuzz`: the targets of `observer/fuzz` under libFuzzer, one after the other.
//!
//! Stable Rust builds them: coverage comes from LLVM, and no sanitizer is used. The readers are in safe Rust, where what a
//! sanitizer would find is a panic.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{process, tools, workspace};

const FOLDER: &str = "observer/fuzz";
/// An input on which a target works longer than this is a finding. The slowest reader takes milliseconds.
const SECONDS_AN_INPUT: u32 = 10;

/// What is asked of `cargo xtask fuzz`.
#[derive(Args, Debug)]
pub(crate) struct Request {
    /// Such as `http`; without any, all
    targets: Vec<String>,
    /// How long each runs, in seconds
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

/// Runs each target. Fails at the first finding, and names its input.
pub(crate) fn run(request: &Request) -> Result<()> {
    let known = targets()?;
    for target in &request.targets {
        ensure!(known.contains(target), "there is no fuzz target {target}, but {}", known.join(", "));
    }
    let fuzzer = tools::for_fuzz()?;
    let chosen = if request.targets.is_empty() { &known } else { &request.targets };
    chosen.iter().try_for_each(|target| fuzz(&fuzzer, target, request.seconds))
}

/// The names of the targets, sorted.
fn targets() -> Result<Vec<String>> {
    let folder = Path::new(FOLDER).join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let names = entries.map(|entry| Ok(entry?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// New inputs that reach new code go to `target/fuzz/corpus`: the ones in the repository are few and small.
fn fuzz(fuzzer: &Path, target: &str, seconds: u32) -> Result<()> {
    let folder = workspace::root()?.join(FOLDER);
    let built = workspace::target_dir()?.join("fuzz");
    let found = built.join("corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("make {}", found.display()))?;
    let mut command = Command::new(fuzzer);
    command.args(["run", "--sanitizer", "none", "--fuzz-dir"]).arg(&folder).arg("--target-dir").arg(&built);
    command.arg(target).arg(found).arg(folder.join("corpus").join(target)).arg("--");
    command.args([format!("-max_total_time={seconds}"), format!("-timeout={SECONDS_AN_INPUT}")]);
    command.args(["-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]);
    process::run(command.current_dir("observer"))
}
