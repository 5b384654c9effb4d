//! Everything that can run out, the most urgent first.

use crate::{
    frame::Frame,
    model::{
        filter::{self, Filter},
        limit::{Limit, LimitKind, Scope},
        service::Service,
        snapshot::Snapshot,
        units::NetnsId,
    },
    present::{format, scope, service},
    tui::{pane::Explained, table::TableSource},
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

    fn explain(row: &Limit, data: &Snapshot) -> Vec<Explained> {
        let about = row.about();
        let maximum = format::maximum(row.practical_maximum());
        let excess = row.excess().map_or_else(String::new, |why| format!(": {why}"));
        let counted = Some(row.counted()).filter(|counted| !counted.is_empty());
        let findings = data.findings.iter().filter(|finding| finding.scope == Some(row.scope));
        let findings = findings.flat_map(|finding| {
            let line = |label, text: &str| Explained::new(label, format::printable(text));
            [
                line("finding", &service::sentence_on_screen(data, finding)),
                line("evidence", &finding.evidence),
                line("remedy", &finding.remedy),
            ]
        });
        [
            Some(Explained::new(
                "numbers",
                format!(
                    "{}: {} of {maximum} {}{excess}",
                    // The namespace is in a line of its own.
                    scope::fitted(row, row.scope.netns(), usize::MAX),
                    format::count(row.used),
                    about.unit
                ),
            )),
            counted.map(|counted| Explained::new("counted", counted)),
        ]
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
