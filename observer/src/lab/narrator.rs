//! Who tells what happens: to a terminal line by line, to a screen, or to nobody until the verdict.

use std::io::{self, BufRead as _, Write};

use super::{
    Lab,
    report::{Check, Point, Relation, Report, Value, Verdict},
};
use crate::{
    model::{narration::Voice, units::grouped},
    tui::format,
};

/// A piece of narration.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// Before anything happens: the claim, and what the lab will use.
    Opening { lab: &'static Lab, uses: String, note: Option<String> },
    /// What is about to happen.
    Step { number: u32, title: String },
    /// What is said about it, and by whom.
    Line(Voice, String),
    /// How far a longer step is.
    Progress { what: &'static str, done: u64, of: u64 },
    /// A curve as far as it is measured: one more point than the last time.
    Curve(Vec<Point>),
    /// The end.
    Verdict(Box<Report>),
}

/// Tells a person, or nobody.
pub(crate) trait Narrator: Send {
    /// Passes on a piece of narration.
    fn tell(&mut self, told: Told) -> anyhow::Result<()>;

    /// Called before each step: waits until the person wants it, if the person is to be asked.
    fn wait(&mut self) -> anyhow::Result<()>;
}

/// Columns of plain narration.
const WIDTH: usize = 80;
/// Columns of the word before each line.
const LABEL: usize = 12;

/// Narration as text.
pub(crate) struct Plain<W> {
    out: W,
    /// Fifths of the current step that were told.
    fifths: u64,
    /// Asks before each step.
    waits: bool,
}

impl<W: Write> Plain<W> {
    pub(crate) const fn new(out: W, waits: bool) -> Self {
        Self { out, fifths: 0, waits }
    }

    fn entry(&mut self, label: &str, words: &str) -> io::Result<()> {
        for (i, line) in format::wrapped(words, WIDTH - LABEL).into_iter().enumerate() {
            writeln!(self.out, "{:<LABEL$}{line}", if i == 0 { label } else { "" })?;
        }
        Ok(())
    }

    fn verdict(&mut self, report: &Report) -> io::Result<()> {
        writeln!(
            self.out,
            "\n{:<WHAT$} {:>NUMBER$} {:>NUMBER$} {:>NUMBER$}",
            "RESULT", "THEORY", "OBSERVER", "KERNEL"
        )?;
        for check in &report.checks {
            let [first, rest @ ..] = &format::wrapped(&check.what, WHAT - 5)[..] else { continue };
            let [theory, observer, kernel] = columns(check);
            let mark = if check.holds { "ok" } else { "NOT" };
            writeln!(
                self.out,
                "{mark:<4} {first:<width$} {theory:>NUMBER$} {observer:>NUMBER$} {kernel:>NUMBER$}",
                width = WHAT - 5
            )?;
            for line in rest {
                writeln!(self.out, "     {line}")?;
            }
        }
        if !report.facts.is_empty() {
            writeln!(self.out, "\nMEASURED")?;
            for fact in &report.facts {
                writeln!(
                    self.out,
                    "     {:<width$} {:>NUMBER$} {}",
                    fact.what,
                    grouped(fact.value),
                    fact.unit,
                    width = WHAT - 5
                )?;
            }
        }
        writeln!(self.out)?;
        self.entry("VERDICT", &sentence(report))?;
        self.out.flush()
    }
}

const NUMBER: usize = 13;
const WHAT: usize = WIDTH - 3 * (NUMBER + 1);

/// The three numbers of a check: theory, observer, kernel.
pub(crate) fn columns(check: &Check) -> [String; 3] {
    let text = |value: &Value| match value {
        Value::Count(count) => grouped(*count),
        Value::Outcome(outcome) => outcome.clone(),
    };
    let theory = match check.relation {
        Relation::Equal => text(&check.theory),
        Relation::Above => format!("> {}", text(&check.theory)),
    };
    [theory, check.observer.as_ref().map_or_else(|| "-".to_owned(), text), text(&check.kernel)]
}

/// The verdict in words.
pub(crate) fn sentence(report: &Report) -> String {
    let failed = report.checks.iter().filter(|check| !check.holds).count();
    let (all, seconds) = (report.checks.len(), report.took_seconds);
    let (short, claim) = (report.lab, report.claim);
    match report.verdict {
        Verdict::BorneOut => {
            let of = if all == 1 { "its statement holds".to_owned() } else { format!("all {all} statements hold") };
            format!("borne out: {claim} ({of}; {seconds:.1} s)")
        }
        Verdict::NotBorneOut => {
            format!("NOT BORNE OUT: of the {all} statements of lab {short} {failed} did not hold here")
        }
        Verdict::Inconclusive => {
            format!("inconclusive: {}", report.inconclusive.as_deref().unwrap_or("the measurement says nothing"))
        }
    }
}

/// One line of a curve: how full, how long, and a bar as long. The scale is that of the first point, so that a curve can
/// be drawn while it is measured.
pub(crate) fn bar(point: Point, first: Point, width: usize) -> String {
    /// So many times the first point fill the width.
    const FULL: u64 = 60;
    let cells = u64::try_from(width).unwrap_or(0) * point.median_nanos / (FULL * first.median_nanos.max(1));
    let cells = usize::try_from(cells).unwrap_or(width).clamp(1, width.max(1));
    format!("{:>3} % {:>7} µs {}", point.percent, grouped(point.median_nanos.div_ceil(1000)), "█".repeat(cells))
}

/// A whole curve in few lines, for a screen that draws it anew with each point: its highest point fills the height.
pub(crate) fn chart(points: &[Point]) -> Vec<String> {
    const ROWS: u64 = 4;
    const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let top = points.iter().map(|point| point.median_nanos).max().unwrap_or(1).max(1);
    let cell = |point: &Point, row: u64| {
        let eighths = (point.median_nanos * ROWS * 8 / top).max(1);
        let filled = usize::try_from(eighths.saturating_sub(row * 8).min(8)).unwrap_or(8);
        EIGHTHS[filled].repeat(2)
    };
    let mut lines: Vec<String> =
        (0..ROWS).rev().map(|row| points.iter().map(|point| cell(point, row)).collect()).collect();
    if let (Some(first), Some(last)) = (lines.first_mut(), points.last()) {
        *first = format!("{first:<42}connect(): {} µs", grouped(last.median_nanos.div_ceil(1000)));
    }
    lines.push(format!("{:<20}{:<15}{:>5}  of the ports in use", "0 %", "50 %", "100 %"));
    lines
}

impl<W: Write + Send> Narrator for Plain<W> {
    fn tell(&mut self, told: Told) -> anyhow::Result<()> {
        match told {
            Told::Opening { lab, uses, note } => {
                self.entry("LAB", lab.name)?;
                self.entry("CLAIM", lab.claim)?;
                self.entry("USES", &uses)?;
                self.entry(
                    "",
                    "Nothing outside of the private namespace changes, and when the lab ends all of this is gone.",
                )?;
                if let Some(note) = note {
                    self.entry("NOTE", &note)?;
                }
            }
            Told::Step { number, title } => {
                self.fifths = 0;
                writeln!(self.out)?;
                for (i, line) in format::wrapped(&title, WIDTH - 3).into_iter().enumerate() {
                    if i == 0 { writeln!(self.out, "{number}. {line}")? } else { writeln!(self.out, "   {line}")? }
                }
            }
            Told::Line(voice, words) => self.entry(&format!("   {}", voice.name()), &words)?,
            Told::Progress { what, done, of } => {
                let fifths = done * 5 / of.max(1);
                if fifths > self.fifths {
                    self.fifths = fifths;
                    writeln!(self.out, "   {:<8}{:>9} of {} {what}", "", grouped(done), grouped(of))?;
                }
            }
            // It grows by a point at a time.
            Told::Curve(points) => {
                if let (Some(first), Some(last)) = (points.first(), points.last()) {
                    if points.len() == 1 {
                        writeln!(self.out, "   in use    connect()")?;
                    }
                    writeln!(self.out, "   {}", bar(*last, *first, WIDTH - 21))?;
                }
            }
            Told::Verdict(report) => self.verdict(&report)?,
        }
        self.out.flush()?;
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        if !self.waits {
            return Ok(());
        }
        writeln!(self.out, "\n-- Enter: the next step --")?;
        self.out.flush()?;
        io::stdin().lock().read_line(&mut String::new())?;
        Ok(())
    }
}

/// Says nothing but the verdict, as JSON.
pub(crate) struct Json<W>(pub(crate) W);

impl<W: Write + Send> Narrator for Json<W> {
    fn tell(&mut self, told: Told) -> anyhow::Result<()> {
        if let Told::Verdict(report) = told {
            serde_json::to_writer_pretty(&mut self.0, &report)?;
            self.0.write_all(b"\n")?;
            self.0.flush()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_fills_its_height_at_the_highest_point() {
        let point = |percent, micros: u64| Point { percent, median_nanos: micros * 1000 };
        let lines = chart(&[point(0, 25), point(5, 25), point(10, 800)]);
        assert_eq!(lines[0], format!("{:<42}connect(): 800 µs", "    ██"));
        assert_eq!((lines[3].as_str(), lines.len()), ("▁▁▁▁██", 5));
        assert_eq!(chart(&[]).len(), 5);
        assert!(bar(point(95, 9_999), point(0, 1), 30).ends_with(&"█".repeat(30)));
    }
}
