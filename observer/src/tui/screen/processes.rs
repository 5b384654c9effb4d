//! Processes: how many sockets and descriptors each of them holds, and what it was refused.

use crate::{
    model::{
        device::Device,
        filter::{Filter, Scope},
        limit::LimitKind,
        limit::practical,
        snapshot::{ProcessRow, Snapshot},
        units::Pid,
    },
    tui::table::{Field, Source, Value},
};

/// The processes that hold sockets, and those that are nearest to their limit of descriptors.
#[derive(Debug)]
pub(crate) struct Processes;

impl Source for Processes {
    type Row = ProcessRow;
    type Key = Pid;

    const NAME: &'static str = "Processes";
    const SORT: usize = DESCRIPTORS;
    const FIELDS: &'static [Column] = FIELDS;

    fn rows(data: &Snapshot) -> Vec<&ProcessRow> {
        data.processes.iter().collect()
    }

    fn key(row: &ProcessRow) -> Pid {
        row.process.pid
    }

    fn passes(row: &ProcessRow, filter: &Filter, _: &Snapshot) -> bool {
        filter.lets_through(&Scope {
            addresses: &[],
            processes: &[row.process],
            netns: None,
            netns_name: None,
            direction: None,
            device: Device::NONE,
            has_state: &|_| false,
            text: "",
        })
    }

    fn nothing(_: &Snapshot) -> &'static str {
        "No process holds a TCP socket, and none could be asked for its descriptors."
    }
}

type Column = Field<ProcessRow>;

/// Its place in the list.
const DESCRIPTORS: usize = 2;

const FIELDS: &[Column] = &[
    Column::text(&["PROCESS"], "Command name and pid.", |row, _| Value::process(Some(row.process))).width(18, 24, 30),
    Column::number(&["SOCKETS"], "TCP sockets that it holds, connected or connecting.", |row, _| {
        Value::Count(row.sockets.into())
    })
    .width(10, 11, 12)
    .rank(1),
    Column::number(
        &["DESCRIPTORS", "FDS"],
        "Open file descriptors, of all kinds; asked of the processes with the most sockets and of those nearest to their \
         limit.",
        |row, _| row.files.map_or(Value::Unknown, |files| Value::Count(files.open)),
    )
    .width(9, 13, 14)
    .rank(2),
    Column::number(&["SOFT LIMIT", "LIMIT"], "RLIMIT_NOFILE, `ulimit -n`: more descriptors are refused.", |row, _| {
        row.files.map_or(Value::Unknown, |files| limit(files.soft_limit))
    })
    .width(10, 12, 14)
    .rank(4),
    Column::number(&["TAKEN"], "The part in use of what it may have: its soft limit, and at most fs.nr_open.", taken)
    .width(8, 9, 9)
    .rank(3),
    Column::number(&["HARD LIMIT"], "What it may raise its soft limit to by itself.", |row, _| {
        row.files.map_or(Value::Unknown, |files| limit(files.hard_limit))
    })
    .width(12, 12, 14)
    .rank(6),
    Column::number(&["FAILURES"], "Calls that the kernel refused it; the screen Failures has them.", |row, _| {
        Value::Count(row.failures)
    })
    .width(10, 10, 12)
    .rank(5),
];

fn taken<'a>(row: &'a ProcessRow, data: &'a Snapshot) -> Value<'a> {
    let Some(files) = row.files else { return Value::Unknown };
    match data.host.descriptor_ratio(&files) {
        Some(ratio) => Value::Part(ratio, LimitKind::ProcessFiles.level(ratio)),
        None => Value::Text("–".to_owned()),
    }
}

/// A limit, which `RLIM_INFINITY` is not.
fn limit(limit: Option<u64>) -> Value<'static> {
    limit.and_then(practical).map_or_else(|| Value::Text("none".to_owned()), Value::Count)
}
