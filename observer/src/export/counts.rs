//! Counts by namespace as JSON objects: they only grow while the namespace lives.

use serde::Serialize;

use crate::model::{failure::FailureCount, snapshot::FlowRow};

/// Connections of a namespace in one direction.
#[derive(Serialize)]
pub(super) struct FlowObject {
    netns: u32,
    direction: &'static str,
    opened_total: u64,
    closed_total: u64,
    unopened_total: u64,
}

impl FlowObject {
    pub(super) fn new(row: &FlowRow) -> Self {
        let FlowRow { netns, direction, opened_total, closed_total, failed_total } = *row;
        let direction = direction.name();
        Self { netns: netns.0, direction, opened_total, closed_total, unopened_total: failed_total }
    }
}

/// Failures of one kind in a namespace.
#[derive(Serialize)]
pub(super) struct FailureCountObject {
    netns: u32,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'static str>,
    count: u64,
}

impl FailureCountObject {
    pub(super) fn new(row: &FailureCount) -> Self {
        Self { netns: row.netns.0, kind: row.kind.name(), errno: row.kind.errno(), count: row.count }
    }
}
