//! The fields of a single connection.

use super::{Cell, Field, Fields};
use crate::model::{device::Device, query::ConnectionRow};

impl Fields for ConnectionRow {
    const NOUN: &'static str = "connection";
    const FIELDS: &'static [Field<Self>] = FIELDS;
}

type Column = Field<ConnectionRow>;

/// Where the addresses and the state come from.
const SOCKET: &str = "state changes (inet_sock_set_state) and scans (iter/tcp)";

const FIELDS: &[Column] = &[
    Column::text("local", &["LOCAL"], "Local address and port.", |row, _| {
        Cell::Address(row.tuple.local_ip, row.tuple.local_port, row.device)
    })
    .source(SOCKET)
    .width(21, 23, 47),
    Column::text("remote", &["REMOTE"], "Remote address and port.", |row, _| {
        Cell::Address(row.tuple.remote_ip, row.tuple.remote_port, Device::NONE)
    })
    .source(SOCKET)
    .width(22, 24, 48)
    .rank(1),
    Column::text("state", &["STATE"], "TCP state.", |row, _| Cell::Text(row.state.label().to_owned()))
        .source(SOCKET)
        .width(13, 14, 14)
        .rank(2),
    Column::text("process", &["PROCESS"], "The process that owns it.", |row, _| {
        if row.is_orphan { Cell::Orphans } else { Cell::process(row.owner) }
    })
    .source("the connect and accept hooks, and the fd scan (iter/task_file)")
    .width(14, 18, 24)
    .rank(3),
    Column::service(|row, _| Cell::service(row.service.as_deref())).width(12, 20, 32).rank(7).from(100),
    Column::time(
        "age",
        &["AGE"],
        "Time since the socket was created; – if observer started later, and for TIME_WAIT and SYN_RECV.",
        |row, _| Cell::Time(row.age),
    )
    .source("state changes (inet_sock_set_state)")
    .width(8, 12, 12)
    .rank(4),
    Column::text(
        "direction",
        &["DIRECTION", "DIR"],
        "in: the other end connected to this host. out: this host connected.",
        |row, _| Cell::Direction(row.direction),
    )
    .source("the first states of the socket, and the listeners")
    .width(4, 4, 10)
    .rank(6),
    Column::netns(&["NAMESPACE"], |row, _| Cell::Namespace(row.netns_name.as_ref(), row.netns))
        .width(11, 11, 16)
        .rank(5),
];
