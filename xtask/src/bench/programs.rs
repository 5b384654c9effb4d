//! What each BPF program costs a run, and all of them a connection, against programs that do nothing on the same hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::bpf::{self, EmptyHook, Runs, Stats};
use super::load::run_churn;
use super::observer::Watch;
use super::stats::{Samples, each_ns};
use super::table::Table;
use super::targets::Figure;
use super::{Effort, Report, stage};

/// What observer hooks where a kernel has no better attach methods, once for each program on it.
const RAW_TRACEPOINTS: [&str; 2] = ["inet_sock_set_state", "tcp_destroy_sock"];
const TRACEPOINTS: [&str; 5] = [
    "syscalls/sys_exit_accept4",
    "syscalls/sys_exit_accept4",
    "syscalls/sys_exit_socket",
    "syscalls/sys_enter_bind",
    "syscalls/sys_exit_bind",
];

/// Name and runs of each program in one load.
pub(super) type Measured = BTreeMap<String, Runs>;

/// What all hooks of observer cost in one load.
fn per_connection(measured: &Measured, connections: u32) -> f64 {
    let time: Duration = measured.iter().filter(|(name, _)| is_hook(name)).map(|(_, runs)| runs.time).sum();
    each_ns(time, connections.into())
}

/// What runs in a scan is no part of a connection.
fn is_hook(program: &str) -> bool {
    !program.starts_with("scan_")
}

/// What each program of a process ran meanwhile, the kernel measuring it.
pub(super) fn during(process: &str, work: impl FnOnce() -> Result<()>) -> Result<Measured> {
    let _stats = Stats::enable()?;
    let before = bpf::runs_of(process)?;
    work()?;
    let mut measured = Measured::new();
    for after in bpf::runs_of(process)? {
        let earlier = before.iter().find(|runs| runs.id == after.id).cloned().unwrap_or_default();
        let entry = measured.entry(bpf::name(after.id)?).or_default();
        entry.count += after.count - earlier.count;
        entry.time += after.time.saturating_sub(earlier.time);
    }
    Ok(measured)
}

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let connections = effort.connections();
    let (mut real, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds() {
        floor.push(stage::on_stage(|| {
            let _hooks = empty_hooks()?;
            during("self", || run_churn(connections, None).map(drop))
        })?);
        real.push(stage::on_stage(|| {
            let folder = tempfile::tempdir()?;
            let watch = Watch::start(folder.path())?;
            during(&watch.running.pid().to_string(), || run_churn(connections, None).map(drop))
        })?);
    }
    let head = ["program", "runs a connection", "ns a run", "ns a connection"];
    let mut table = Table::new("BPF programs, of one loopback connection (both ends)", head);
    let names: BTreeSet<_> = real.iter().flat_map(BTreeMap::keys).filter(|name| is_hook(name)).collect();
    for name in names {
        let of_name =
            |figure: &dyn Fn(&Runs) -> f64| real.iter().filter_map(|run| Some(figure(run.get(name)?))).collect();
        let runs: Samples = of_name(&|runs| each_ns(Duration::from_nanos(runs.count), connections.into()));
        if runs.median() < 0.01 {
            continue;
        }
        let each: Samples = of_name(&|runs| each_ns(runs.time, runs.count));
        let all: Samples = of_name(&|runs| each_ns(runs.time, connections.into()));
        table.row([format!("`{name}`"), format!("{runs:.1}"), format!("{each:.0}"), format!("{all:.0}")]);
    }
    let sum = |runs: &[Measured]| runs.iter().map(|run| per_connection(run, connections)).collect::<Samples>();
    let (all, floor) = (sum(&real), sum(&floor));
    table.row(["all hooks".to_owned(), String::new(), String::new(), format!("{all:.0}")]);
    table.row(["empty programs on the same hooks".to_owned(), String::new(), String::new(), format!("{floor:.0}")]);
    table.note(
        "The table omits the programs of scans. Of each run some 35 ns are the measurement itself. Times are of programs that \
         may be interrupted: the lowest is nearest to what they do.",
    );
    report.figure(Figure::BpfPerConnection, all.median());
    report.figure(Figure::BpfOverFloor, all.median() / floor.median());
    report.table(table);
    Ok(())
}

/// Programs that do nothing, on every hook that observer takes on a kernel that has no better ones.
fn empty_hooks() -> Result<Vec<EmptyHook>> {
    let raw = RAW_TRACEPOINTS.iter().map(|name| EmptyHook::on_raw_tracepoint(name));
    let hooks = raw.chain(TRACEPOINTS.iter().map(|name| EmptyHook::on_tracepoint(name)));
    hooks.collect::<Result<_>>().context("attach empty programs")
}
