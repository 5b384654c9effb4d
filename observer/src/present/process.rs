//! The fields of a process.

use super::{Cell, Field, Fields};
use crate::model::{
    limit::{LimitKind, practical},
    snapshot::{ProcessRow, Snapshot},
};

impl Fields for ProcessRow {
    const NOUN: &'static str = "process";
    const FIELDS: &'static [Field<Self>] = FIELDS;
}

type Column = Field<ProcessRow>;

const FIELDS: &[Column] = &[
    Column::text("process", &["PROCESS"], "Command name and pid.", |row, _| Cell::process(Some(row.process)))
        .source("/proc/PID/comm, and the hooks that saw it")
        .width(18, 24, 30),
    Column::service(|row, _| Cell::service(row.service.as_deref())).width(12, 20, 32).rank(6),
    Column::number(
        "sockets",
        &["SOCKETS"],
        "sockets",
        "TCP sockets that it owns, connected or connecting.",
        |row, _| Cell::Count(row.sockets.into()),
    )
    .source("the connect and accept hooks, and the fd scan (iter/task_file)")
    .width(10, 11, 12)
    .rank(1),
    Column::number(
        "open_fds",
        &["OPEN FDS", "FDS"],
        "descriptors",
        "Open file descriptors of all kinds. Read for the processes with the most sockets and those nearest to their limit.",
        |row, _| row.files.map_or(Cell::Unknown, |files| Cell::Count(files.open)),
    )
    .source("/proc/PID/fd")
    .width(9, 13, 14)
    .rank(2),
    Column::number(
        "soft_limit",
        &["SOFT LIMIT", "LIMIT"],
        "descriptors",
        "Soft RLIMIT_NOFILE (`ulimit -n`): the kernel refuses more descriptors.",
        |row, _| row.files.map_or(Cell::Unknown, |files| Cell::Maximum(files.soft_limit.and_then(practical))),
    )
    .source("/proc/PID/limits")
    .width(10, 12, 14)
    .rank(4),
    Column::number(
        "ratio",
        &["USED %"],
        "% of the maximum",
        "Share of its descriptors in use. The maximum is its soft limit, or fs.nr_open where that is lower.",
        ratio,
    )
    .source("/proc/PID/fd, /proc/PID/limits and fs.nr_open")
    .width(8, 9, 9)
    .rank(3),
    Column::number(
        "hard_limit",
        &["HARD LIMIT"],
        "descriptors",
        "Hard RLIMIT_NOFILE: as high as it can raise its soft limit by itself.",
        |row, _| row.files.map_or(Cell::Unknown, |files| Cell::Maximum(files.hard_limit.and_then(practical))),
    )
    .source("/proc/PID/limits")
    .width(12, 12, 14)
    .rank(7),
    Column::number(
        "failures",
        &["FAILURES"],
        "calls",
        "Calls that the kernel refused, since observer started: see the Failures screen.",
        |row, _| Cell::Count(row.failures),
    )
    .source("the failures hook")
    .width(10, 10, 12)
    .rank(5),
];

fn ratio<'a>(row: &'a ProcessRow, data: &'a Snapshot) -> Cell<'a> {
    let Some(files) = row.files else { return Cell::Unknown };
    data.host
        .descriptor_ratio(&files)
        .map_or(Cell::Absent, |ratio| Cell::Part(ratio, LimitKind::ProcessFiles.level(ratio)))
}
