//! What criterion finds of the model and of frames, where neither kernel nor terminal takes part.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::stats::time;
use super::table::Table;
use super::targets::Figure;
use super::{Effort, Report};
use crate::{process, workspace};

/// The section's work.
pub(super) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    // File systems may keep times no finer than this.
    let begun = SystemTime::now() - Duration::from_secs(1);
    let mut bench = process::cargo();
    bench.args(["bench", "--quiet", "--locked", "--package", "observer", "--bench", "model", "--"]);
    bench.args(["--noplot", "--warm-up-time", "1", "--measurement-time"]);
    bench.arg(if effort == Effort::Full { "3" } else { "1" });
    process::run_silently(&mut bench)?;

    let mut found = Vec::new();
    collect(&workspace::target_dir()?.join("criterion"), begun, &mut found)?;
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let mut table =
        Table::new("The model and frames alone, by criterion", ["benchmark", "one iteration", "one element"]);
    for Estimate { name, median, elements } in &found {
        let each = elements.map(|elements| format!("{:.0} ns", median.as_secs_f64() * 1e9 / elements));
        table.row([name.clone(), time(*median), each.unwrap_or_default()]);
    }
    let growth = |of: &str| found.iter().find(|found| found.name.contains(of)).map(|found| found.median.as_secs_f64());
    if let (Some(few), Some(many)) = (growth("beside 1000 sockets"), growth("beside 1000000 sockets")) {
        report.figure(Figure::ModelGrowth, many / few);
    }
    table.note("Medians of `cargo bench --package observer --bench model`. A frame is of 160 columns and 50 lines.");
    report.table(table);
    Ok(())
}

/// What criterion has found of one benchmark.
struct Estimate {
    name: String,
    median: Duration,
    elements: Option<f64>,
}

/// Finds the estimates below `folder` that were written after `begun`: older ones are of another program.
fn collect(folder: &Path, begun: SystemTime, found: &mut Vec<Estimate>) -> Result<()> {
    let newest = folder.join("new");
    if newest.join("estimates.json").exists() {
        let age = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.modified().unwrap_or(UNIX_EPOCH));
        if age(&newest.join("estimates.json"))? >= begun {
            found.push(estimate(&newest)?);
        }
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, begun, found)?;
        }
    }
    Ok(())
}

fn estimate(folder: &Path) -> Result<Estimate> {
    let read = |name: &str| -> Result<Value> {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    };
    let (estimates, benchmark) = (read("estimates.json")?, read("benchmark.json")?);
    let nanoseconds = estimates["median"]["point_estimate"].as_f64().context("no median")?;
    Ok(Estimate {
        name: benchmark["full_id"].as_str().context("a benchmark without a name")?.to_owned(),
        median: Duration::from_secs_f64(nanoseconds / 1e9),
        elements: benchmark["throughput"]["Elements"].as_f64(),
    })
}
