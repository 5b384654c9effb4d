//! How much slower a load gets.

use std::time::Duration;

use anyhow::Result;

use super::load::{Took, run_churn};
use super::stats::Samples;
use super::table::Table;
use super::targets::Figure;
use super::tools::{Account, Started, Tool};
use super::{Effort, Report, stage};

/// Connections a second of the paced load.
const RATE: u32 = 5_000;

/// A load, and the tool beside it.
pub(super) struct Run {
    pub(super) load: Took,
    /// The tool's own CPU time meanwhile.
    pub(super) tool_cpu: Duration,
    pub(super) account: Account,
}

/// Runs the load beside a tool, on a stage of their own; otherwise returns why the tool does not run here.
pub(super) fn beside(tool: Tool, connections: u32, rate: Option<u32>) -> Result<Result<Run, String>> {
    eprintln!("{} …", tool.name());
    stage::on_stage(|| {
        let folder = tempfile::tempdir()?;
        let instrument = match tool.start(folder.path())? {
            Started::Running(instrument) => instrument,
            Started::Refused(why) => return Ok(Err(why)),
        };
        let before = instrument.running().cpu()?;
        let load = run_churn(connections, rate)?;
        let tool_cpu = instrument.running().cpu()?.saturating_sub(before);
        Ok(Ok(Run { load, tool_cpu, account: instrument.finish(connections)? }))
    })
}

fn alone(connections: u32, rate: Option<u32>) -> Result<Took> {
    stage::on_stage(|| run_churn(connections, rate))
}

/// A tool in all its rounds.
#[derive(Default)]
struct Rounds {
    ratios: Samples,
    /// Of a second measure.
    other_ratios: Samples,
    tool_cpu: Samples,
    refusal: Option<String>,
}

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    full_speed(effort, report)?;
    paced(effort, report)
}

fn full_speed(effort: Effort, report: &mut Report) -> Result<()> {
    let connections = effort.connections();
    let title = format!("Slowdown of {connections} connects, accepts and closes at full speed");
    let head = ["beside", "times slower", "CPU of the tool, s", "times the CPU of the load"];
    let mut table = Table::new(&title, head);
    let mut speeds = Samples::default();
    for tool in Tool::ALL {
        let mut rounds = Rounds::default();
        for _ in 0..effort.rounds() {
            let base = alone(connections, None)?;
            speeds.push(f64::from(connections) / base.elapsed.as_secs_f64());
            match beside(tool, connections, None)? {
                Ok(run) => {
                    rounds.ratios.push(run.load.elapsed.div_duration_f64(base.elapsed));
                    rounds.other_ratios.push(run.load.cpu.div_duration_f64(base.cpu));
                    rounds.tool_cpu.push(run.tool_cpu.as_secs_f64());
                }
                Err(why) => {
                    rounds.refusal = Some(why);
                    break;
                }
            }
        }
        row(&mut table, tool, &rounds);
        match tool {
            Tool::Screen => report.figure(Figure::SlowdownScreen, rounds.ratios.median()),
            Tool::Watch => report.figure(Figure::SlowdownWatch, rounds.ratios.median()),
            Tool::Lines { .. } | Tool::Bpftrace => {}
        }
    }
    table.note(&format!(
        "Wall time of the load over that of the run without a tool just before it: median (lowest to highest) of {} \
         pairs. Two clients and two servers; CPU \
         time of others does not disturb that of the load, as it does its wall time. Alone they make {speeds:.0} connections/s.",
        effort.rounds()
    ));
    report.table(table);
    Ok(())
}

fn paced(effort: Effort, report: &mut Report) -> Result<()> {
    let connections = if effort == Effort::Full { 2 * RATE } else { RATE / 2 };
    let title = format!("The same at {RATE} connections/s");
    let mut table =
        Table::new(&title, ["beside", "times the CPU", "CPU of the tool, s", "times the latency of connect()"]);
    let mut rounds = Tool::ALL.map(|tool| (tool, Rounds::default()));
    for _ in 0..effort.rounds() {
        for (tool, rounds) in rounds.iter_mut().filter(|(_, rounds)| rounds.refusal.is_none()) {
            let base = alone(connections, Some(RATE))?;
            match beside(*tool, connections, Some(RATE))? {
                Ok(run) => {
                    rounds.ratios.push(run.load.cpu.div_duration_f64(base.cpu));
                    rounds.other_ratios.push(run.load.latency.div_duration_f64(base.latency));
                    rounds.tool_cpu.push(run.tool_cpu.as_secs_f64());
                }
                Err(why) => rounds.refusal = Some(why),
            }
        }
    }
    for (tool, rounds) in &rounds {
        row(&mut table, *tool, rounds);
    }
    report.figure(Figure::PacedScreen, rounds[0].1.ratios.median());
    report.figure(Figure::PacedWatch, rounds[1].1.ratios.median());
    table.note(&format!(
        "CPU time of the load, in which its hooks run, over that of the run without a tool just before it; {} pairs of \
         {} s. Wall time says nothing of a load that waits.",
        effort.rounds(),
        f64::from(connections) / f64::from(RATE)
    ));
    report.table(table);
    Ok(())
}

fn row(table: &mut Table, tool: Tool, rounds: &Rounds) {
    match &rounds.refusal {
        Some(why) => table.refusal(&tool.name(), why),
        None => table.row([
            tool.name(),
            rounds.ratios.to_string(),
            rounds.tool_cpu.to_string(),
            rounds.other_ratios.to_string(),
        ]),
    }
}
