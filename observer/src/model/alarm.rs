//! What is urgent: the limits of which nearly nothing is left, and failures that come in a loop. A recorder keeps the minutes
//! around the moment in which that began.

use super::{
    Model,
    failure::FailureKind,
    limit::{About, Limit, LimitKind, Scope, level::Level},
};

/// What is urgent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A limit is critical or exhausted.
    Limit(LimitKind, Scope, Level),
    /// Failures of this kind come in a loop ([`super::failure::LOOP_PER_SECOND`]).
    Failures(FailureKind),
}

/// How bad it is; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A limit is critical.
    Critical,
    /// The kernel refuses again and again.
    Failing,
    /// Nothing is left of a limit.
    Exhausted,
}

impl Alarm {
    /// How bad it is.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Limit(_, _, Level::Exhausted) => Severity::Exhausted,
            Self::Limit(..) => Severity::Critical,
            Self::Failures(_) => Severity::Failing,
        }
    }

    /// Whether the other one is about the same, however bad.
    #[must_use]
    pub fn is_about_same_as(self, other: Self) -> bool {
        match (self, other) {
            (Self::Limit(kind, scope, _), Self::Limit(other, of, _)) => (kind, scope) == (other, of),
            (Self::Failures(kind), Self::Failures(other)) => kind == other,
            _ => false,
        }
    }

    /// `ports exhausted`, `conntrack critical`, `accept_queue failures`: ids and levels as JSON has them.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Limit(kind, _, level) => format!("{} {}", About::of(kind).id, level.name()),
            Self::Failures(kind) => format!("{} failures", kind.name()),
        }
    }
}

impl Model {
    /// What was urgent at the last tick.
    #[must_use]
    pub fn alarms(&self) -> &[Alarm] {
        &self.diagnosis.alarms
    }

    /// What is urgent now: these limits, the most urgent first, and failures.
    pub(super) fn find_alarms(&mut self, urgent: &[Limit]) {
        let limits = urgent.iter().map(|limit| Alarm::Limit(limit.kind, limit.scope, limit.level()));
        self.diagnosis.alarms = limits.chain(self.diagnosis.failures.loops().map(Alarm::Failures)).collect();
    }
}
