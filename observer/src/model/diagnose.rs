//! Runs the rules of all findings.

use super::{
    Model,
    finding::{Finding, LISTED},
    snapshot::NamespaceRow,
};

impl Model {
    /// What is likely to be wrong now; the rows are those of the same moment.
    pub(super) fn findings(&self, namespaces: &[NamespaceRow]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        findings.extend(self.retry_loops().take(LISTED));
        findings.extend(self.clients_bound_first().take(LISTED));
        findings.extend(self.time_wait_destinations(namespaces).take(LISTED));
        findings.extend(self.overflowing_queues().take(LISTED));
        findings.extend(self.close_wait_leaks().take(LISTED));
        findings.extend(self.destinations_without_answer().take(LISTED));
        findings.extend(self.slow_connects().take(LISTED));
        findings.extend(self.range_findings(namespaces));
        for finding in &mut findings {
            finding.service = finding.scope.and_then(|scope| self.service_of_scope(scope));
        }
        findings.sort_by(|a, b| (a.kind, a.netns, &a.sentence).cmp(&(b.kind, b.netns, &b.sentence)));
        findings
    }
}
