//! Series that belong to the host and to observer itself.

use std::time::{Duration, UNIX_EPOCH};

use super::sample::{Number, Sample, Series};
use crate::{
    frame::Frame,
    model::{
        capability::Holding,
        finding::FindingKind,
        limit::{About, Limit, LimitKind, SLOPE_NEEDS},
        quality::{Losses, Quality},
        snapshot::Snapshot,
    },
    present::metric,
    recording::RecorderStatus,
};

pub(super) fn add(series: &mut Series, frame: &Frame) {
    let snapshot = &frame.snapshot;
    series.add_one(&metric::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1_u32);
    quality(series, &snapshot.quality);
    scans(series, snapshot);
    for kind in LimitKind::ALL {
        limit(series, snapshot, kind);
    }
    for kind in FindingKind::ALL {
        let found = snapshot.findings.iter().filter(|finding| finding.kind == kind).count();
        series.add_one(&metric::FINDINGS, &[("finding", kind.id())], Number::Whole(found as u64));
    }
    if let Some(restarts) = frame.http_restarts {
        series.add_one(&metric::HTTP_RESTARTS, &[], restarts);
    }
    for (part, is_missing) in frame.http_sandbox.iter().flatten() {
        series.add_one(&metric::HTTP_SANDBOX_MISSING, &[("part", part)], u32::from(*is_missing));
    }
    for (result, count) in frame.otlp_exports.iter().flatten() {
        series.add_one(&metric::OTLP_EXPORTS, &[("result", result.name())], *count);
    }
    if let Some(status) = &frame.recorder {
        recorder(series, status);
    }
}

fn recorder(series: &mut Series, status: &RecorderStatus) {
    series.add_one(&metric::RECORDER_BYTES, &[], status.bytes);
    if let Some(oldest) = status.oldest {
        series.add_one(&metric::RECORDER_OLDEST, &[], oldest.as_secs_f64());
    }
    series.add_one(&metric::RECORDER_INCIDENTS, &[], status.incidents);
    series.add_one(&metric::RECORDER_ERRORS, &[], status.errors);
    series.add_one(&metric::RECORDER_LOST, &[], status.lost);
}

fn quality(series: &mut Series, quality: &Quality) {
    for status in &quality.hooks {
        let method = status.method.map_or("none", |method| method.name());
        series.add_one(&metric::HOOK_INFO, &[("hook", status.hook.spec().name), ("method", method)], 1_u32);
    }
    for (capability, holding) in quality.capabilities() {
        let held = u32::from(holding == Holding::Held);
        series.add_one(&metric::CAPABILITY_HELD, &[("capability", capability.name)], held);
    }
    series.add_one(&metric::EVENTS, &[], quality.events_total);
    let Losses { ring_full, scan_ring_full, read_failed, undecodable, missed } = quality.losses;
    for (reason, lost) in [
        ("ring_full", Some(ring_full)),
        ("scan_ring_full", Some(scan_ring_full)),
        ("read_failed", Some(read_failed)),
        ("undecodable", Some(undecodable)),
        ("missed_run", missed),
    ] {
        if let Some(lost) = lost {
            series.add_one(&metric::EVENTS_LOST, &[("reason", reason)], lost);
        }
    }
    series.add_one(&metric::SCANS_TOTAL, &[], quality.scans_total);
    series.add_one(&metric::DRIFT, &[], quality.drift.total());
    if let Some(cost) = quality.cost {
        series.add_one(&metric::COST, &[], cost.share.ratio());
        series.add_one(&metric::HOOKS_SUSPENDED, &[], u32::from(cost.is_suspended));
        series.add_one(&metric::SUSPENSIONS, &[], cost.suspensions);
        series.add_one(&metric::EVENTS_SKIPPED, &[], cost.skipped);
    }
}

fn scans(series: &mut Series, snapshot: &Snapshot) {
    let quality = &snapshot.quality;
    for (metric, ended_at) in [
        (&metric::LAST_SCAN, quality.last_scan.map(|scan| scan.finished_at)),
        (&metric::OLDEST_SCAN, quality.coverage.oldest.map(|scan| scan.finished_at)),
    ] {
        let ended = ended_at.map(|at| snapshot.taken_at - snapshot.uptime.saturating_sub(at));
        if let Some(Ok(since_1970)) = ended.map(|ended| ended.duration_since(UNIX_EPOCH)) {
            // Whole milliseconds, as in JSON.
            let millis = Duration::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
            series.add_one(metric, &[], millis.as_secs_f64());
        }
    }
    if let Some(scan) = quality.last_scan {
        series.add_one(&metric::SCAN_DURATION, &[], scan.took.as_secs_f64());
    }
}

/// The worst of a kind. Without two samples of a limit's use there is no time to full, not even an infinite one.
fn limit(series: &mut Series, snapshot: &Snapshot, kind: LimitKind) {
    let limits = || snapshot.limits.iter().filter(|limit| limit.kind == kind && limit.practical_maximum().is_some());
    let Some(ratio) = limits().map(Limit::ratio).max_by(f64::total_cmp) else { return };
    let label = [("limit", About::of(kind).id)];
    let mut row = vec![Sample::new(&metric::LIMIT_RATIO, &label, ratio)];
    if snapshot.uptime >= SLOPE_NEEDS {
        let times = limits().filter_map(Limit::time_to_full).map(|time| time.as_secs_f64());
        let earliest = times.fold(f64::INFINITY, f64::min);
        row.push(Sample::new(&metric::LIMIT_TIME, &label, earliest));
    }
    series.add(row);
}
