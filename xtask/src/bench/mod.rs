//! `cargo xtask bench`: what observer costs, measured on this machine, beside what people use today.
//!
//! Whatever is compared is compared as a ratio of runs that alternate, A B A B, so that a machine that gets slower
//! meanwhile slows down both. Loads run in namespaces of their own.

mod bpf;
mod crowd;
mod document;
mod frames;
mod hosts;
mod load;
mod losses;
mod observer;
mod programs;
mod recorder;
mod running;
mod screen;
mod sizes;
mod slowdown;
mod stage;
mod stats;
mod table;
mod targets;
pub(crate) mod terminal;
mod tools;

use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

pub(crate) use self::load::Load;
use self::table::Table;
use self::targets::{Figure, Figures};
use crate::apt;

/// Choices of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Request {
    /// What to measure; without any, everything
    sections: Vec<Section>,
    /// Write the tables to `docs/cost.md`
    #[arg(long)]
    write_docs: bool,
    /// Less of everything, to see that it works: the figures are no good
    #[arg(long, conflicts_with = "write_docs")]
    quick: bool,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// How much slower a load gets beside observer and its peers
    Slowdown,
    /// What each of them misses, and what is wrong at the end
    Losses,
    /// What each BPF program takes
    Programs,
    /// Start, idle CPU, and CPU by the rate of events
    Screen,
    /// What a flight recorder takes more than `watch`, and whether its directory keeps its bound
    Recorder,
    /// Memory, scans and events, from 1,000 to 1,000,000 sockets
    Sizes,
    /// Many network namespaces and many processes
    Hosts,
    /// Frames and the model alone, by criterion
    Frames,
}

impl Section {
    fn run(self, effort: Effort, report: &mut Report) -> Result<()> {
        match self {
            Self::Slowdown => slowdown::run(effort, report),
            Self::Losses => losses::run(effort, report),
            Self::Programs => programs::run(effort, report),
            Self::Screen => screen::run(effort, report),
            Self::Recorder => recorder::run(effort, report),
            Self::Sizes => sizes::run(effort, report),
            Self::Hosts => hosts::run(effort, report),
            Self::Frames => frames::run(effort, report),
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    Full,
    Quick,
}

impl Effort {
    /// Of a run at full speed; at most 45,000, or else connect() would meet the end of its first half of the ports.
    const fn connections(self) -> u32 {
        match self {
            Self::Full => 40_000,
            Self::Quick => 4_000,
        }
    }

    /// How often each thing is done.
    const fn rounds(self) -> u32 {
        match self {
            Self::Full => 5,
            Self::Quick => 2,
        }
    }
}

/// What was found so far.
#[derive(Default)]
struct Report {
    tables: Vec<Table>,
    figures: Figures,
}

impl Report {
    /// Prints the table at once: a run takes minutes.
    fn table(&mut self, table: Table) {
        println!("{table}");
        self.tables.push(table);
    }

    fn figure(&mut self, figure: Figure, value: f64) {
        self.figures.insert(figure, value);
    }
}

/// Measures what was asked for.
pub(crate) fn run(request: &Request) -> Result<()> {
    apt::install(&tools::NEEDS)?;
    observer::build()?;
    let effort = if request.quick { Effort::Quick } else { Effort::Full };
    let sections = if request.sections.is_empty() { Section::value_variants() } else { &request.sections };
    let mut report = Report::default();
    let begun = document::Machine::look()?;
    println!("{begun}\n");
    for section in sections {
        let start = Instant::now();
        section.run(effort, &mut report).with_context(|| format!("measure {section:?}"))?;
        println!("({section:?}: {:.0} s)\n", start.elapsed().as_secs_f64());
    }
    report.table(targets::table(&report.figures));
    if request.write_docs {
        document::write(&begun, &report.tables)?;
    }
    Ok(())
}
