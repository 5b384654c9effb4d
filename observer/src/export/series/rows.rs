//! Series of listeners and of processes.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    labels::Labels,
    sample::{LabelSet, Sample, Series},
};
use crate::{
    model::snapshot::{EndpointRow, ProcessFiles, Snapshot},
    present::metric::{self, Metric},
};

/// Listeners, those with the most sockets first.
pub(super) fn listeners(series: &mut Series, snapshot: &Snapshot, labels: &Labels) {
    let mut rows: Vec<&EndpointRow> = snapshot.endpoints.iter().filter(|row| row.listening).collect();
    rows.sort_by_key(|row| (Reverse(row.sockets), row.key));
    for (i, row) in rows.into_iter().enumerate() {
        let address = row.key.device.scoped(row.key.local_ip);
        let port = row.key.local_port.map_or_else(String::new, |port| port.to_string());
        let labels = [("netns", labels.netns(row.key.netns)), ("local_address", &address), ("local_port", &port)];
        let row = vec![Sample::new(&metric::LISTENER_SOCKETS, &labels, row.sockets)];
        if i < metric::LISTENERS { series.add(row) } else { series.leave_out(&row) }
    }
}

/// Of the processes with the same labels the one nearest to its limit, those nearest to it first.
pub(super) fn processes(series: &mut Series, snapshot: &Snapshot, labels: &Labels) {
    let ratio = |files: &ProcessFiles| snapshot.host.descriptor_ratio(files).unwrap_or(0.0);
    let is_worse = |a: &ProcessFiles, b: &ProcessFiles| ratio(a).total_cmp(&ratio(b)).then(a.open.cmp(&b.open)).is_gt();
    let mut worst: BTreeMap<LabelSet, ProcessFiles> = BTreeMap::new();
    for row in &snapshot.processes {
        let Some(files) = row.files else { continue };
        let known = worst.entry(labels.of_process(row)).or_insert(files);
        if is_worse(&files, known) {
            *known = files;
        }
    }
    let mut worst: Vec<(LabelSet, ProcessFiles)> = worst.into_iter().collect();
    worst.sort_by(|(_, a), (_, b)| ratio(b).total_cmp(&ratio(a)).then(b.open.cmp(&a.open)));
    for (i, (labels, files)) in worst.into_iter().enumerate() {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let counts: [(&Metric, Option<u64>); 2] = [
            (&metric::OPEN_FILES, Some(files.open)),
            (&metric::OPEN_FILES_LIMIT, snapshot.host.most_descriptors(&files)),
        ];
        let samples = counts.into_iter().filter_map(|(metric, count)| Some(Sample::new(metric, &labels, count?)));
        let row: Vec<Sample> = samples.collect();
        if i < metric::COMMS { series.add(row) } else { series.leave_out(&row) }
    }
}
