//! Presenters show what happens in a lab: line by line in a terminal, beside the screen, or as one JSON report.

use std::io::{self, BufRead as _, Write};

use super::{
    Lab,
    report::{Check, CheckValue, Point, Relation, Report, Verdict},
};
use crate::{
    frame::transcript::Speaker,
    model::units::grouped,
    present::{
        format,
        labelled::{self, PLAIN_WIDTH},
    },
};

/// Something that happened in a lab and that a presenter may show.
#[derive(Clone, Debug)]
pub(crate) enum LabEvent {
    /// The claim, and what the lab will use. It comes first.
    Opening { lab: &'static Lab, uses: String, note: Option<String> },
    /// A step begins.
    Step { number: u32, title: String },
    /// A speaker says a line.
    Said(Speaker, String),
    /// Progress of a long step.
    Progress { what: &'static str, done: u64, of: u64 },
    /// The points of the curve measured so far: one more than in the event before.
    Curve(Vec<Point>),
    /// The verdict. It comes last.
    Verdict(Box<Report>),
}

/// Shows lab events.
pub(crate) trait Presenter: Send {
    /// Shows an event.
    fn show(&mut self, event: LabEvent) -> anyhow::Result<()>;

    /// Called before each step. Waits for the person where each step waits for a key.
    fn wait(&mut self) -> anyhow::Result<()>;
}

/// Columns of the word before each line.
const LABEL: usize = 12;

/// Prints events as plain text.
pub(crate) struct Plain<W> {
    out: W,
    /// Fifths of the current step that have been printed.
    fifths: u64,
    /// Whether to wait for Enter before each step.
    waits: bool,
}

impl<W: Write> Plain<W> {
    pub(crate) const fn new(out: W, waits: bool) -> Self {
        Self { out, fifths: 0, waits }
    }

    fn entry(&mut self, label: &str, words: &str) -> io::Result<()> {
        labelled::write(&mut self.out, label, LABEL, words, PLAIN_WIDTH)
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
        if !report.measurements.is_empty() {
            writeln!(self.out, "\nMEASURED")?;
            for measurement in &report.measurements {
                writeln!(
                    self.out,
                    "     {:<width$} {:>NUMBER$} {}",
                    measurement.what,
                    grouped(measurement.value),
                    measurement.unit,
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
const WHAT: usize = PLAIN_WIDTH - 3 * (NUMBER + 1);

/// The three values of a check: theory, observer, kernel.
pub(crate) fn columns(check: &Check) -> [String; 3] {
    let text = |value: &CheckValue| match value {
        CheckValue::Count(count) => grouped(*count),
        CheckValue::Outcome(outcome) => outcome.clone(),
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
    let (all, seconds) = (report.checks.len(), report.duration_seconds);
    let (short, claim) = (report.lab, report.claim);
    match report.verdict {
        Verdict::Confirmed => {
            let of = if all == 1 { "1 check holds".to_owned() } else { format!("all {all} checks hold") };
            format!("confirmed: {claim} ({of}; {seconds:.1} s)")
        }
        Verdict::Refuted => {
            format!("REFUTED: {failed} of {all} checks of lab {short} failed on this host")
        }
        Verdict::Inconclusive => {
            format!(
                "inconclusive: {}",
                report.inconclusive_reason.as_deref().unwrap_or("the measurement does not decide")
            )
        }
    }
}

/// One line of a curve: used %, time, and a bar of that length. The first point sets the scale, so that the curve can
/// be drawn during the measurement.
pub(crate) fn bar(point: Point, first: Point, width: usize) -> String {
    /// A point this many times the first one fills the width.
    const FULL: u64 = 60;
    let cells = u64::try_from(width).unwrap_or(0) * point.connect_median_ns / (FULL * first.connect_median_ns.max(1));
    let cells = usize::try_from(cells).unwrap_or(width).clamp(1, width.max(1));
    format!(
        "{:>3} % {:>7} µs {}",
        point.used_percent,
        grouped(point.connect_median_ns.div_ceil(1000)),
        "█".repeat(cells)
    )
}

/// A whole curve in five lines, for a screen that redraws it with each point. The highest point fills the height.
pub(crate) fn chart(points: &[Point]) -> Vec<String> {
    const ROWS: u64 = 4;
    const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let top = points.iter().map(|point| point.connect_median_ns).max().unwrap_or(1).max(1);
    let cell = |point: &Point, row: u64| {
        let eighths = (point.connect_median_ns * ROWS * 8 / top).max(1);
        let filled = usize::try_from(eighths.saturating_sub(row * 8).min(8)).unwrap_or(8);
        EIGHTHS[filled].repeat(2)
    };
    let mut lines: Vec<String> =
        (0..ROWS).rev().map(|row| points.iter().map(|point| cell(point, row)).collect()).collect();
    if let (Some(first), Some(last)) = (lines.first_mut(), points.last()) {
        *first = format!("{first:<42}connect(): {} µs", grouped(last.connect_median_ns.div_ceil(1000)));
    }
    lines.push(format!("{:<20}{:<15}{:>5}  of the ports in use", "0 %", "50 %", "100 %"));
    lines
}

impl<W: Write + Send> Presenter for Plain<W> {
    fn show(&mut self, event: LabEvent) -> anyhow::Result<()> {
        match event {
            LabEvent::Opening { lab, uses, note } => {
                self.entry("LAB", lab.name)?;
                self.entry("CLAIM", lab.claim)?;
                self.entry("USES", &uses)?;
                self.entry(
                    "",
                    "Nothing outside the private namespace changes. All of this is gone when the lab ends.",
                )?;
                if let Some(note) = note {
                    self.entry("NOTE", &note)?;
                }
            }
            LabEvent::Step { number, title } => {
                self.fifths = 0;
                writeln!(self.out)?;
                labelled::write(&mut self.out, &format!("{number}."), 3, &title, PLAIN_WIDTH)?;
            }
            LabEvent::Said(speaker, words) => self.entry(&format!("   {}", speaker.name()), &words)?,
            LabEvent::Progress { what, done, of } => {
                let fifths = done * 5 / of.max(1);
                if fifths > self.fifths {
                    self.fifths = fifths;
                    writeln!(self.out, "   {:<8}{:>9} of {} {what}", "", grouped(done), grouped(of))?;
                }
            }
            // Each event adds one point: print that one alone.
            LabEvent::Curve(points) => {
                if let (Some(first), Some(last)) = (points.first(), points.last()) {
                    if points.len() == 1 {
                        writeln!(self.out, "   in use    connect()")?;
                    }
                    writeln!(self.out, "   {}", bar(*last, *first, PLAIN_WIDTH - 21))?;
                }
            }
            LabEvent::Verdict(report) => self.verdict(&report)?,
        }
        self.out.flush()?;
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        if !self.waits {
            return Ok(());
        }
        writeln!(self.out, "\n-- Press Enter for the next step --")?;
        self.out.flush()?;
        io::stdin().lock().read_line(&mut String::new())?;
        Ok(())
    }
}

/// Prints the report alone, as JSON.
pub(crate) struct Json<W>(pub(crate) W);

impl<W: Write + Send> Presenter for Json<W> {
    fn show(&mut self, event: LabEvent) -> anyhow::Result<()> {
        if let LabEvent::Verdict(report) = event {
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
        let point = |used_percent, micros: u64| Point { used_percent, connect_median_ns: micros * 1000 };
        let lines = chart(&[point(0, 25), point(5, 25), point(10, 800)]);
        assert_eq!(lines[0], format!("{:<42}connect(): 800 µs", "    ██"));
        assert_eq!((lines[3].as_str(), lines.len()), ("▁▁▁▁██", 5));
        assert_eq!(chart(&[]).len(), 5);
        assert!(bar(point(95, 9_999), point(0, 1), 30).ends_with(&"█".repeat(30)));
    }
}
