//! How far the numbers can be trusted: which hooks run, what was lost, how old the last scan is.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::gaps::Gaps;
pub use super::gaps::ProcessScope;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hook {
    /// Every TCP state change.
    State,
    /// The end of a socket.
    Destroy,
    /// The process and the four-tuple of a connect().
    Connect,
    /// The process that takes a connection from an accept queue.
    Accept,
    /// System calls that fail for want of a descriptor or a port.
    Failures,
    /// The kernel's socket table.
    Scan,
    /// The processes that hold sockets.
    FdOwners,
}

impl Hook {
    /// In the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::State, Self::Destroy, Self::Connect, Self::Accept, Self::Failures, Self::Scan, Self::FdOwners];

    /// What is known by it.
    #[must_use]
    pub const fn tells(self) -> &'static str {
        match self {
            Self::State => "every change of a TCP socket's state",
            Self::Destroy => "the end of a socket, should its last change have been lost",
            Self::Connect => "the process and the four-tuple of a connect()",
            Self::Accept => "the process that accepts a connection",
            Self::Failures => "descriptors and addresses that processes are refused",
            Self::Scan => "all sockets that are there now",
            Self::FdOwners => "the processes that hold them",
        }
    }

    /// Without it `observer` cannot do its main job.
    #[must_use]
    pub const fn is_vital(self) -> bool {
        matches!(self, Self::State | Self::Scan)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::State => "state",
            Self::Destroy => "destroy",
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Failures => "failures",
            Self::Scan => "scan",
            Self::FdOwners => "fd_owners",
        })
    }
}

/// A way to attach a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttachMethod {
    /// Raw tracepoint.
    RawTracepoint,
    /// Tracepoint of a system call's exit.
    SyscallTracepoint,
    /// Entry of a kernel function, by a BPF trampoline.
    Fentry,
    /// Return of a kernel function, by a BPF trampoline.
    Fexit,
    /// Entry of a kernel function, by a breakpoint or ftrace.
    Kprobe,
    /// Return of a kernel function, by a replaced return address.
    Kretprobe,
    /// Nothing of its own: the state hook tells it too.
    StateHook,
    /// BPF iterator.
    Iterator,
    /// Raw tracepoint whose arguments have types that the verifier knows: fields are read by plain loads.
    BtfTracepoint,
}

impl fmt::Display for AttachMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RawTracepoint => "raw_tp",
            Self::SyscallTracepoint => "syscall_tp",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::StateHook => "state_hook",
            Self::Iterator => "iter",
            Self::BtfTracepoint => "tp_btf",
        })
    }
}

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// The hook.
    pub hook: Hook,
    /// The attach method that carries it; `None` when it is missing.
    pub method: Option<AttachMethod>,
    /// Better attach methods that were tried, and why each of them failed.
    pub failed: Vec<FailedMethod>,
}

/// A attach method that could not be used.
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

/// Records that did not reach the model, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// The ring buffer was full.
    pub ring_full: u64,
    /// The ring buffer was full when a scan wrote to it: that scan swept nothing.
    pub scan_ring_full: u64,
    /// The kernel side could not read a field.
    pub read_failed: u64,
    /// User space could not make sense of a record.
    pub undecodable: u64,
    /// The kernel did not run a hook: it interrupted itself (`recursion_misses` of the program), or more returns were
    /// pending than a kretprobe holds (`nmissed`, told from 6.7 on). `None` before 5.12, which tell nothing of it.
    pub missed: Option<u64>,
}

impl Losses {
    /// Runs that the kernel left out, as far as it tells.
    #[must_use]
    pub const fn missed_if_told(self) -> u64 {
        match self.missed {
            Some(missed) => missed,
            None => 0,
        }
    }

    /// All of them.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.ring_full + self.scan_ring_full + self.read_failed + self.undecodable + self.missed_if_told()
    }
}

/// What `observer` itself takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnCost {
    /// The part of one CPU that it took over the last second.
    pub cpu: f64,
    /// Nanoseconds of that for each event of that second; `None` where these were too few to tell.
    pub ns_per_event: Option<f64>,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// The trust line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// Hooks, in the order of [`Hook::ALL`].
    pub hooks: Vec<HookStatus>,
    /// Records of hooks since start; those of scans are no events.
    pub events_total: u64,
    /// Events per second, over the last second.
    pub events_per_second: f64,
    /// Records that did not reach the model.
    pub losses: Losses,
    /// When a loss was last counted, as time since start.
    pub last_loss_at: Option<Duration>,
    /// Scans finished since start.
    pub scans_total: u64,
    /// The last finished scan.
    pub last_scan: Option<ScanSummary>,
    /// What scans found beyond what events explain, the first scan left out.
    pub drift: Drift,
    /// What `observer` itself took over the last second.
    pub own: Option<OwnCost>,
    /// Whose open files the passes show.
    pub processes: ProcessScope,
    /// Connections that a process had accepted without the accept hook seeing it: a scan of the open files found who.
    pub unseen_accepts: u64,
    /// What could not be read, and rounds that were skipped.
    pub gaps: Gaps,
    /// When a round was last skipped, as time since start.
    pub last_skip_at: Option<Duration>,
}

impl Quality {
    /// Hooks that no attach method carries.
    pub fn missing(&self) -> impl Iterator<Item = &HookStatus> {
        self.hooks.iter().filter(|status| status.method.is_none())
    }

    /// A round was skipped and no scan has finished since: numbers are as old as the last scan.
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
