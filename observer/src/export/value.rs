//! JSON values that several objects have.

use std::time::SystemTime;

use serde::Serialize;

use crate::model::units::Process;

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
