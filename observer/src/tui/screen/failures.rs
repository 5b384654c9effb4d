//! What the kernel refused: by whom, where, why, how often.

use std::net::SocketAddr;

use crate::{
    model::{
        device::Device,
        failure::{FailureKey, FailureKind, FailureRow, Local},
        filter::{Filter, Subject},
        snapshot::Snapshot,
        units::{NetnsId, Pid},
    },
    tui::table::{Field, NAMESPACE, NAMESPACE_HELP, Source, Value},
};

/// Groups of failures.
#[derive(Debug)]
pub(crate) struct Failures;

impl Source for Failures {
    type Row = FailureRow;
    type Key = (NetnsId, FailureKind, Option<Pid>, Option<&'static str>, Option<Local>, Option<SocketAddr>);

    const NAME: &'static str = "Failures";
    const SORT: usize = AGO;
    const FIELDS: &'static [Column] = FIELDS;

    fn rows(data: &Snapshot) -> Vec<&FailureRow> {
        data.failures.iter().collect()
    }

    fn key(row: &FailureRow) -> Self::Key {
        let FailureKey { kind, netns, call, process, local, remote } = row.key;
        (netns, kind, process.map(|it| it.pid), call, local, remote)
    }

    fn passes(row: &FailureRow, filter: &Filter, data: &Snapshot) -> bool {
        let FailureKey { netns, process, local, remote, .. } = row.key;
        let local = local.map(|local| (local.ip, Some(local.port)));
        let remote = remote.map(|remote| (remote.ip(), Some(remote.port())));
        let addresses: Vec<_> = local.into_iter().chain(remote).collect();
        filter.lets_through(&Subject {
            addresses: &addresses,
            processes: process.as_slice(),
            netns: Some(netns),
            netns_name: data.name_of(netns),
            direction: None,
            device: row.key.local.map_or(Device::NONE, |local| local.device),
            has_state: &|_| false,
            text: &row.what(),
        })
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "The kernel has refused nothing since observer started: no connect() without a port, no bind() to an address in \
         use, no process or host without descriptors, no queue or table that was full."
    }

    fn netns(row: &FailureRow) -> Option<NetnsId> {
        Some(row.key.netns)
    }
}

type Column = Field<FailureRow>;

/// Its place in the list.
const AGO: usize = 1;

const FIELDS: &[Column] = &[
    Column::text(
        &["WHAT FAILED"],
        "The system call and the errno that it returned, or what the kernel gave up.",
        |row, _| Value::Text(row.what()),
    )
    .width(20, 24, 26),
    Column::time(&["AGO"], "How long ago it happened last.", |row, data| {
        Value::Time(Some(data.uptime.saturating_sub(row.last_at)))
    })
    .width(8, 8, 10)
    .rank(2),
    Column::number(&["TIMES"], "How often it happened since observer started.", |row, _| Value::Count(row.count))
        .width(8, 8, 10)
        .rank(1),
    Column::text(&["PROCESS"], "The process that was refused, and its pid.", |row, _| Value::process(row.key.process))
        .width(10, 18, 24)
        .rank(3),
    Column::text(&[NAMESPACE], NAMESPACE_HELP, |row, data| {
        Value::Namespace(data.name_of(row.key.netns), row.key.netns)
    })
    .width(11, 11, 16)
    .rank(5),
    Column::text(&["WHY"], "The reason, in numbers as far as they are known.", |row, _| Value::Text(row.reason()))
        .width(20, 60, 90)
        .rank(4),
];
