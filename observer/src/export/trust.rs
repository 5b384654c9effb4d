//! How far the numbers can be trusted, as a JSON object.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{
    gaps::{SkipObject, UnreadObject},
    json::rfc_3339,
};
use crate::model::trust::{HookStatus, Trust};

#[derive(Serialize)]
pub(super) struct TrustObject {
    hooks: Vec<HookObject>,
    events_total: u64,
    lost_total: u64,
    missed_total: Option<u64>,
    unseen_accepts_total: u64,
    scans_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_at: Option<String>,
    drift: u64,
    unread: Vec<UnreadObject>,
    skipped_rounds_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_skip: Option<SkipObject>,
    /// "all", or "pid_namespace" where processes outside of it are not visible.
    processes: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes_missing: Option<&'static str>,
}

#[derive(Serialize)]
struct HookObject {
    hook: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rung: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

impl TrustObject {
    pub(super) fn new(trust: &Trust, taken_at: SystemTime, uptime: Duration) -> Self {
        let last_scan = trust.last_scan.map(|scan| taken_at - uptime.saturating_sub(scan.finished_at));
        Self {
            hooks: trust.hooks.iter().map(HookObject::new).collect(),
            events_total: trust.events_total,
            lost_total: trust.losses.total() - trust.losses.missed_if_told(),
            missed_total: trust.losses.missed,
            unseen_accepts_total: trust.unseen_accepts,
            scans_total: trust.scans_total,
            last_scan_at: last_scan.map(rfc_3339),
            drift: trust.drift.total(),
            unread: UnreadObject::all(&trust.gaps),
            skipped_rounds_total: trust.gaps.skipped.rounds,
            last_skip: SkipObject::new(&trust.gaps.skipped),
            processes: trust.processes.name(),
            processes_missing: trust.processes.missing(),
        }
    }
}

impl HookObject {
    fn new(status: &HookStatus) -> Self {
        let failed = status.failed.iter().map(|failed| format!("{}: {}", failed.rung, failed.because));
        Self {
            hook: status.hook.to_string(),
            rung: status.rung.map(|rung| rung.to_string()),
            missing: status.rung.is_none().then(|| failed.collect::<Vec<_>>().join("; ")),
        }
    }
}
