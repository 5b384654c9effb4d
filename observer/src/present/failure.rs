//! The fields of a group of failures.

use super::{Cell, Field, Fields};
use crate::model::failure::FailureRow;

impl Fields for FailureRow {
    const NOUN: &'static str = "failure";
    const FIELDS: &'static [Field<Self>] = FIELDS;
}

type Column = Field<FailureRow>;

/// Where failures come from.
const HOOKS: &str = "the failures hook, and the kernel's counters of full queues and tables";

const FIELDS: &[Column] = &[
    Column::text(
        "failure",
        &["FAILURE"],
        "The system call and the errno that it returned, or what the kernel dropped.",
        |row, _| Cell::Text(row.what()),
    )
    .source(HOOKS)
    .json(&["kind", "call", "errno"])
    .width(20, 24, 26),
    Column::time("last_at", &["LAST SEEN", "LAST"], "Time since it happened last.", |row, data| {
        Cell::Time(Some(data.uptime.saturating_sub(row.last_at)))
    })
    .source(HOOKS)
    .json(&["last_at"])
    .width(10, 10, 11)
    .rank(2),
    Column::number("count", &["COUNT"], "failures", "How often it happened since observer started.", |row, _| {
        Cell::Count(row.count)
    })
    .source(HOOKS)
    .json(&["count"])
    .width(8, 8, 10)
    .rank(1),
    Column::text("process", &["PROCESS"], "The process whose call failed.", |row, _| Cell::process(row.key.process))
        .source("the task that made the call")
        .json(&["process"])
        .width(10, 18, 24)
        .rank(3),
    Column::service(|row, _| Cell::service(row.service.as_deref()))
        .json(&["service"])
        .width(12, 18, 24)
        .rank(6)
        .from(100),
    Column::netns(&["NAMESPACE"], |row, data| match &row.ended {
        Some(_) => Cell::Text(format!("{} (ended)", row.key.netns.label(data.netns_name_of(row)))),
        None => Cell::Namespace(data.netns_name_of(row), row.key.netns),
    })
    .json(&["netns"])
    .width(11, 11, 16)
    .rank(5),
    Column::text("reason", &["REASON"], "Why, in numbers as far as they are known.", |row, _| Cell::Text(row.reason()))
        .source("ports, queues and descriptors at the time of the failure")
        .json(&["reason"])
        .width(20, 60, 90)
        .rank(4),
];
