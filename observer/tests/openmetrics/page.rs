//! docs/metrics.md describes every series with its type and labels, and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use observer::{export::openmetrics::Format, frame::ExportResult, model::cost::Cost, recording::RecorderStatus};

use super::{
    exposition::Exposition,
    programs::printed,
    recordings,
    synthetic::{self, process},
    text,
};

/// Type and labels of each series of the page.
pub(crate) fn described() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `observer_"));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let labels = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (format!("observer_{}", cells[0].trim_end_matches('`')), (cells[1].to_owned(), labels))
    };
    rows.map(row).collect()
}

#[test]
fn the_page_describes_every_series_and_no_other() {
    let described = described();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |text: &str| {
        for (name, labels) in Exposition::parse(text).series.into_keys() {
            found.entry(name).or_default().extend(labels.into_keys());
        }
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            types.insert(format!("{name}{suffix}"), kind.to_owned());
        }
    };
    for file in recordings() {
        add(&printed(["snapshot", "--recording", file.to_str().unwrap(), "--openmetrics"]));
    }
    let mut large = synthetic::large_host();
    // A process with sockets, and thereby a namespace, and one in a container: near enough to its limit to have series.
    large.snapshot.endpoints[0].listeners = vec![process(0, b"worker-0").process];
    large.snapshot.processes.last_mut().unwrap().service = synthetic::service(2).map(Arc::new);
    // As `observer serve` has it.
    large.snapshot.quality.cost = Some(Cost::default());
    large.recorder = Some(RecorderStatus { oldest: Some(Duration::from_secs(1)), ..RecorderStatus::default() });
    large.http_restarts = Some(0);
    large.http_sandbox =
        Some(["landlock", "whole_landlock", "other_user", "no_groups", "empty_bounding_set"].map(|part| (part, false)));
    large.otlp_exports = Some(ExportResult::ALL.map(|result| (result, 0)));
    add(&text(&large, Format::OpenMetrics));
    let expected: BTreeMap<_, _> = described.iter().map(|(name, (_, labels))| (name.clone(), labels.clone())).collect();
    assert_eq!(found, expected);
    assert_eq!(types, described.into_iter().map(|(name, (kind, _))| (name, kind)).collect());
}
