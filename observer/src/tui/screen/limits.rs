//! Everything that can run out, the most urgent first.

use crate::{
    frame::Frame,
    model::{
        filter::{self, Filter},
        finding::Finding,
        limit::{Limit, LimitKind, Scope},
        service::Service,
        snapshot::Snapshot,
        units::NetnsId,
    },
    present::{format, scope, service},
    tui::{
        pane::Explained,
        table::{Details, TableSource},
    },
};

/// The limits.
#[derive(Debug)]
pub(crate) struct Limits;

impl TableSource for Limits {
    type Row = Limit;
    type Key = (LimitKind, Scope);

    const NAME: &'static str = "Limits";
    const SORT: &'static str = "urgency";

    fn rows(data: &Frame) -> Vec<&Limit> {
        data.snapshot.limits.iter().collect()
    }

    fn key(row: &Limit) -> Self::Key {
        (row.kind, row.scope)
    }

    fn passes(row: &Limit, filter: &Filter, _: &Snapshot) -> bool {
        let addresses = match row.scope {
            Scope::Destination { local_ip, remote, .. } => {
                vec![(local_ip, None), (remote.ip(), Some(remote.port()))]
            }
            Scope::Listener { local, .. } => vec![(local.ip(), Some(local.port()))],
            Scope::Host | Scope::Namespace(_) | Scope::Process(_) => Vec::new(),
        };
        filter.lets_through(&filter::Filterable {
            addresses: &addresses,
            processes: row.process.as_slice(),
            netns: row.scope.netns(),
            netns_name: row.netns_name.as_deref(),
            service: row.service.as_deref(),
            direction: None,
            device: row.scope.device(),
            has_state: &|_| false,
            text: row.about().name,
        })
    }

    fn service(row: &Limit) -> Option<&Service> {
        row.service.as_deref()
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No limit is known yet."
    }

    fn netns(row: &Limit) -> Option<NetnsId> {
        row.scope.netns()
    }

    const HAS_DETAILS: bool = true;

    fn details(row: Option<&Limit>, data: &Frame) -> Option<Details> {
        let snapshot = &data.snapshot;
        let Some(row) = row.or_else(|| snapshot.limits.first().filter(|_| snapshot.findings.is_empty())) else {
            let lines = findings(snapshot, |_| true).collect();
            return Some(Details { title: "Findings", lines });
        };
        let about = row.about();
        let found = findings(snapshot, |finding| finding.scope == Some(row.scope));
        let by_kind = [Explained::new("when full", about.refusal), Explained::new("raise it", about.remedy)];
        let lines = [Explained::new("numbers", numbers(row))].into_iter().chain(found).chain(by_kind).collect();
        Some(Details { title: about.name, lines })
    }

    fn explain(row: &Limit, data: &Snapshot) -> Vec<Explained> {
        let about = row.about();
        let counted = Some(row.counted()).filter(|counted| !counted.is_empty());
        let findings = findings(data, |finding| finding.scope == Some(row.scope));
        [Some(Explained::new("numbers", numbers(row))), counted.map(|counted| Explained::new("counted", counted))]
            .into_iter()
            .flatten()
            .chain(findings)
            .chain([
                Explained::new("when full", about.refusal),
                Explained::new("raise it", about.remedy),
                Explained::new("risk", about.risk),
                Explained::new("source", about.source),
            ])
            .collect()
    }
}

/// How much is used of how much, of what.
fn numbers(row: &Limit) -> String {
    let maximum = format::maximum(row.practical_maximum());
    let excess = row.excess().map_or_else(String::new, |why| format!(": {why}"));
    // The namespace is in a line of its own.
    let scope = scope::fitted(row, row.scope.netns(), usize::MAX);
    format!("{scope}: {} of {maximum} {}{excess}", format::count(row.used), row.about().unit)
}

/// Findings with what they rest on and what to do.
fn findings(data: &Snapshot, is_wanted: impl Fn(&Finding) -> bool) -> impl Iterator<Item = Explained> {
    data.findings.iter().filter(move |finding| is_wanted(finding)).flat_map(|finding| {
        let line = |label, text: &str| Explained::new(label, format::printable(text));
        [
            line("finding", &service::sentence_on_screen(data, finding)),
            line("evidence", &finding.evidence),
            line("remedy", &finding.remedy),
        ]
    })
}
