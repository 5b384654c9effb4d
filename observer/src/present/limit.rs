//! The fields of a limit.

use super::{Cell, Field, Fields};
use crate::model::limit::Limit;

impl Fields for Limit {
    const NOUN: &'static str = "limit";
    const FIELDS: &'static [Field<Self>] = FIELDS;
}

type Column = Field<Limit>;

/// Where the numbers come from: that differs from kind to kind.
const BY_KIND: &str = "depends on the kind: `observer explain`";

const FIELDS: &[Column] = &[
    Column::text("kind", &["LIMIT"], "What can run out.", |row, _| Cell::Text(row.about().name.to_owned()))
        .json(&["kind"])
        .width(17, 17, 18),
    Column::text(
        "scope",
        &["SCOPE"],
        "What the limit applies to: the host, a namespace, a process, a listener or a destination.",
        |row, _| Cell::Scope(row),
    )
    .json(&["scope"])
    .width(18, 40, 60)
    .rank(1),
    Column::service(|row, _| Cell::service(row.service.as_deref())).json(&["service"]).width(12, 20, 32).rank(9).from(100),
    Column::netns(&["NAMESPACE"], |row, _| match row.scope.netns() {
        Some(netns) => Cell::Namespace(row.netns_name.as_ref(), netns),
        None => Cell::Absent,
    })
    .width(11, 11, 16)
    .rank(7),
    Column::rank_of(
        "urgency",
        &["URGENCY", "URG"],
        "Place in the list; 1 is the most urgent. The level comes first (exhausted, critical, warning, notice), then what will \
         be full within the hour, then the fullest.",
        |row, data| Cell::Rank(data.limits.iter().position(|limit| std::ptr::eq(limit, row)).unwrap_or(0)),
    )
    .source("level, time to full, used %")
    .width(9, 9, 9)
    .rank(6),
    Column::number("ratio", &["USED %"], "% of the maximum", "Share of the maximum in use.", |row, _| {
        row.practical_maximum().map_or(Cell::Absent, |_| Cell::Part(row.ratio(), row.level()))
    })
    .source("in use / maximum")
    .json(&["ratio"])
    .width(7, 8, 8)
    .rank(2),
    Column::number("used", &["IN USE"], "depends on the kind", "How much is in use.", |row, _| Cell::Count(row.used))
        .source(BY_KIND)
        .json(&["used"])
        .width(10, 12, 14)
        .rank(3),
    Column::number("maximum", &["MAXIMUM"], "depends on the kind", "How much there can be.", |row, _| {
        Cell::Maximum(row.practical_maximum())
    })
    .source(BY_KIND)
    .json(&["maximum"])
    .width(10, 12, 14)
    .rank(4),
    Column::text("unit", &["UNIT"], "What is counted.", |row, _| Cell::Text(row.about().unit.to_owned()))
        .json(&["unit"])
        .width(12, 12, 12)
        .rank(10)
        .from(100),
    Column::time(
        "seconds_to_full",
        &["TIME TO FULL", "TO FULL"],
        "Predicted time until it is full, at the slope of the last half minute.",
        |row, _| Cell::Time(row.time_to_full()),
    )
    .source("the number in use over the last half minute")
    .json(&["seconds_to_full"])
    .width(9, 13, 13)
    .rank(5),
    Column::number(
        "hits_total",
        &["HITS"],
        "hits",
        "How often the limit was hit. Listener queues, ports, descriptors and files count since observer started; others \
         since boot or since the namespace was created.",
        |row, _| row.hits.map_or(Cell::Absent, Cell::Count),
    )
    .source("the kernel's counters; for ports, descriptors and files the failures hook")
    .json(&["hits_total"])
    .width(8, 9, 10)
    .rank(8),
];
