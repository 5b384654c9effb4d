//! Data quality: which hooks run, which records were lost, how old the last scan is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::gaps::ProcessScope;
pub use super::hook::{AttachMethod, Hook};
use super::{
    capability::{CAPABILITIES, Capability, Holding},
    cost::Cost,
    gaps::Gaps,
    units::NetnsId,
};

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

/// The share of one CPU that regular scans and readings take at most, in thousandths.
pub const REGULAR_SCANS: u32 = 15;

/// A finished round of scans: of the namespaces that were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSummary {
    /// When it ended, as time since start.
    pub finished_at: Duration,
    /// How long it ran.
    pub took: Duration,
    /// Sockets of every kind that it found.
    pub found: u32,
}

/// A finished scan of one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceScan {
    /// The namespace.
    pub netns: NetnsId,
    /// When it began, as time since start.
    pub began_at: Duration,
    /// When it ended, as time since start.
    pub finished_at: Duration,
    /// Sockets of every kind that it found.
    pub found: u32,
}

/// How far scans have come, over all network namespaces that observer can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// These namespaces.
    pub namespaces: u32,
    /// Those of them that were scanned since start.
    pub scanned: u32,
    /// Sockets of every kind that the last scan of each found.
    pub found: u64,
    /// The last scan of the namespace whose last scan is longest ago.
    pub oldest: Option<NamespaceScan>,
}

impl Coverage {
    /// Every namespace was scanned at least once.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.scanned == self.namespaces
    }
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

    /// What was lost after `before` was counted.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            ring_full: self.ring_full.saturating_sub(before.ring_full),
            scan_ring_full: self.scan_ring_full.saturating_sub(before.scan_ring_full),
            read_failed: self.read_failed.saturating_sub(before.read_failed),
            undecodable: self.undecodable.saturating_sub(before.undecodable),
            missed: match self.missed {
                Some(missed) => Some(missed.saturating_sub(before.missed_if_reported())),
                None => None,
            },
        }
    }

    /// All of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.ring_full + self.scan_ring_full + self.read_failed + self.undecodable + self.missed_if_reported()
    }
}

/// What a reader of a stream did not get, because it took less than came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamLoss {
    /// Inputs of every kind.
    pub inputs: u64,
    /// The namespaces that were there when the stream went on: others have ended in between.
    pub namespaces: Vec<NetnsId>,
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
    /// Inputs that a stream lost on its way here: its reader took less than came. Always 0 where the engine runs.
    pub stream_lost: u64,
    /// When a loss was last counted, as time since start.
    pub last_loss_at: Option<Duration>,
    /// Rounds of scans finished since start.
    pub scans_total: u64,
    /// The last finished round.
    pub last_scan: Option<ScanSummary>,
    /// How far scans have come.
    pub coverage: Coverage,
    /// When the last fd scan ended, as time since start. It reads all accept and SYN queues.
    pub last_fd_scan_at: Option<Duration>,
    /// What scans found beyond what events explain, since the first scan.
    pub drift: Drift,
    /// What `observer` itself cost over the last second.
    pub own: Option<OwnCost>,
    /// The same with its hooks, and what `--max-cost` made of it; `None` where nothing limits the cost.
    pub cost: Option<Cost>,
    /// Which processes' open files the fd scan shows.
    pub processes: ProcessScope,
    /// Accepted connections that the accept hook missed. An fd scan found their process.
    pub unseen_accepts: u64,
    /// What observer could not read, and rounds that it skipped.
    pub gaps: Gaps,
    /// The capabilities that observer had at any time: those that it gave up are not in `gaps`.
    pub given_capabilities: u64,
    /// When a round was last skipped, as time since start.
    pub last_skip_at: Option<Duration>,
}

impl Quality {
    /// Everything that was lost, in the kernel and on the way here.
    #[must_use]
    pub const fn lost_total(&self) -> u64 {
        self.losses.total() + self.stream_lost
    }

    /// While hooks are suspended: why, and what that means.
    #[must_use]
    pub fn suspension(&self) -> Option<String> {
        self.cost.and_then(|cost| cost.sentence())
    }

    /// Events that suspended hooks did not record.
    #[must_use]
    pub fn skipped_events(&self) -> u64 {
        self.cost.map_or(0, |cost| cost.skipped)
    }

    /// Hooks without a working attach method.
    pub fn missing(&self) -> impl Iterator<Item = &HookStatus> {
        self.hooks.iter().filter(|status| status.method.is_none())
    }

    /// Each capability that observer can use, and whether it has it.
    pub fn capabilities(&self) -> impl Iterator<Item = (Capability, Holding)> + '_ {
        let holding = |capability| Holding::of(capability, self.gaps.capabilities, self.given_capabilities);
        CAPABILITIES.into_iter().map(move |capability| (capability, holding(capability)))
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

    /// Records were lost, and some namespace was not scanned since: counts may be wrong.
    #[must_use]
    pub fn is_unhealed(&self) -> bool {
        let Some(loss) = self.last_loss_at else { return false };
        let oldest = self.coverage.oldest.map(|scan| scan.began_at);
        let began_at = oldest.or_else(|| self.last_scan.map(|scan| scan.finished_at.saturating_sub(scan.took)));
        !self.coverage.is_complete() || began_at.is_none_or(|began_at| loss >= began_at)
    }
}
