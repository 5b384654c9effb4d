//! JSON values that several objects have.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{
    headroom::PortUse,
    units::{Process, StateCounts},
};

/// A process, in every document.
#[derive(Serialize)]
pub(super) struct ProcessObject {
    pid: u32,
    comm: String,
    /// The pid is that of the initial pid namespace: the process is outside of the one that /proc shows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    outside_pid_namespace: bool,
}

impl ProcessObject {
    pub(super) fn new(process: &Process) -> Self {
        Self {
            pid: process.pid.number(),
            comm: process.comm.to_string(),
            outside_pid_namespace: process.pid.is_outside(),
        }
    }
}

/// A time of day as RFC 3339 writes it, in UTC; empty for one beyond its range.
pub(super) fn rfc_3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// A count for each state that has sockets.
pub(super) fn states(counts: &StateCounts) -> Map<String, Value> {
    counts.iter().map(|(state, count)| (state.name().to_owned(), count.into())).collect()
}

/// range = reserved + passed_over + blocked + used + time_wait + left_at_most; `blocked` and `left` are absent where they
/// are not known. `left` is certain. It is less than `left_at_most` by one where chance decides: see [`PortUse`].
#[derive(Serialize)]
pub(super) struct Ports {
    range: u32,
    reserved: u32,
    passed_over: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<u32>,
    used: u32,
    time_wait: u32,
    time_wait_reusable: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u32>,
    left_at_most: u32,
    level: &'static str,
}

impl Ports {
    pub(super) fn new(ports: PortUse) -> Self {
        let PortUse { range, reserved, passed_over, blocked, used, time_wait, time_wait_reusable, uncertain: _ } =
            ports;
        let (left, left_at_most, level) = (ports.left(), ports.left_at_most(), ports.level().name());
        Self { range, reserved, passed_over, blocked, used, time_wait, time_wait_reusable, left, left_at_most, level }
    }
}
