//! What a lab found: measured statements, each with what was foretold and what the kernel did, and the verdict on all.

use std::process::ExitCode;

use serde::Serialize;

use super::needs::Needs;

/// A number, or what became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// A number.
    Count(u64),
    /// "works", or the name of an error.
    Outcome(String),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<&str> for Value {
    fn from(outcome: &str) -> Self {
        Self::Outcome(outcome.to_owned())
    }
}

impl From<String> for Value {
    fn from(outcome: String) -> Self {
        Self::Outcome(outcome)
    }
}

/// How what the kernel did relates to what was foretold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Relation {
    /// It must be the same.
    Equal,
    /// It must be more.
    Above,
}

/// One measured statement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// What was counted or tried.
    pub(crate) what: String,
    /// What must hold between them.
    pub(crate) relation: Relation,
    /// By the rule.
    pub(crate) theory: Value,
    /// By observer's own count or prediction; absent where it was not asked, or may not look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observer: Option<Value>,
    /// What the kernel counted or did.
    pub(crate) kernel: Value,
    /// Whether it does.
    pub(crate) holds: bool,
}

impl Check {
    /// Theory, observer (where it was asked) and kernel must say the same.
    pub(crate) fn equal(
        what: impl Into<String>,
        theory: impl Into<Value>,
        observer: Option<Value>,
        kernel: impl Into<Value>,
    ) -> Self {
        let (theory, kernel) = (theory.into(), kernel.into());
        let holds = theory == kernel && observer.as_ref().is_none_or(|observer| *observer == kernel);
        Self { what: what.into(), relation: Relation::Equal, theory, observer, kernel, holds }
    }

    /// The kernel's number must be above the one of the theory.
    pub(crate) fn above(what: impl Into<String>, floor: u64, kernel: u64) -> Self {
        let relation = Relation::Above;
        let holds = kernel > floor;
        Self { what: what.into(), relation, theory: floor.into(), observer: None, kernel: kernel.into(), holds }
    }
}

/// Whether a claim was borne out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every statement held.
    BorneOut,
    /// One did not.
    NotBorneOut,
    /// The measurement says nothing either way.
    Inconclusive,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::BorneOut => Self::SUCCESS,
            Verdict::NotBorneOut | Verdict::Inconclusive => Self::FAILURE,
        }
    }
}

/// A number that was measured and that no verdict hangs on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fact {
    pub(crate) what: String,
    pub(crate) value: u64,
    pub(crate) unit: &'static str,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    /// How much of the range was in use, in percent.
    pub(crate) percent: u32,
    /// The median of connect() from there to the next point, in nanoseconds.
    pub(crate) median_nanos: u64,
}

/// All of it: what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) lab: &'static str,
    pub(crate) claim: &'static str,
    pub(crate) verdict: Verdict,
    /// Why the measurement says nothing, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inconclusive: Option<String>,
    pub(crate) scale: u32,
    pub(crate) uses: Needs,
    /// Whether observer counted along.
    pub(crate) observed: bool,
    pub(crate) checks: Vec<Check>,
    pub(crate) facts: Vec<Fact>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) curve: Vec<Point>,
    pub(crate) took_seconds: f64,
}

/// The verdict on these statements; none at all is no proof.
pub(super) fn verdict(checks: &[Check], inconclusive: Option<&str>) -> Verdict {
    match (checks.iter().all(|check| check.holds) && !checks.is_empty(), inconclusive) {
        (false, _) => Verdict::NotBorneOut,
        (true, Some(_)) => Verdict::Inconclusive,
        (true, None) => Verdict::BorneOut,
    }
}

/// What became of a call, as a value.
pub(crate) fn outcome(errno: Option<i32>) -> Value {
    errno.map_or_else(|| "works".to_owned(), errno_name).into()
}

/// The name of an error number of the calls that labs make.
pub(crate) fn errno_name(errno: i32) -> String {
    match errno {
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL".to_owned(),
        libc::EADDRINUSE => "EADDRINUSE".to_owned(),
        libc::EMFILE => "EMFILE".to_owned(),
        libc::ENFILE => "ENFILE".to_owned(),
        libc::ECONNREFUSED => "ECONNREFUSED".to_owned(),
        libc::ETIMEDOUT => "ETIMEDOUT".to_owned(),
        other => std::io::Error::from_raw_os_error(other).to_string(),
    }
}

/// What a call came to, in words.
pub(crate) fn refusal(errno: Option<i32>) -> String {
    match errno {
        None => "it works".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL (\"cannot assign requested address\")".to_owned(),
        Some(libc::EADDRINUSE) => "EADDRINUSE (\"address already in use\")".to_owned(),
        Some(libc::EMFILE) => "EMFILE (\"too many open files\")".to_owned(),
        Some(errno) => errno_name(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_that_does_not_hold_decides() {
        let good = Check::equal("a", 5_u32, Some(5_u32.into()), 5_u32);
        let wrong_observer = Check::equal("b", 5_u32, Some(4_u32.into()), 5_u32);
        let wrong_kernel = Check::equal("c", "works", None, outcome(Some(libc::EMFILE)));
        assert_eq!(verdict(&[], None), Verdict::NotBorneOut);
        assert_eq!(verdict(std::slice::from_ref(&good), None), Verdict::BorneOut);
        assert_eq!(verdict(std::slice::from_ref(&good), Some("noise")), Verdict::Inconclusive);
        for wrong in [wrong_observer, wrong_kernel, Check::above("d", 5, 5)] {
            assert_eq!(verdict(&[good.clone(), wrong], None), Verdict::NotBorneOut);
        }
    }
}
