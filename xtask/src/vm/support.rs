//! `docs/kernel-support.md`: which attach methods work on each kernel, as the tests in the virtual machines found.
//!
//! A test reports it in lines such as these, in the file that `OBSERVER_FACTS` names:
//!
//! ```text
//! hook=accept method=fexit program=accept_fexit result=used
//! hook=accept method=kretprobe program=accept_kretprobe result=works
//! hook=accept method=kprobe.multi program=accept_multi result=missing reason=the kernel has no FPROBE
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use super::kernel::Kernel;

const PAGE: &str = "docs/kernel-support.md";

/// Starts the lines that every update of Debian changes: two pages that differ in them alone are the same.
const SEEN_ON: &str = "- seen on ";

/// What the tests found on one kernel.
pub(crate) struct Facts<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) lines: &'a [String],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The observer uses it by default.
    Used,
    /// It loads, attaches and reports when `--attach` asks for it.
    Works,
    Missing(String),
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    hook: String,
    method: String,
    program: String,
    /// By series.
    outcomes: BTreeMap<String, Outcome>,
}

/// Writes the page.
pub(crate) fn write(facts: &[Facts]) -> Result<()> {
    ensure!(facts.iter().any(|facts| !facts.lines.is_empty()), "no test reported what it found about its kernel");
    fs::write(PAGE, page(facts)?).with_context(|| format!("write {PAGE}"))?;
    println!("{PAGE}: written");
    Ok(())
}

/// Fails unless the page says what was found now.
pub(crate) fn check(facts: &[Facts]) -> Result<()> {
    let page = page(facts)?;
    let committed = fs::read_to_string(PAGE).with_context(|| format!("read {PAGE}"))?;
    if lasting(&committed) == lasting(&page) {
        return Ok(());
    }
    let is_new = |line: &&&str| !lasting(&committed).contains(line);
    let new: Vec<_> = lasting(&page).iter().filter(is_new).map(|line| format!("\n    {line}")).collect();
    bail!("{PAGE} is not what was found; run `cargo xtask vm --write-docs` and commit it. New in it:{}", new.concat())
}

/// The lines of a page that no update of Debian's packages changes.
fn lasting(page: &str) -> Vec<&str> {
    page.lines().filter(|line| !line.starts_with(SEEN_ON)).collect()
}

fn page(facts: &[Facts]) -> Result<String> {
    let rows = rows(facts)?;
    let series: Vec<_> = facts.iter().map(|facts| facts.kernel.series.as_str()).collect();
    let mut reasons = Vec::new();
    let mut page = String::from(
        "# Kernel support\n\n\
         The attach methods of each hook, tried on Debian's cloud kernels in virtual machines. observer uses the method \
         marked **used** by default. A method marked works is a fallback, and works with `--attach`. A dash means that \
         the method fails; the number names the reason below the table. Rows of `missed_runs` show where the kernel \
         reports missed runs of a program or a probe.\n\n\
         `cargo xtask vm --write-docs` generates this page, and `cargo xtask test` fails if it is out of date.\n\n",
    );
    writeln!(page, "| Hook | Attach method | Program | {} |", series.join(" | "))?;
    writeln!(page, "|---|---|---|{}", "---|".repeat(series.len()))?;
    for row in &rows {
        write!(page, "| {} | {} | `{}` |", row.hook, row.method, row.program)?;
        for series in &series {
            write!(page, " {} |", cell(row.outcomes.get(*series), &mut reasons))?;
        }
        page.push('\n');
    }
    if !reasons.is_empty() {
        page.push('\n');
    }
    for (number, reason) in (1..).zip(&reasons) {
        writeln!(page, "{number}. {reason}")?;
    }
    writeln!(page, "\n## Minimum kernel\n\n{}\n\n## Kernels\n", minimum(&rows, &series))?;
    for facts in facts {
        writeln!(page, "{SEEN_ON}{}: {}", facts.kernel.series, facts.kernel.package)?;
    }
    Ok(page)
}

fn cell(outcome: Option<&Outcome>, reasons: &mut Vec<String>) -> String {
    match outcome {
        None => "not tried".to_owned(),
        Some(Outcome::Used) => "**used**".to_owned(),
        Some(Outcome::Works) => "works".to_owned(),
        Some(Outcome::Missing(reason)) => {
            let known = reasons.iter().position(|known| known == reason);
            let index = known.unwrap_or_else(|| {
                reasons.push(reason.clone());
                reasons.len() - 1
            });
            format!("—{}", superscript(index + 1))
        }
    }
}

fn superscript(number: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number.to_string().bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect()
}

/// Rows of this name are not about a hook, but about the kernel's counts of missed runs. Where they are missing, scans repair
/// the counts.
const MISSED_RUNS: &str = "missed_runs";

/// The oldest kernel on which every hook has a method that works.
fn minimum(rows: &[Row], series: &[&str]) -> String {
    let works = |hook: &str, series: &str| {
        rows.iter()
            .any(|row| row.hook == hook && matches!(row.outcomes.get(series), Some(Outcome::Used | Outcome::Works)))
    };
    let is_enough = |series: &&&str| rows.iter().all(|row| row.hook == MISSED_RUNS || works(&row.hook, series));
    match series.iter().find(is_enough) {
        Some(&oldest) if series.first() == Some(&oldest) => {
            format!("Every hook works on Linux {oldest}, the oldest kernel tried.")
        }
        Some(oldest) => format!("Every hook works from Linux {oldest} on; on {} one is missing.", series[0]),
        None => "No kernel has every hook.".to_owned(),
    }
}

fn rows(facts: &[Facts]) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for Facts { kernel, lines } in facts {
        for line in *lines {
            let (hook, method, program, outcome) = parse(line).with_context(|| format!("not a fact: {line}"))?;
            let is_same = |row: &&mut Row| {
                (row.hook.as_str(), row.method.as_str(), row.program.as_str()) == (hook, method, program)
            };
            let row = if let Some(row) = rows.iter_mut().find(is_same) {
                row
            } else {
                let (hook, method, program) = (hook.to_owned(), method.to_owned(), program.to_owned());
                rows.push(Row { hook, method, program, outcomes: BTreeMap::new() });
                rows.last_mut().context("a row was pushed")?
            };
            let before = row.outcomes.insert(kernel.series.clone(), outcome.clone());
            let is_new = before.is_none_or(|before| before == outcome);
            ensure!(is_new, "two tests on Linux {} do not agree about this: {line}", kernel.series);
        }
    }
    Ok(rows)
}

fn parse(line: &str) -> Option<(&str, &str, &str, Outcome)> {
    let (hook, rest) = line.strip_prefix("hook=")?.split_once(" method=")?;
    let (method, rest) = rest.split_once(" program=")?;
    let (program, result) = rest.split_once(" result=")?;
    let outcome = match result {
        "used" => Outcome::Used,
        "works" => Outcome::Works,
        _ => Outcome::Missing(result.strip_prefix("missing reason=")?.to_owned()),
    };
    Some((hook, method, program, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(series: &str, package: &str) -> Kernel {
        let (series, package) = (series.to_owned(), package.to_owned());
        Kernel { series, package, image: "vmlinuz".into(), modules: "modules".into() }
    }

    fn lines(results: [&str; 2]) -> Vec<String> {
        let [fexit, kretprobe] = results;
        vec![
            format!("hook=accept method=fexit program=accept_fexit result={fexit}"),
            format!("hook=accept method=kretprobe program=accept_kretprobe result={kretprobe}"),
        ]
    }

    fn page_of(old: [&str; 2], new: [&str; 2], package: &str) -> Result<String> {
        let kernels = [kernel("5.10", package), kernel("6.1", package)];
        let found = [lines(old), lines(new)];
        let facts: Vec<_> = kernels.iter().zip(&found).map(|(kernel, lines)| Facts { kernel, lines }).collect();
        page(&facts)
    }

    #[test]
    fn each_method_has_a_row_and_each_kernel_a_column() {
        let page = page_of(["missing reason=no BTF", "used"], ["used", "works"], "linux-image 1").unwrap();
        for line in [
            "| Hook | Attach method | Program | 5.10 | 6.1 |",
            "| accept | fexit | `accept_fexit` | —¹ | **used** |",
            "| accept | kretprobe | `accept_kretprobe` | **used** | works |",
            "1. no BTF",
            "Every hook works on Linux 5.10, the oldest kernel tried.",
            "- seen on 5.10: linux-image 1",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
        }
    }

    #[test]
    fn the_minimum_is_where_every_hook_works() {
        let page =
            page_of(["missing reason=a", "missing reason=b"], ["missing reason=a", "works"], "linux-image 1").unwrap();
        assert!(page.contains("works from Linux 6.1 on; on 5.10 one is missing"), "{page}");
    }

    #[test]
    fn an_update_of_the_packages_makes_no_new_page() {
        let (used, works) = (["used", "works"], ["works", "used"]);
        let page = |results, package| page_of(results, results, package).unwrap();
        assert_eq!(lasting(&page(used, "linux-image 1")), lasting(&page(used, "linux-image 2")));
        assert_ne!(lasting(&page(used, "linux-image 1")), lasting(&page(works, "linux-image 1")));
    }

    #[test]
    fn what_is_no_fact_is_refused() {
        let error = page_of(["used", "broken"], ["used", "works"], "linux-image 1").unwrap_err();
        assert!(format!("{error:#}").contains("not a fact: hook=accept method=kretprobe"), "{error:#}");
    }
}
