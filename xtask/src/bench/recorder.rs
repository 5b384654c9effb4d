//! What a flight recorder takes more than `watch` does, and whether its directory keeps its bound at full speed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::load::run_churn;
use super::observer::{self, Watch};
use super::running::{Running, wait_until};
use super::stats::{Samples, float};
use super::table::Table;
use super::targets::Figure;
use super::{Effort, Report, stage};

/// Of the directory that a load is to fill several times.
const BOUND: u64 = 1 << 20;

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    cost(effort, report)?;
    bound(effort, report)
}

/// What a recorder takes, beside what `watch` takes of the same load.
fn cost(effort: Effort, report: &mut Report) -> Result<()> {
    let head = ["connections/s", "`watch`, CPU %", "recorder, CPU %", "recorder above `watch`, CPU %"];
    let mut table = Table::new("Flight recorder", head);
    for rate in [Some(5_000), None] {
        let (mut watch, mut recorder, mut more) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..effort.rounds() {
            let share = |recorded| stage::on_stage(|| share(recorded, effort.connections(), rate));
            let (one, other) = (share(false)?, share(true)?);
            watch.push(one);
            recorder.push(other);
            more.push(other - one);
        }
        let rate_name = rate.map_or_else(|| "full speed".to_owned(), |rate| rate.to_string());
        table.row([rate_name, format!("{watch:.1}"), format!("{recorder:.1}"), format!("{more:.2}")]);
        if rate.is_some() {
            report.figure(Figure::Recorder, more.median());
        }
    }
    table.note(
        "User and system time of `observer record --keep 1h` and of `observer watch`, in runs that alternate. A recorder prints \
         nothing, and `watch` records nothing.",
    );
    report.table(table);
    Ok(())
}

/// Percent of a CPU while the load runs.
fn share(is_recorded: bool, connections: u32, rate: Option<u32>) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    if is_recorded {
        let recorder = Recorder::start(folder.path(), &["--keep", "1h"])?;
        share_of(&recorder.running, connections, rate)
    } else {
        let watch = Watch::start(folder.path())?;
        watch.next()?;
        share_of(&watch.running, connections, rate)
    }
}

fn share_of(running: &Running, connections: u32, rate: Option<u32>) -> Result<f64> {
    let (before, start) = (running.cpu()?, Instant::now());
    run_churn(connections, rate)?;
    // The last chunk is written after a quarter of a second.
    thread::sleep(Duration::from_millis(500));
    let used = running.cpu()?.saturating_sub(before);
    Ok(100.0 * used.div_duration_f64(start.elapsed()))
}

/// What the directory takes while more comes than it may have.
fn bound(effort: Effort, report: &mut Report) -> Result<()> {
    let mut table = Table::new("Directory of a flight recorder at full speed", ["what", "measured"]);
    let filled = stage::on_stage(|| fill(effort))?;
    let share = 100.0 * float(filled.most) / float(BOUND);
    table.row([format!("most that it took, of {} MiB, %", BOUND >> 20), format!("{share:.1}")]);
    table.row(["looks at it".to_owned(), filled.looks.to_string()]);
    table.row(["records that were recorded".to_owned(), filled.records.to_string()]);
    table.row(["inputs a second".to_owned(), format!("{:.0}", filled.rate)]);
    table.row(["inputs that were counted as lost".to_owned(), filled.lost.to_string()]);
    table.note("What the directory takes is what `du` shows, by blocks.");
    report.figure(Figure::RecorderBound, share);
    report.table(table);
    Ok(())
}

/// A directory that was filled.
struct Filled {
    /// Bytes at once.
    most: u64,
    looks: u32,
    records: u64,
    lost: u64,
    /// Records and lost inputs, in a second of the load.
    rate: f64,
}

fn fill(effort: Effort) -> Result<Filled> {
    let folder = tempfile::tempdir()?;
    let recorder = Recorder::start(folder.path(), &["--max-bytes", &BOUND.to_string()])?;
    let path = recorder.path.clone();
    let (is_over, start) = (AtomicBool::new(false), Instant::now());
    let (most, looks, length) = thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let (mut most, mut looks) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                most = room_of(&path).max(most);
                looks += 1;
            }
            (most, looks)
        });
        let loaded = run_churn(effort.connections(), None);
        let length = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let (most, looks) = watched.join().ok().context("whoever looked panicked")?;
        loaded?;
        Ok::<_, anyhow::Error>((most, looks, length))
    })?;
    let said = recorder.end()?;
    let (records, lost) =
        (number(&said, " records").context(said.clone())?, number(&said, " inputs lost").unwrap_or(0));
    let most = room_of(&path).max(most);
    Ok(Filled { most, looks, records, lost, rate: float(records + lost) / length.as_secs_f64() })
}

/// `observer record` into a directory.
struct Recorder {
    running: Running,
    path: PathBuf,
    /// Its standard error.
    said: PathBuf,
}

impl Recorder {
    /// Starts it, and waits for its first scan.
    fn start(folder: &Path, bounds: &[&str]) -> Result<Self> {
        let (path, said) = (folder.join("recorder"), folder.join("said"));
        let mut command = observer::command()?;
        command.arg("record").args(bounds).arg(&path).stdin(Stdio::null()).stderr(File::create(&said)?);
        let recorder = Self { running: Running::start(&mut command)?, path, said };
        // Its header is written before that.
        wait_until("first segment of the recorder", || Ok(room_of(&recorder.path) > 0 && recorder.has_scanned()))?;
        Ok(recorder)
    }

    fn has_scanned(&self) -> bool {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).any(|file| file.is_file() && file.len() > 1_000)
    }

    /// Ends it; what it said.
    fn end(mut self) -> Result<String> {
        let status = self.running.interrupt("the recorder")?;
        let said = fs::read_to_string(&self.said)?;
        ensure!(status.success(), "{said}");
        Ok(said)
    }
}

/// The number before these words.
fn number(said: &str, words: &str) -> Option<u64> {
    let (before, _) = said.split_once(words)?;
    before.rsplit(' ').next()?.replace(',', "").parse().ok()
}

/// What `du` shows: each file once, whatever its names.
fn room_of(path: &Path) -> u64 {
    fn add(path: &Path, found: &mut BTreeMap<u64, u64>) {
        // A segment may have gone meanwhile.
        let Ok(file) = fs::symlink_metadata(path) else { return };
        found.insert(file.ino(), file.blocks() * 512);
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            add(&entry.path(), found);
        }
    }
    let mut found = BTreeMap::new();
    add(path, &mut found);
    found.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recorder_says_has_numbers() {
        let said = "observer: recorded 1.0 s to x: 1,234 records, 9 bytes; 56 inputs lost, because they came";
        assert_eq!((number(said, " records"), number(said, " inputs lost")), (Some(1_234), Some(56)));
        assert_eq!(number("recorded", " inputs lost"), None);
    }
}
