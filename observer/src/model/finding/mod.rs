//! Findings: what is likely to be wrong. Each is one sentence with its evidence and one remedy that works on this host.
//! One rule a concern, in files of their own.
//!
//! A finding ends with its cause. Most rest on how things are now; one that rests on something that happened lives for
//! [`EVIDENCE_LASTS`] after it happened last.

mod bound;
mod evidence;
mod expensive;
mod queues;
mod range;
mod retries;
mod stuck;
mod time_wait;

use std::{borrow::Cow, sync::Arc, time::Duration};

pub use self::evidence::Evidence;

use super::{
    limit::Scope,
    service::Service,
    units::{NetnsId, Process},
};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A process tries to connect again and again although no port is left.
    RetryLoop,
    /// Clients call bind() before connect() without `IP_BIND_ADDRESS_NO_PORT`.
    BindBeforeConnect,
    /// Most of a namespace's TIME_WAIT sockets take ports from one destination.
    TimeWaitAtOneDestination,
    /// The accept queue of a busy listener is as long as `net.core.somaxconn` lets it be.
    QueueAtSomaxconn,
    /// The accept queue of a listener overflows at the length that its application asked for.
    QueueAtBacklog,
    /// A process does not close connections that its peers have closed.
    CloseWaitLeak,
    /// A destination does not answer.
    NoAnswer,
    /// More than half of the ports towards a destination are in use, and connect() has become slow.
    SlowConnect,
    /// A service listens on a port that connect() may give to a client.
    ListenerInRange,
    /// Much of the ephemeral range is reserved.
    ReservedInRange,
}

impl FindingKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::RetryLoop,
        Self::BindBeforeConnect,
        Self::TimeWaitAtOneDestination,
        Self::QueueAtSomaxconn,
        Self::QueueAtBacklog,
        Self::CloseWaitLeak,
        Self::NoAnswer,
        Self::SlowConnect,
        Self::ListenerInRange,
        Self::ReservedInRange,
    ];

    /// Its id, in snake case.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::RetryLoop => "retry_loop",
            Self::BindBeforeConnect => "bind_before_connect",
            Self::TimeWaitAtOneDestination => "time_wait_at_one_destination",
            Self::QueueAtSomaxconn => "queue_at_somaxconn",
            Self::QueueAtBacklog => "queue_at_backlog",
            Self::CloseWaitLeak => "close_wait_leak",
            Self::NoAnswer => "no_answer",
            Self::SlowConnect => "slow_connect",
            Self::ListenerInRange => "listener_in_range",
            Self::ReservedInRange => "reserved_in_range",
        }
    }
}

/// Something that is likely to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Its namespace.
    pub netns: NetnsId,
    /// The limit that it concerns, by what that limit belongs to; `None` if it concerns no single one.
    pub scope: Option<Scope>,
    /// The service of what it concerns; set in snapshots alone.
    pub service: Option<Arc<Service>>,
    /// One sentence.
    pub sentence: Cow<'static, str>,
    /// The numbers that it rests on.
    pub evidence: Evidence,
    /// What to do.
    pub remedy: Cow<'static, str>,
}

/// How long a finding lives after the last thing that happened in evidence of it.
pub(super) const EVIDENCE_LASTS: Duration = Duration::from_mins(1);
/// Findings of one kind that are listed; more of the same kind say nothing new.
pub(super) const LISTED: usize = 8;

/// Whether `part` is at least `percent` of a whole that is not empty.
fn is_part(part: u32, percent: u32, whole: u32) -> bool {
    part > 0 && u64::from(part) * 100 >= u64::from(whole) * u64::from(percent)
}

fn name(process: Option<Process>) -> String {
    process.map_or_else(|| "a process".to_owned(), |process| format!("{} ({})", process.comm, process.pid.0))
}

/// `nginx (12)`, `nginx (12) and wrk (7)`, `nginx (12) and 3 others`.
fn names(processes: &[Process]) -> String {
    match processes {
        [] => name(None),
        [one] => name(Some(*one)),
        [first, second] => format!("{} and {}", name(Some(*first)), name(Some(*second))),
        [first, others @ ..] => format!("{} and {} others", name(Some(*first)), others.len()),
    }
}

/// An age in words: `12 s`, `3 min`, `2 h`.
fn age(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests;
