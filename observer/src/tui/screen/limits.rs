//! Everything that can run out, the most urgent first.

use crate::{
    model::{
        filter::{Filter, Scope as Row},
        limit::{Limit, LimitKind, Scope},
        snapshot::Snapshot,
        units::NetnsId,
    },
    tui::{
        format,
        table::{Field, Line, NAMESPACE, NAMESPACE_HELP, Source, Value},
    },
};

/// The limits.
#[derive(Debug)]
pub(crate) struct Limits;

impl Source for Limits {
    type Row = Limit;
    type Key = (LimitKind, Scope);

    const NAME: &'static str = "Limits";
    const SORT: usize = URGENCY;
    const FIELDS: &'static [Column] = FIELDS;

    fn rows(data: &Snapshot) -> Vec<&Limit> {
        data.limits.iter().collect()
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
        filter.lets_through(&Row {
            addresses: &addresses,
            processes: row.process.as_slice(),
            netns: row.scope.netns(),
            netns_name: row.netns_name.as_deref(),
            direction: None,
            device: row.scope.device(),
            has_state: &|_| false,
            text: row.about().name,
        })
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "Nothing is known that could run out."
    }

    fn netns(row: &Limit) -> Option<NetnsId> {
        row.scope.netns()
    }

    fn explain(row: &Limit, data: &Snapshot) -> Vec<Line> {
        let about = row.about();
        let maximum = row.practical_maximum().map_or_else(|| "no limit in practice".to_owned(), format::count);
        let counted = Some(row.counted()).filter(|counted| !counted.is_empty());
        let findings = data.findings.iter().filter(|finding| finding.scope == Some(row.scope));
        let findings = findings.flat_map(|finding| {
            let line = |label, text: &str| Line::new(label, format::printable(text));
            [
                line("finding", &data.sentence_on_screen(finding)),
                line("evidence", &finding.evidence),
                line("remedy", &finding.remedy),
            ]
        });
        [
            Some(Line::new("numbers", format!("{} of {maximum} {}", format::count(row.used), about.unit))),
            counted.map(|counted| Line::new("counted", counted)),
            Some(Line::new("from", about.source)),
            Some(Line::new("when full", about.refusal)),
            Some(Line::new("raise it", about.remedy)),
            Some(Line::new("risk", about.risk)),
        ]
        .into_iter()
        .flatten()
        .chain(findings)
        .collect()
    }
}

type Column = Field<Limit>;

const HITS_HELP: &str = "How often it was hit: at a listener's queue since observer started, elsewhere by the kernel's counters since \
    boot or since the namespace was made; of ports, descriptors and files by the failures that observer has seen since it started.";

/// Its place in the list.
const URGENCY: usize = 3;

const FIELDS: &[Column] = &[
    Column::text(&["LIMIT"], "What can run out.", |row, _| Value::Text(row.about().name.to_owned())).width(17, 17, 18),
    Column::text(
        &["OF"],
        "Whose it is: of the host, a namespace, a process, a listener, or towards a destination.",
        |row, _| Value::Whose(row),
    )
    .width(18, 40, 60)
    .rank(1),
    Column::text(&[NAMESPACE], NAMESPACE_HELP, |row, _| match row.scope.netns() {
        Some(netns) => Value::Namespace(row.netns_name.as_deref(), netns),
        None => Value::Text("–".to_owned()),
    })
    .width(11, 11, 16)
    .rank(7),
    Column::number(
        &["URGENCY"],
        "The place in the order of urgency: what is full within the hour by the time that is left, then the fullest.",
        |row, data| Value::Rank(data.limits.iter().position(|limit| std::ptr::eq(limit, row)).unwrap_or(0)),
    )
    .width(9, 9, 9)
    .rank(6),
    Column::number(&["TAKEN"], "The part that is used.", |row, _| Value::Part(row.ratio(), row.level()))
        .width(7, 8, 8)
        .rank(2),
    Column::number(&["USED"], "How much is used.", |row, _| Value::Count(row.used)).width(10, 12, 14).rank(3),
    Column::number(&["MAXIMUM"], "How much there can be.", |row, _| {
        row.practical_maximum().map_or_else(|| Value::Text("none".to_owned()), Value::Count)
    })
    .width(10, 12, 14)
    .rank(4),
    Column::time(&["FULL IN"], "When it is full, at the slope of the last half minute.", |row, _| {
        Value::Time(row.time_to_full())
    })
    .width(9, 12, 12)
    .rank(5),
    Column::number(&["HITS"], HITS_HELP, |row, _| row.hits.map_or_else(|| Value::Text("–".to_owned()), Value::Count))
        .width(8, 9, 10)
        .rank(8),
];
