//! What goes to a recorder beside inputs.

use std::time::Duration;

use crate::model::alarm::{Alarm, Severity};

/// Something became urgent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incident {
    /// Wall-clock time, since the Unix epoch.
    pub(super) at: Duration,
    /// How bad it is.
    pub(super) severity: Severity,
    /// What it is.
    pub(super) words: String,
}

/// How long something has to be over before it is an incident again.
const OVER: Duration = Duration::from_mins(5);

/// What was urgent lately.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Each alarm, with the last time and the worst severity.
    known: Vec<(Alarm, Duration, Severity)>,
}

impl Watch {
    /// The worst of these alarms that is new, or worse than it was.
    pub(super) fn worst_new(&mut self, now: Duration, alarms: &[Alarm]) -> Option<Alarm> {
        self.known.retain(|(_, at, _)| now.saturating_sub(*at) < OVER);
        let mut new = Vec::new();
        for alarm in alarms {
            let severity = alarm.severity();
            let known = self.known.iter_mut().find(|(known, ..)| known.is_about_same_as(*alarm));
            if let Some((_, at, worst)) = known {
                *at = now;
                if severity > std::mem::replace(worst, severity.max(*worst)) {
                    new.push(*alarm);
                }
            } else {
                self.known.push((*alarm, now, severity));
                new.push(*alarm);
            }
        }
        // Of equals the first: limits come by urgency.
        new.into_iter().rev().max_by_key(|alarm| alarm.severity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        failure::FailureKind,
        limit::{LimitKind, Scope, level::Level},
    };

    #[test]
    fn what_is_urgent_is_an_incident_once_until_it_is_worse_or_was_over() {
        let ports = |level| Alarm::Limit(LimitKind::Ports, Scope::Host, level);
        let failures = Alarm::Failures(FailureKind::PortsExhausted);
        let mut watch = Watch::default();
        let mut at = |second, alarms: &[Alarm]| watch.worst_new(Duration::from_secs(second), alarms);
        assert_eq!(at(1, &[]), None);
        assert_eq!(at(2, &[ports(Level::Critical)]), Some(ports(Level::Critical)));
        assert_eq!(at(3, &[ports(Level::Critical)]), None);
        assert_eq!(at(4, &[ports(Level::Exhausted), failures]), Some(ports(Level::Exhausted)));
        assert_eq!(at(5, &[ports(Level::Critical), failures]), None);
        assert_eq!(at(6, &[ports(Level::Exhausted)]), None);
        assert_eq!(at(305, &[ports(Level::Exhausted)]), None, "it was over for less than five minutes");
        assert_eq!(at(606, &[failures, ports(Level::Exhausted)]), Some(ports(Level::Exhausted)));
    }
}
