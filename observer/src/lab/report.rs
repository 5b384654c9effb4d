//! The report of a lab: its checks, each with what theory and observer predicted and what the kernel did, and the
//! verdict.

use std::process::ExitCode;

use serde::Serialize;

use super::needs::Needs;

/// A number, or the outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum CheckValue {
    /// A number.
    Count(u64),
    /// "works", or the name of an error.
    Outcome(String),
}

impl From<u64> for CheckValue {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for CheckValue {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<&str> for CheckValue {
    fn from(outcome: &str) -> Self {
        Self::Outcome(outcome.to_owned())
    }
}

impl From<String> for CheckValue {
    fn from(outcome: String) -> Self {
        Self::Outcome(outcome)
    }
}

/// How the kernel's value must relate to the predicted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Relation {
    /// Both must be equal.
    Equal,
    /// The kernel's must be greater.
    Above,
}

/// One measured statement of a lab.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// What the lab counted or tried.
    pub(crate) what: String,
    /// How `kernel` must relate to `theory`.
    pub(crate) relation: Relation,
    /// What the rule predicts.
    pub(crate) theory: CheckValue,
    /// What observer counted or predicted; absent where the lab did not ask it, or where it lacks the rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observer: Option<CheckValue>,
    /// What the kernel counted or did.
    pub(crate) kernel: CheckValue,
    /// Whether the relation holds.
    pub(crate) holds: bool,
}

impl Check {
    /// Theory, observer (where the lab asked it) and kernel must agree.
    pub(crate) fn equal(
        what: impl Into<String>,
        theory: impl Into<CheckValue>,
        observer: Option<CheckValue>,
        kernel: impl Into<CheckValue>,
    ) -> Self {
        let (theory, kernel) = (theory.into(), kernel.into());
        let holds = theory == kernel && observer.as_ref().is_none_or(|observer| *observer == kernel);
        Self { what: what.into(), relation: Relation::Equal, theory, observer, kernel, holds }
    }

    /// The kernel's number must be greater than the theory's.
    pub(crate) fn above(what: impl Into<String>, floor: u64, kernel: u64) -> Self {
        let relation = Relation::Above;
        let holds = kernel > floor;
        Self { what: what.into(), relation, theory: floor.into(), observer: None, kernel: kernel.into(), holds }
    }
}

/// The verdict on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every check holds.
    Confirmed,
    /// At least one check does not hold, or there was none.
    Refuted,
    /// Every check holds, but the measurement is too noisy to decide.
    Inconclusive,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Confirmed => Self::SUCCESS,
            Verdict::Refuted | Verdict::Inconclusive => Self::FAILURE,
        }
    }
}

/// A measured number that does not affect the verdict.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) what: String,
    pub(crate) value: u64,
    pub(crate) unit: &'static str,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    /// Share of the port range in use, in percent.
    pub(crate) used_percent: u32,
    /// Median duration of connect() from this point to the next, in nanoseconds.
    pub(crate) connect_median_ns: u64,
}

/// The whole report, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Version of this format: [`crate::export::SCHEMA`].
    pub(crate) schema: u32,
    pub(crate) lab: &'static str,
    pub(crate) claim: &'static str,
    pub(crate) verdict: Verdict,
    /// Why the measurement does not decide, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inconclusive_reason: Option<String>,
    /// Connections that the lab holds at a time, at most.
    pub(crate) scale: u32,
    /// What the lab needs of the host.
    pub(crate) uses: Needs,
    /// Whether observer had the rights to watch the lab.
    pub(crate) observed: bool,
    pub(crate) checks: Vec<Check>,
    pub(crate) measurements: Vec<Measurement>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) curve: Vec<Point>,
    /// Duration of the lab, in seconds.
    pub(crate) duration_seconds: f64,
}

/// The verdict on these checks. A lab without checks proves nothing.
pub(super) fn verdict(checks: &[Check], inconclusive: Option<&str>) -> Verdict {
    match (checks.iter().all(|check| check.holds) && !checks.is_empty(), inconclusive) {
        (false, _) => Verdict::Refuted,
        (true, Some(_)) => Verdict::Inconclusive,
        (true, None) => Verdict::Confirmed,
    }
}

/// The outcome of a call, as a value.
pub(crate) fn outcome(errno: Option<i32>) -> CheckValue {
    errno.map_or_else(|| "works".to_owned(), errno_name).into()
}

/// The name of an errno that the calls of labs return.
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

/// The outcome of a call, in words.
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
    fn one_failed_check_refutes_the_claim() {
        let good = Check::equal("a", 5_u32, Some(5_u32.into()), 5_u32);
        let wrong_observer = Check::equal("b", 5_u32, Some(4_u32.into()), 5_u32);
        let wrong_kernel = Check::equal("c", "works", None, outcome(Some(libc::EMFILE)));
        assert_eq!(verdict(&[], None), Verdict::Refuted);
        assert_eq!(verdict(std::slice::from_ref(&good), None), Verdict::Confirmed);
        assert_eq!(verdict(std::slice::from_ref(&good), Some("noise")), Verdict::Inconclusive);
        for wrong in [wrong_observer, wrong_kernel, Check::above("d", 5, 5)] {
            assert_eq!(verdict(&[good.clone(), wrong], None), Verdict::Refuted);
        }
    }
}
