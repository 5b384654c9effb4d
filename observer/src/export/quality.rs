//! Data quality as a JSON object: losses, drift, attach methods, and what could not be read.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{
    gaps::{SkipObject, UnreadObject},
    value::rfc_3339,
};
use crate::model::quality::{HookStatus, Losses, Quality};

#[derive(Serialize)]
pub(super) struct QualityObject {
    hooks: Vec<HookObject>,
    events_total: u64,
    lost_total: u64,
    lost: LostObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed_total: Option<u64>,
    unseen_accepts_total: u64,
    scans_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_seconds: Option<f64>,
    drift_total: u64,
    unread: Vec<UnreadObject>,
    skipped_rounds_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_skip: Option<SkipObject>,
    /// "all", or "pid_namespace" where processes outside of it are not visible.
    processes: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes_missing: Option<&'static str>,
}

/// `lost_total` by reason.
#[derive(Serialize)]
struct LostObject {
    ring_full: u64,
    scan_ring_full: u64,
    read_failed: u64,
    undecodable: u64,
}

#[derive(Serialize)]
struct HookObject {
    hook: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

impl QualityObject {
    pub(super) fn new(quality: &Quality, taken_at: SystemTime, uptime: Duration) -> Self {
        let last_scan = quality.last_scan.map(|scan| taken_at - uptime.saturating_sub(scan.finished_at));
        let losses = quality.losses;
        let Losses { ring_full, scan_ring_full, read_failed, undecodable, missed } = losses;
        Self {
            hooks: quality.hooks.iter().map(HookObject::new).collect(),
            events_total: quality.events_total,
            lost_total: losses.total() - losses.missed_if_reported(),
            lost: LostObject { ring_full, scan_ring_full, read_failed, undecodable },
            missed_total: missed,
            unseen_accepts_total: quality.unseen_accepts,
            scans_total: quality.scans_total,
            last_scan_at: last_scan.map(rfc_3339),
            last_scan_seconds: quality.last_scan.map(|scan| scan.took.as_secs_f64()),
            drift_total: quality.drift.total(),
            unread: UnreadObject::all(&quality.gaps),
            skipped_rounds_total: quality.gaps.skipped.rounds,
            last_skip: SkipObject::new(&quality.gaps.skipped),
            processes: quality.processes.name(),
            processes_missing: quality.processes.missing(),
        }
    }
}

impl HookObject {
    fn new(status: &HookStatus) -> Self {
        let failed = status.failed.iter().map(|failed| format!("{}: {}", failed.method, failed.because));
        Self {
            hook: status.hook.to_string(),
            method: status.method.map(|method| method.to_string()),
            missing: status.method.is_none().then(|| failed.collect::<Vec<_>>().join("; ")),
        }
    }
}
