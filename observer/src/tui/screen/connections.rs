//! Single connections: those of the row that was entered, or of everybody.

use crate::{
    model::{
        device::Device,
        filter::{Filter, Scope},
        query::ConnectionRow,
        snapshot::Snapshot,
        units::{FourTuple, NetnsId},
    },
    tui::table::{Field, NAMESPACE, NAMESPACE_HELP, Source, Value},
};

/// The four-tuples.
#[derive(Debug)]
pub(crate) struct Connections;

impl Source for Connections {
    type Row = ConnectionRow;
    type Key = (NetnsId, FourTuple, Device);

    const NAME: &'static str = "Connections";
    const SORT: usize = AGE;
    const FIELDS: &'static [Column] = FIELDS;

    fn rows(data: &Snapshot) -> Vec<&ConnectionRow> {
        data.connections.iter().flat_map(|it| &it.rows).collect()
    }

    fn key(row: &ConnectionRow) -> Self::Key {
        (row.netns, row.tuple, row.device)
    }

    fn passes(row: &ConnectionRow, filter: &Filter, _: &Snapshot) -> bool {
        let FourTuple { local_ip, local_port, remote_ip, remote_port } = row.tuple;
        filter.lets_through(&Scope {
            addresses: &[(local_ip, Some(local_port)), (remote_ip, Some(remote_port))],
            processes: &row.owner.into_iter().chain(row.co_fd_owners.iter().copied()).collect::<Vec<_>>(),
            netns: Some(row.netns),
            netns_name: row.netns_name.as_deref(),
            direction: Some(row.direction),
            device: row.device,
            has_state: &|state| state == row.state,
            text: "",
        })
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "There are none now."
    }

    fn netns(row: &ConnectionRow) -> Option<NetnsId> {
        Some(row.netns)
    }
}

type Column = Field<ConnectionRow>;

/// Its place in the list.
const AGE: usize = 4;

const FIELDS: &[Column] = &[
    Column::text(&["LOCAL"], "Its local address and port.", |row, _| {
        Value::Address(row.tuple.local_ip, row.tuple.local_port, row.device)
    })
    .width(21, 23, 47),
    Column::text(&["REMOTE"], "The address and port of its other end.", |row, _| {
        Value::Address(row.tuple.remote_ip, row.tuple.remote_port, Device::NONE)
    })
    .width(22, 24, 48)
    .rank(1),
    Column::text(&["STATE"], "Its TCP state.", |row, _| Value::Text(row.state.label().to_owned()))
        .width(13, 14, 14)
        .rank(2),
    Column::text(&["PROCESS"], "The process that holds it.", |row, _| {
        if row.is_orphan { Value::Orphans } else { Value::process(row.owner) }
    })
    .width(14, 18, 24)
    .rank(3),
    Column::time(
        &["AGE"],
        "Since its birth; – where observer has not seen it, and for TIME_WAIT and half-open requests.",
        |row, _| Value::Time(row.age),
    )
    .width(8, 12, 12)
    .rank(4),
    Column::text(&["DIRECTION", "DIR"], "in: the other end connected to us. out: we connected.", |row, _| {
        Value::Direction(row.direction)
    })
    .width(4, 4, 10)
    .rank(6),
    Column::text(&[NAMESPACE], NAMESPACE_HELP, |row, _| Value::Namespace(row.netns_name.as_deref(), row.netns))
        .width(11, 11, 16)
        .rank(5),
];
