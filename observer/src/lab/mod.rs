//! `observer lab`: bounded experiments in a private network namespace. Each lab tests one claim: it compares what the
//! rule predicts, what observer counts or predicts, and what the kernel does.
//!
//! - one file for each lab, with its claim, its theory and its steps;
//! - `session`: what a lab works with; `stage`, `link`: the namespace; `worker_pool`, `worker`: the processes in it;
//!   `watcher`: the engine that watches it; `table`: the kernel's own list of sockets;
//! - `needs`: the resources that a lab needs, and the refusal where the host has too few;
//! - `presenter`: lab events and their plain-text and JSON output; `live_screen`: the same beside the live screen;
//!   `report`: checks and verdict; `explain`: the theory with this host's numbers.
//!
//! **Invariant**: a lab changes nothing outside its namespace. The namespace has neither a name nor a mount: whatever
//! ends this process also ends its workers and with them the namespace. (`file-max` is the exception. It runs only
//! where an environment variable allows it.)

mod accept;
mod backlog;
mod client_ceiling;
mod cliff;
pub mod explain;
mod fd_limit;
mod file_max;
mod four_tuple;
mod link;
mod live_screen;
mod million;
mod myth;
mod needs;
mod port_reuse;
pub(crate) mod presenter;
pub(crate) mod report;
mod session;
mod stage;
mod table;
mod time_wait;
mod watcher;
pub mod worker;
mod worker_pool;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, anyhow, ensure};

pub use self::report::Verdict;
use self::{
    needs::Needs,
    presenter::{Json, LabEvent, Plain, Presenter},
    report::Report,
    session::Session,
    watcher::Watcher,
    worker_pool::WorkerPool,
};
use crate::{
    engine,
    model::{limit::LimitKind, units::grouped},
    new_file::{NewFile, Replaces},
    present::labelled::{self, PLAIN_WIDTH},
    record::STANDARD,
    tui,
};

/// A claim, and the experiment that tests it.
#[derive(Debug)]
pub struct Lab {
    /// Its name on the command line.
    pub name: &'static str,
    /// The claim that it tests, as a sentence without its full stop.
    pub claim: &'static str,
    /// The theory, one string a paragraph.
    pub theory: &'static [&'static str],
    /// The limits that it reaches.
    pub limits: &'static [LimitKind],
    scale: Scale,
    needs: fn(u32) -> anyhow::Result<Needs>,
    /// Fails with one sentence where this lab must not run at all.
    may_run: fn() -> anyhow::Result<()>,
    run: fn(&mut Session<'_>) -> anyhow::Result<()>,
}

/// How many connections a lab holds at a time.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Fewer than this prove nothing.
    least: u32,
    usual: u32,
    most: u32,
    /// Whether the lab may lower the usual number to what the host has room for.
    shrinks: bool,
}

/// All labs, in teaching order.
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
pub struct LabOptions {
    /// Which one.
    pub lab: &'static Lab,
    /// Where its output goes.
    pub form: Form,
    /// Whether to wait for the person before each step.
    pub waits: bool,
    /// At most this many connections at a time; the lab's usual number without one.
    pub scale: Option<u32>,
    /// Write a recording to this file.
    pub record: Option<PathBuf>,
    /// Options of the engine that watches.
    pub engine: engine::EngineOptions,
}

/// Where the output of a lab goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Plain text, line by line.
    Plain,
    /// The report alone, as JSON.
    Json,
    /// The live screen, with the transcript beside it.
    Screen,
}

/// Prints the labs.
pub fn list(out: &mut impl Write) -> anyhow::Result<()> {
    names(out)?;
    writeln!(out, "\nobserver lab NAME runs one. observer explain NAME explains its theory with this host's numbers.")?;
    Ok(())
}

fn names(out: &mut impl Write) -> io::Result<()> {
    LABS.into_iter().try_for_each(|lab| name(lab.name, lab.claim, out))
}

/// A name and beside it its description, in lines of plain text.
fn name(name: &str, words: &str, out: &mut impl Write) -> io::Result<()> {
    const NAME: usize = 16;
    labelled::write(out, name, NAME, words, PLAIN_WIDTH)
}

/// Runs a lab; its verdict becomes the exit status.
pub fn run(options: LabOptions, look: tui::Look, out: impl Write + Send) -> anyhow::Result<ExitCode> {
    if options.form == Form::Screen {
        live_screen::require_size(options.lab)?;
    }
    if let Some(file) = &options.record {
        ensure!(file != Path::new(STANDARD), "a lab cannot record to standard output, which has its text: name a file");
        NewFile::check(file, Replaces::Nothing)?;
    }
    let (may_use_bpf, scale, needs) = prepare(&options)?;
    if options.form == Form::Screen && may_use_bpf {
        return live_screen::run(options, scale, needs, look);
    }
    let (watcher, engine) = if may_use_bpf {
        let (watcher, engine) = watcher::start(options.engine, options.record.as_ref())?;
        (Some(watcher), Some(engine.run()?))
    } else {
        ensure!(options.record.is_none(), "recording needs the rights to use BPF: run it as root");
        (None, None)
    };
    let mut presenter: Box<dyn Presenter + '_> = match options.form {
        // Without the rights to watch there is no live screen to show.
        Form::Plain | Form::Screen => Box::new(Plain::new(out, options.waits)),
        Form::Json => Box::new(Json(out)),
    };
    let conducted = conduct(&options, scale, needs, watcher, presenter.as_mut());
    // The engine's own error says more than the lab's.
    if let Some(engine) = engine {
        engine.join().map_err(|_| anyhow!("the engine panicked: please report this"))??;
    }
    Ok(conducted?.0.into())
}

/// Enters the namespace, and checks that the host has what the lab needs.
fn prepare(options: &LabOptions) -> anyhow::Result<(bool, u32, Needs)> {
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

/// Runs the lab and judges it. Returns the workers too, because they hold the connections.
fn conduct(
    options: &LabOptions,
    scale: u32,
    uses: Needs,
    watcher: Option<Watcher>,
    presenter: &mut dyn Presenter,
) -> anyhow::Result<(Verdict, WorkerPool)> {
    let (lab, began, observed) = (options.lab, Instant::now(), watcher.is_some());
    let note = (!observed).then(|| {
        "Without the rights to use BPF, observer cannot watch. The lab compares theory and kernel alone. Run it as \
         root."
            .to_owned()
    });
    presenter.show(LabEvent::Opening { lab, uses: uses.sentence(), note })?;
    let mut session = Session::new(scale, watcher, presenter);
    (lab.run)(&mut session)?;
    let duration_seconds = began.elapsed().as_secs_f64();
    let Session { workers, checks, measurements, curve, inconclusive_reason, .. } = session;
    // The person wants to read the last step, too.
    presenter.wait()?;
    let verdict = report::verdict(&checks, inconclusive_reason.as_deref());
    let report = Report {
        schema: crate::export::SCHEMA,
        lab: lab.name,
        claim: lab.claim,
        verdict,
        inconclusive_reason,
        scale,
        uses,
        observed,
        checks,
        measurements,
        curve,
        duration_seconds,
    };
    presenter.show(LabEvent::Verdict(Box::new(report)))?;
    Ok((verdict, workers))
}

/// For labs that may run anywhere.
#[expect(clippy::unnecessary_wraps, reason = "one lab asks for more")]
const fn anywhere() -> anyhow::Result<()> {
    Ok(())
}

/// The lab of this name, or an error that lists the names.
pub fn parse(name: &str) -> Result<&'static Lab, io::Error> {
    let names = || LABS.map(|lab| lab.name).join(", ");
    Lab::named(name).ok_or_else(|| io::Error::other(format!("no such lab; there are {}", names())))
}
