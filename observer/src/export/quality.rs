//! Data quality as a JSON object: losses, drift, attach methods, and what could not be read.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{
    gaps::{SkipObject, UnreadObject},
    value::rfc_3339,
};
use crate::model::{
    capability::{Capability, Holding},
    cost::Cost,
    quality::{HookStatus, Losses, Quality},
};

#[derive(Serialize)]
pub(super) struct QualityObject {
    hooks: Vec<HookObject>,
    events_total: u64,
    lost_total: u64,
    lost: LostObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed_total: Option<u64>,
    stream_lost_total: u64,
    unseen_accepts_total: u64,
    scans_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_scan_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_scan_at: Option<String>,
    unscanned_namespaces: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    queues_read_at: Option<String>,
    drift_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostObject>,
    capabilities: Vec<CapabilityObject>,
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

/// What observer costs, and whether its hooks are suspended for that.
#[derive(Serialize)]
struct CostObject {
    ratio: f64,
    max_ratio: f64,
    hook_ns_per_event: u32,
    is_measured: bool,
    is_suspended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended: Option<String>,
    suspensions_total: u64,
    skipped_events_total: u64,
}

#[derive(Serialize)]
struct HookObject {
    hook: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

#[derive(Serialize)]
struct CapabilityObject {
    capability: &'static str,
    holding: &'static str,
    meaning: &'static str,
}

impl QualityObject {
    pub(super) fn new(quality: &Quality, taken_at: SystemTime, uptime: Duration) -> Self {
        let time_of = |at: Duration| rfc_3339(taken_at - uptime.saturating_sub(at));
        let coverage = quality.coverage;
        let losses = quality.losses;
        let Losses { ring_full, scan_ring_full, read_failed, undecodable, missed } = losses;
        Self {
            hooks: quality.hooks.iter().map(HookObject::new).collect(),
            events_total: quality.events_total,
            lost_total: losses.total() - losses.missed_if_reported(),
            lost: LostObject { ring_full, scan_ring_full, read_failed, undecodable },
            missed_total: missed,
            stream_lost_total: quality.stream_lost,
            unseen_accepts_total: quality.unseen_accepts,
            scans_total: quality.scans_total,
            last_scan_at: quality.last_scan.map(|scan| time_of(scan.finished_at)),
            last_scan_seconds: quality.last_scan.map(|scan| scan.took.as_secs_f64()),
            oldest_scan_at: coverage.oldest.map(|scan| time_of(scan.finished_at)),
            unscanned_namespaces: coverage.namespaces - coverage.scanned,
            queues_read_at: quality.last_fd_scan_at.map(time_of),
            drift_total: quality.drift.total(),
            cost: quality.cost.as_ref().map(CostObject::new),
            capabilities: quality.capabilities().map(CapabilityObject::new).collect(),
            unread: UnreadObject::all(&quality.gaps),
            skipped_rounds_total: quality.gaps.skipped.rounds,
            last_skip: SkipObject::new(&quality.gaps.skipped),
            processes: quality.processes.name(),
            processes_missing: quality.processes.missing(),
        }
    }
}

impl CostObject {
    fn new(cost: &Cost) -> Self {
        let Cost { share, at_most, hook_ns, is_measured, is_suspended, suspensions, skipped } = *cost;
        Self {
            ratio: share.ratio(),
            max_ratio: at_most.ratio(),
            hook_ns_per_event: hook_ns,
            is_measured,
            is_suspended,
            suspended: cost.sentence(),
            suspensions_total: suspensions,
            skipped_events_total: skipped,
        }
    }
}

impl CapabilityObject {
    fn new((capability, holding): (Capability, Holding)) -> Self {
        Self { capability: capability.name, holding: holding.name(), meaning: holding.meaning(capability) }
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
