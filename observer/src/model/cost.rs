//! What observer costs the host, hooks included, and whether its hooks are suspended for that (`--max-cost`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A share of all CPUs of the host, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CpuShare(u32);

impl CpuShare {
    /// From 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest integer that there is"
    )]
    pub fn from_ratio(ratio: f64) -> Self {
        Self((ratio * 1e6).round() as u32)
    }

    /// From 0 to 1; more where the clocks disagree.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// One part of so many.
    #[must_use]
    pub const fn part(self, of: u32) -> Self {
        Self(self.0 / of)
    }
}

impl fmt::Display for CpuShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.ratio() * 100.0;
        if percent >= 0.1 { write!(f, "{} %", (percent * 10.0).round() / 10.0) } else { write!(f, "{percent} %") }
    }
}

/// What a live engine costs, and what `--max-cost` made of it. Counts are since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The hooks and observer's own CPU time over the last second. While hooks are suspended: what it would be with them.
    pub share: CpuShare,
    /// `--max-cost`.
    pub at_most: CpuShare,
    /// CPU time of the hooks for each record that they write, in nanoseconds.
    pub hook_ns: u32,
    /// Whether this kernel has measured that (`BPF_ENABLE_STATS`); otherwise it is a figure of docs/cost.md.
    pub is_measured: bool,
    /// Whether the hooks that follow sockets are suspended.
    pub is_suspended: bool,
    /// How often they were.
    pub suspensions: u64,
    /// Events that they did not record.
    pub skipped: u64,
}

impl Cost {
    /// While hooks are suspended: why, and what that means.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        self.is_suspended.then(|| {
            format!(
                "hooks suspended beyond --max-cost {} of all CPUs: scans alone count, and totals lack what happens between two \
                 scans",
                self.at_most
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shown_in_percent() {
        let shown = [0.05, 0.000_1, 0.123_456, 1.0, 0.0].map(|ratio| CpuShare::from_ratio(ratio).to_string());
        assert_eq!(shown, ["5 %", "0.01 %", "12.3 %", "100 %", "0 %"]);
    }

    #[test]
    fn only_suspended_hooks_have_a_sentence() {
        let cost = Cost { at_most: CpuShare::from_ratio(0.05), ..Cost::default() };
        assert_eq!(cost.sentence(), None);
        let sentence = Cost { is_suspended: true, ..cost }.sentence().unwrap();
        assert!(sentence.starts_with("hooks suspended beyond --max-cost 5 % of all CPUs: "), "{sentence}");
    }
}
