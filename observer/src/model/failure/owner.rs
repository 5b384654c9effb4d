//! The owner of a port that a call did not get.

use std::{fmt, time::Duration};

use crate::model::units::{Process, TIME_WAIT_LASTS, TcpState};

/// The owner of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOwner {
    /// A listener, and its process where that is known.
    Listener(Option<Process>),
    /// A socket that is bound and nothing more.
    Bound(Option<Process>),
    /// A connection in this state, and its process where that is known.
    Connection(TcpState, Option<Process>),
    /// A connection in this state without any fd owner.
    Orphan(TcpState),
    /// A socket that only waits, in TIME_WAIT, or in FIN_WAIT2 for its peer.
    Waiting {
        /// Which of both.
        state: TcpState,
        /// When that is over, as time since start; `None` where the kernel does not keep it.
        ends_at: Option<Duration>,
        /// How long it still is when the snapshot is taken.
        left: Option<Duration>,
    },
    /// No socket was seen on it.
    Unseen,
}

impl PortOwner {
    /// The process, where there is one and it is known.
    #[must_use]
    pub const fn process(self) -> Option<Process> {
        match self {
            Self::Listener(process) | Self::Bound(process) | Self::Connection(_, process) => process,
            Self::Orphan(_) | Self::Waiting { .. } | Self::Unseen => None,
        }
    }

    /// Its id in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listener(_) => "listener",
            Self::Bound(_) => "bound",
            Self::Connection(..) => "connection",
            Self::Orphan(_) => "orphan",
            Self::Waiting { state, .. } => state.name(),
            Self::Unseen => "unseen",
        }
    }

    /// The same at a time since start: how long it still has to wait.
    pub(in crate::model) fn at(self, now: Duration) -> Self {
        match self {
            Self::Waiting { state, ends_at, .. } => {
                Self::Waiting { state, ends_at, left: ends_at.map(|ends_at| ends_at.saturating_sub(now)) }
            }
            other => other,
        }
    }

    /// When its wait is over at the latest, as time since start; what does not end by itself is all the same.
    pub(in crate::model) fn ends_at(self) -> Duration {
        match self {
            Self::Waiting { ends_at, .. } => ends_at.unwrap_or(Duration::MAX),
            _ => Duration::ZERO,
        }
    }

    /// Nothing more is to be found out.
    pub(in crate::model) const fn is_settled(self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Orphan(_)) || self.process().is_some()
    }
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |process: &Option<Process>| {
            process.map_or_else(|| "a process not seen".to_owned(), |it| format!("{} ({})", it.comm, it.pid.0))
        };
        match self {
            Self::Listener(process) => write!(f, "{} listens on it", by(process)),
            Self::Bound(process) => write!(f, "{} has bound a socket to it", by(process)),
            Self::Connection(state, process) => {
                write!(f, "{} has a connection on it ({})", by(process), state.name().to_uppercase())
            }
            Self::Orphan(state) => {
                write!(f, "an orphaned connection in {}, finished by the kernel", state.name().to_uppercase())
            }
            Self::Waiting { state, left, .. } => {
                let state = state.name().to_uppercase();
                match left {
                    Some(Duration::ZERO) => write!(f, "a connection in {state}, over by now"),
                    Some(left) => write!(f, "a connection in {state} for {} s more", left.as_secs().max(1)),
                    None => write!(f, "a connection in {state} for at most {} s more", TIME_WAIT_LASTS.as_secs()),
                }
            }
            Self::Unseen => f.write_str("no socket on it was seen"),
        }
    }
}
