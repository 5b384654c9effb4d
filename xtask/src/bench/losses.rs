//! What is missed at full speed, by each tool's own account and by what must have come.

use anyhow::Result;

use super::load::EVENTS_PER_CONNECTION;
use super::slowdown::beside;
use super::stats::float;
use super::table::Table;
use super::targets::Figure;
use super::tools::Tool;
use super::{Effort, Report};

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let connections = effort.connections();
    let runs = if effort == Effort::Full { 3 } else { 1 };
    let events = runs * connections * EVENTS_PER_CONNECTION;
    let title = format!("Losses in {} connections at full speed, {events} events", runs * connections);
    let head = [
        "tool",
        "lost, as it says",
        "missed runs",
        "lines, counts or openings that are missing",
        "sockets counted otherwise than by `ss`",
    ];
    let mut table = Table::new(&title, head);
    // The live screen is the same engine.
    for tool in Tool::ALL.into_iter().filter(|tool| *tool != Tool::Screen) {
        let (mut own, mut missed_runs, mut missing, mut wrong, mut refusal) = (None, None, 0, None, None);
        for _ in 0..runs {
            match beside(tool, connections, None)? {
                Ok(run) => {
                    own = sum(own, run.account.own);
                    missed_runs = sum(missed_runs, run.account.missed_runs);
                    missing += run.account.missing;
                    wrong = sum(wrong, run.account.wrong);
                }
                Err(why) => refusal = Some(why),
            }
        }
        if let Some(why) = refusal {
            table.refusal(&tool.name(), &why);
            continue;
        }
        let shown = |count: Option<u64>| count.map_or_else(|| "does not say".to_owned(), |count| count.to_string());
        table.row([tool.name(), shown(own), shown(missed_runs), missing.to_string(), shown(wrong)]);
        if tool == Tool::Watch {
            report.figure(Figure::Lost, float(own.unwrap_or_default()));
            report.figure(Figure::MissedRuns, float(missed_runs.unwrap_or_default()));
            report.figure(Figure::WrongCounts, float(wrong.unwrap_or_default()));
        }
    }
    table.note(
        "Of observer: records that found no room or could not be read; missed runs of its programs (the kernel's \
         recursion guard), after which a scan mends the counts; connections opened, as it counts them, against those that \
         were made; and its last counts by state against `ss -Htan`. Of \
         the others: lines on the load's ports, or the count, against what must be there.",
    );
    report.table(table);
    Ok(())
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one.unwrap_or_default() + other?)
}
