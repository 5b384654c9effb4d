//! Data quality: which hooks run, which records were lost, how old the last scan is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gaps::Gaps;
pub use super::gaps::ProcessScope;
pub use super::hook::{AttachMethod, Hook};

/// How a hook is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// The hook.
    pub hook: Hook,
    /// The attach method in use; `None` when the hook is missing.
    pub method: Option<AttachMethod>,
    /// Preferred methods that failed, and why.
    pub failed: Vec<FailedMethod>,
}

/// An attach method that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedMethod {
    /// The attach method.
    pub method: AttachMethod,
    /// The kernel's answer, or what the kernel lacks.
    pub because: String,
}

/// A finished scan of the kernel's socket table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSummary {
    /// When it ended, as time since start.
    pub finished_at: Duration,
    /// How long it ran.
    pub took: Duration,
    /// Sockets of every kind that it found.
    pub found: u32,
}

/// What scans found beyond what events explain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Sockets that were there and not known.
    pub added: u64,
    /// Sockets that were known and not there.
    pub removed: u64,
    /// Sockets in another state than known.
    pub changed: u64,
}

impl Drift {
    /// All of it.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.added + self.removed + self.changed
    }
}

/// Lost records, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// The ring buffer was full.
    pub ring_full: u64,
    /// The ring buffer was full when a scan wrote to it: that scan swept nothing.
    pub scan_ring_full: u64,
    /// The kernel side could not read a field.
    pub read_failed: u64,
    /// Records that user space could not decode.
    pub undecodable: u64,
    /// Missed runs: the kernel skipped a hook because it interrupted itself (`recursion_misses` of the program), or
    /// because more returns were pending than a kretprobe holds (`nmissed`, reported since 6.7). `None` before 5.12, where
    /// the kernel reports neither.
    pub missed: Option<u64>,
}

impl Losses {
    /// Missed runs that the kernel reported; 0 where it reports none.
    #[must_use]
    pub const fn missed_if_reported(self) -> u64 {
        match self.missed {
            Some(missed) => missed,
            None => 0,
        }
    }

    /// All of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.ring_full + self.scan_ring_full + self.read_failed + self.undecodable + self.missed_if_reported()
    }
}

/// What `observer` itself costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnCost {
    /// CPU time over the last second, as a share of one CPU.
    pub cpu: f64,
    /// Nanoseconds of CPU time for each event of that second; `None` where there were too few events.
    pub ns_per_event: Option<f64>,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// The data quality of a snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// Hooks, in the order of [`Hook::ALL`].
    pub hooks: Vec<HookStatus>,
    /// Records of hooks since start, without those of scans.
    pub events_total: u64,
    /// Events per second, over the last second.
    pub events_per_second: f64,
    /// Lost records.
    pub losses: Losses,
    /// When a loss was last counted, as time since start.
    pub last_loss_at: Option<Duration>,
    /// Scans finished since start.
    pub scans_total: u64,
    /// The last finished scan.
    pub last_scan: Option<ScanSummary>,
    /// What scans found beyond what events explain, since the first scan.
    pub drift: Drift,
    /// What `observer` itself cost over the last second.
    pub own: Option<OwnCost>,
    /// Which processes' open files the fd scan shows.
    pub processes: ProcessScope,
    /// Accepted connections that the accept hook missed. An fd scan found their process.
    pub unseen_accepts: u64,
    /// What observer could not read, and rounds that it skipped.
    pub gaps: Gaps,
    /// When a round was last skipped, as time since start.
    pub last_skip_at: Option<Duration>,
}

impl Quality {
    /// Hooks without a working attach method.
    pub fn missing(&self) -> impl Iterator<Item = &HookStatus> {
        self.hooks.iter().filter(|status| status.method.is_none())
    }

    /// observer skipped a round and no scan has finished since: numbers are as old as the last scan.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        match (self.last_skip_at, self.last_scan) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(skip), Some(scan)) => skip > scan.finished_at,
        }
    }

    /// Records were lost and no scan has finished since: counts may be wrong.
    #[must_use]
    pub fn is_unhealed(&self) -> bool {
        match (self.last_loss_at, self.last_scan) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(loss), Some(scan)) => loss + scan.took >= scan.finished_at,
        }
    }
}
