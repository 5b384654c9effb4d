//! How exports to an OTLP receiver ended.

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

/// How often each happened since `observer serve` started.
pub type ExportCounts = [(ExportResult, u64); ExportResult::ALL.len()];
