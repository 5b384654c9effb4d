//! Series that belong to the host and to observer itself.

use std::time::{Duration, UNIX_EPOCH};

use super::sample::{Number, Sample, Series};
use crate::{
    frame::Frame,
    model::{
        finding::FindingKind,
        limit::{About, Limit, LimitKind, SLOPE_NEEDS},
        quality::{Losses, Quality},
        snapshot::Snapshot,
    },
    present::metric,
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
    for (result, count) in frame.otlp_exports.iter().flatten() {
        series.add_one(&metric::OTLP_EXPORTS, &[("result", result.name())], *count);
    }
}

fn quality(series: &mut Series, quality: &Quality) {
    for status in &quality.hooks {
        let method = status.method.map_or("none", |method| method.name());
        series.add_one(&metric::HOOK_INFO, &[("hook", status.hook.spec().name), ("method", method)], 1_u32);
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
}

fn scans(series: &mut Series, snapshot: &Snapshot) {
    let Some(scan) = snapshot.quality.last_scan else { return };
    let ended = snapshot.taken_at - snapshot.uptime.saturating_sub(scan.finished_at);
    if let Ok(since_1970) = ended.duration_since(UNIX_EPOCH) {
        // Whole milliseconds, as in JSON.
        let millis = Duration::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
        series.add_one(&metric::LAST_SCAN, &[], millis.as_secs_f64());
    }
    series.add_one(&metric::SCAN_DURATION, &[], scan.took.as_secs_f64());
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
