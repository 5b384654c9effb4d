//! `observer lab`: bounded experiments in a private network namespace, each of which puts one claim to the test: what the
//! rule foretells, what observer counts or foretells, and what the kernel then does.
//!
//! - one file for each lab, with its claim, its theory and its steps;
//! - `session`: what a lab works with; `stage`, `link`: the namespace; `crew`, `worker`: the processes in it;
//!   `watcher`: observer beside it; `table`: the kernel's own list of sockets;
//! - `needs`: what a lab takes, and the refusal where the host has too little;
//! - `narrator`, `report`: what is told and what was found; `beside`: both beside the live screen; `explain`: the theory with this host's numbers.
//!
//! **Invariant**: nothing outside of the namespace is changed, and it has neither a name nor a mount: whatever ends this
//! process ends its workers and with them the namespace. (`file-max` is the exception, and runs only where that is asked
//! for by name.)

mod accept;
mod backlog;
mod beside;
mod client_ceiling;
mod cliff;
mod crew;
pub mod explain;
mod fd_limit;
mod file_max;
mod four_tuple;
mod link;
mod million;
mod myth;
pub(crate) mod narrator;
mod needs;
mod port_reuse;
pub(crate) mod report;
mod session;
mod stage;
mod table;
mod time_wait;
mod watcher;
pub mod worker;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, anyhow, ensure};

pub use self::report::Verdict;
use self::{
    crew::Crew,
    narrator::{Json, Narrator, Plain, Told},
    needs::Needs,
    report::Report,
    session::Session,
    watcher::Watcher,
};
use crate::{
    engine,
    model::{limit::LimitKind, units::grouped},
    new_file::{NewFile, Replaces},
    record::STANDARD,
    tui::{self, format},
};

/// A claim, and the experiment that tests it.
#[derive(Debug)]
pub struct Lab {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is to show, as a sentence without its full stop.
    pub claim: &'static str,
    /// The theory, a paragraph each.
    pub theory: &'static [&'static str],
    /// The limits that it meets.
    pub limits: &'static [LimitKind],
    scale: Scale,
    needs: fn(u32) -> anyhow::Result<Needs>,
    /// Fails with a sentence where it may not run at all.
    may_run: fn() -> anyhow::Result<()>,
    run: fn(&mut Session<'_>) -> anyhow::Result<()>,
}

/// How many connections a lab holds at a time.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Fewer prove nothing.
    least: u32,
    usual: u32,
    most: u32,
    /// Whether the usual number is a request, of which as much is taken as the host has room for.
    shrinks: bool,
}

/// All labs, in the order in which a class may want them.
pub static LABS: [&Lab; 11] = [
    &myth::LAB,
    &four_tuple::LAB,
    &accept::LAB,
    &client_ceiling::LAB,
    &port_reuse::LAB,
    &time_wait::LAB,
    &fd_limit::LAB,
    &backlog::LAB,
    &cliff::LAB,
    &million::LAB,
    &file_max::LAB,
];

impl Lab {
    /// The lab of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        LABS.into_iter().find(|lab| lab.name == name)
    }
}

/// How a lab is to run.
#[derive(Debug)]
pub struct Options {
    /// Which one.
    pub lab: &'static Lab,
    /// Who is told.
    pub form: Form,
    /// Wait for the person before each step.
    pub waits: bool,
    /// At most so many connections at a time; the lab's own number without one.
    pub scale: Option<u32>,
    /// Record what observer takes in to this file.
    pub record: Option<PathBuf>,
    /// How observer is to look on.
    pub engine: engine::Options,
}

/// Who is told of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A person, line by line.
    Plain,
    /// A script, by the verdict alone.
    Json,
    /// A person, beside the live screen.
    Screen,
}

/// Prints the labs.
pub fn list(out: &mut impl Write) -> anyhow::Result<()> {
    names(out)?;
    writeln!(out, "\nobserver lab NAME runs one, observer explain NAME tells its theory with this host's numbers.")?;
    Ok(())
}

fn names(out: &mut impl Write) -> io::Result<()> {
    LABS.into_iter().try_for_each(|lab| name(lab.name, lab.claim, out))
}

/// A name, and beside it what it stands for, in 80 columns.
fn name(name: &str, words: &str, out: &mut impl Write) -> io::Result<()> {
    const NAME: usize = 16;
    for (i, line) in format::wrapped(words, 80 - NAME).into_iter().enumerate() {
        writeln!(out, "{:<NAME$}{line}", if i == 0 { name } else { "" })?;
    }
    Ok(())
}

/// Runs a lab; its verdict becomes the exit status.
pub fn run(options: Options, look: tui::Options, out: impl Write + Send) -> anyhow::Result<ExitCode> {
    if options.form == Form::Screen {
        beside::require_size(options.lab)?;
    }
    if let Some(file) = &options.record {
        ensure!(file != Path::new(STANDARD), "a lab is recorded to a file: standard output has its words");
        NewFile::check(file, Replaces::Nothing)?;
    }
    let (may_use_bpf, scale, needs) = prepare(&options)?;
    if options.form == Form::Screen && may_use_bpf {
        return beside::run(options, scale, needs, look);
    }
    let (watcher, engine) = if may_use_bpf {
        let (watcher, watch) = watcher::start(options.engine, options.record.as_ref())?;
        (Some(watcher), Some(watch.run()?))
    } else {
        ensure!(
            options.record.is_none(),
            "without the right to use BPF there is nothing to be recorded: run it as root"
        );
        (None, None)
    };
    let mut narrator: Box<dyn Narrator + '_> = match options.form {
        // Without the right to look there is nothing to be shown but the words.
        Form::Plain | Form::Screen => Box::new(Plain::new(out, options.waits)),
        Form::Json => Box::new(Json(out)),
    };
    let conducted = conduct(&options, scale, needs, watcher, narrator.as_mut());
    // The engine ended because the lab did, or its own error says more than the lab's.
    if let Some(engine) = engine {
        engine.join().map_err(|_| anyhow!("the engine panicked: please report this"))??;
    }
    Ok(conducted?.0.into())
}

/// Enters the namespace, and sees to it that the host has what the lab needs.
fn prepare(options: &Options) -> anyhow::Result<(bool, u32, Needs)> {
    let Lab { name, scale, needs, may_run, .. } = options.lab;
    let Scale { least, usual, most, shrinks } = *scale;
    may_run()?;
    if let Some(asked) = options.scale {
        ensure!(
            (least..=most).contains(&asked),
            "lab {name} takes {} to {} connections, not {}",
            grouped(least.into()),
            grouped(most.into()),
            grouped(asked.into())
        );
    }
    let may_use_bpf = stage::enter()?;
    let mut scale = options.scale.unwrap_or(usual);
    while shrinks && options.scale.is_none() && scale / 10 * 9 >= least && needs(scale)?.require().is_err() {
        scale = scale / 10 * 9;
    }
    let needs = needs(scale)?;
    needs.require().with_context(|| format!("this host has too little for lab {name}"))?;
    Ok((may_use_bpf, scale, needs))
}

/// Tells, runs and judges; returns the workers too, which hold the connections.
fn conduct(
    options: &Options,
    scale: u32,
    uses: Needs,
    watcher: Option<Watcher>,
    narrator: &mut dyn Narrator,
) -> anyhow::Result<(Verdict, Crew)> {
    let (lab, began, observed) = (options.lab, Instant::now(), watcher.is_some());
    let note = (!observed).then(|| {
        "Without the right to use BPF observer cannot look on: theory and kernel are compared alone. As root it can."
            .to_owned()
    });
    narrator.tell(Told::Opening { lab, uses: uses.sentence(), note })?;
    let mut session = Session::new(scale, watcher, narrator);
    (lab.run)(&mut session)?;
    let took_seconds = began.elapsed().as_secs_f64();
    let Session { crew, checks, facts, curve, inconclusive, .. } = session;
    // The last step is to be read, too.
    narrator.wait()?;
    let verdict = report::verdict(&checks, inconclusive.as_deref());
    let report = Report {
        schema: crate::export::SCHEMA,
        lab: lab.name,
        claim: lab.claim,
        verdict,
        inconclusive,
        scale,
        uses,
        observed,
        checks,
        facts,
        curve,
        took_seconds,
    };
    narrator.tell(Told::Verdict(Box::new(report)))?;
    Ok((verdict, crew))
}

/// Labs that may run anywhere.
#[expect(clippy::unnecessary_wraps, reason = "one lab asks for more")]
const fn anywhere() -> anyhow::Result<()> {
    Ok(())
}

/// Fails unless the name is one of a lab.
pub fn parse(name: &str) -> Result<&'static Lab, io::Error> {
    let names = || LABS.map(|lab| lab.name).join(", ");
    Lab::named(name).ok_or_else(|| io::Error::other(format!("there is no such lab, but {}", names())))
}
