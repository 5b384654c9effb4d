//! What `observer serve` knows of its HTTP process: how its exports to an OTLP receiver ended, and what its sandbox lacks.

/// How one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportResult {
    /// The receiver has all of it.
    Success,
    /// The receiver rejected some of its points.
    Partial,
    /// The receiver refused it, and would refuse it again.
    Rejected,
    /// The receiver said to try later.
    Unavailable,
    /// There was no connection, no answer in time, or no sense in it.
    Failed,
}

impl ExportResult {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Success, Self::Partial, Self::Rejected, Self::Unavailable, Self::Failed];

    /// The label `result`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Rejected => "rejected",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// Parts of a sandbox by their labels `part`, and whether each is missing.
pub type SandboxParts = [(&'static str, bool); 5];

/// How often each happened since `observer serve` started.
pub type ExportCounts = [(ExportResult, u64); ExportResult::ALL.len()];
