//! What observer takes for itself: until the first frame, while nothing happens, and by the rate of events.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::{IdleConnections, run_churn};
use super::observer::{self, Watch, number};
use super::programs::during;
use super::stats::{Samples, each_ns};
use super::table::Table;
use super::targets::Figure;
use super::{Effort, Report, stage};

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let mut table = Table::new("observer by itself", ["what", "measured"]);
    let starts: Samples = (0..2 * effort.rounds()).map(|_| first_frame()).collect::<Result<_>>()?;
    table.row(["start to first frame, ms".to_owned(), format!("{starts:.0}")]);
    report.figure(Figure::FirstFrame, starts.median());
    let length = Duration::from_secs(if effort == Effort::Full { 20 } else { 2 });
    let (idle, resident) = stage::on_stage(|| idle(length))?;
    table
        .row([format!("CPU of an idle screen in {} s, 1,000 sockets open, %", length.as_secs()), format!("{idle:.2}")]);
    table.row(["its resident memory, MB".to_owned(), format!("{:.1}", f64::from(resident) / 1e6)]);
    report.figure(Figure::Idle, idle);
    let (alone, added) = other_calls(effort)?;
    table.row(["a system call without sockets, getppid(), alone, ns".to_owned(), format!("{alone:.0}")]);
    table.row(["what `watch` beside it adds, ns".to_owned(), format!("{added:.0}")]);
    table.note(
        "Exits of system calls that are traced send every system call of the host on a slower way. Where functions can be \
         hooked none is (docs/kernel-support.md); on a machine without that, as the CI machine, accept and failures take \
         it.",
    );
    report.table(table);
    rates(effort, report)
}

/// Milliseconds.
fn first_frame() -> Result<f64> {
    stage::on_stage(|| {
        let start = Instant::now();
        let screen = observer::screen()?;
        let length = start.elapsed();
        // Ending takes the kernel longer than starting.
        drop(screen);
        Ok(length.as_secs_f64() * 1e3)
    })
}

/// Percent of one CPU, and bytes.
fn idle(length: Duration) -> Result<(f64, u32)> {
    let mut connections = IdleConnections::default();
    connections.grow_to(1_000)?;
    let screen = observer::screen()?.look_away()?;
    // What start leaves to do is not idle time.
    thread::sleep(Duration::from_secs(1));
    let (before, start) = (screen.cpu()?, Instant::now());
    thread::sleep(length);
    let used = screen.cpu()?.saturating_sub(before);
    Ok((100.0 * used.div_duration_f64(start.elapsed()), screen.resident()?))
}

/// Nanoseconds of a system call that observer does not look at, alone, and what it takes more beside `watch`.
fn other_calls(effort: Effort) -> Result<(Samples, Samples)> {
    let (mut alone, mut added) = (Samples::default(), Samples::default());
    for _ in 0..effort.rounds() {
        stage::on_stage(|| {
            let before = parent_ids();
            let folder = tempfile::tempdir()?;
            let watch = Watch::start(folder.path())?;
            // The first object is complete: all is attached.
            watch.next()?;
            alone.push(before);
            added.push(parent_ids() - before);
            Ok(())
        })?;
    }
    Ok((alone, added))
}

/// Nanoseconds of each call of getppid(), which does next to nothing.
fn parent_ids() -> f64 {
    const CALLS: u32 = 1_000_000;
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
    each_ns(start.elapsed(), CALLS.into())
}

/// What events cost, by how many of them come a second.
fn rates(effort: Effort, report: &mut Report) -> Result<()> {
    let head = ["connections/s", "events", "user side, ns an event", "CPU of observer, %", "state hook, ns a run"];
    let mut table = Table::new("By the rate of events", head);
    for rate in [Some(500), Some(5_000), None] {
        let (mut user, mut share, mut hook) = (Samples::default(), Samples::default(), Samples::default());
        let mut events = 0;
        for _ in 0..if effort == Effort::Full { 3 } else { 1 } {
            let connections = rate.map_or(effort.connections(), |rate| 3 * rate);
            let sample = stage::on_stage(|| sample(connections, rate))?;
            events = sample.events;
            user.push(sample.user);
            share.push(sample.share);
            hook.push(sample.hook);
        }
        let rate_name = rate.map_or_else(|| "full speed".to_owned(), |rate: u32| rate.to_string());
        table.row([rate_name, events.to_string(), format!("{user:.0}"), format!("{share:.1}"), format!("{hook:.0}")]);
        if rate.is_none() {
            report.figure(Figure::UserPerEvent, user.median());
        }
    }
    table.note(
        "The user side is all CPU time of `observer watch`, user and system, its scans and its lines of JSON included: so \
         an event is expensive where there are few. An event is a record of a hook. The state hook is measured in runs of its \
         own, for the measurement costs as well.",
    );
    report.table(table);
    Ok(())
}

/// What one load cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) events: u64,
    /// Nanoseconds of an event.
    pub(super) user: f64,
    /// Percent of a CPU.
    pub(super) share: f64,
    /// Nanoseconds of a run of the state hook.
    pub(super) hook: f64,
}

/// Runs a load beside `observer watch` twice: the second time, the kernel measures the programs.
pub(super) fn sample(connections: u32, rate: Option<u32>) -> Result<Sample> {
    let folder = tempfile::tempdir()?;
    let watch = Watch::start(folder.path())?;
    let events = || number(&watch.next()?, "/quality/events_total");
    let (events_before, before, start) = (events()?, watch.running.cpu()?, Instant::now());
    run_churn(connections, rate)?;
    let length = start.elapsed();
    let events = events()?.saturating_sub(events_before);
    let used = watch.running.cpu()?.saturating_sub(before);
    let measured = during(&watch.running.pid().to_string(), || run_churn(connections, rate).map(drop))?;
    let hook = measured
        .iter()
        .find(|(name, _)| name.starts_with("state_"))
        .map_or(f64::NAN, |(_, runs)| each_ns(runs.time, runs.count));
    let share = 100.0 * used.div_duration_f64(length);
    Ok(Sample { events, user: each_ns(used, events), share, hook })
}
