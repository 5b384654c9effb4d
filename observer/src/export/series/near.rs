//! Series of what is near its limit: destinations by their ports, listeners by their accept queues.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Kept,
    labels::Labels,
    sample::{LabelSet, Sample, Series},
};
use crate::{
    model::{
        headroom::PortUse,
        limit::{Limit, LimitKind, Scope, level::Level},
        snapshot::{DestinationRow, Snapshot},
    },
    present::metric::{self, Metric},
};

/// A row that may get series.
struct Candidate {
    scope: Scope,
    level: Level,
    ratio: f64,
    row: Vec<Sample>,
}

pub(super) fn add(series: &mut Series, snapshot: &Snapshot, labels: &Labels, kept: &mut Kept) {
    let now = snapshot.uptime;
    nearest(series, destinations(snapshot, labels, kept), kept, now);
    nearest(series, listeners(snapshot, labels, kept), kept, now);
    kept.forget(now);
}

/// The fullest get series; the others count as left out.
fn nearest(series: &mut Series, mut candidates: Vec<Candidate>, kept: &mut Kept, now: Duration) {
    candidates.sort_by(|a, b| b.ratio.total_cmp(&a.ratio).then_with(|| a.scope.cmp(&b.scope)));
    // Listeners that share an address have one row, that of the fullest.
    let mut known: BTreeSet<LabelSet> = BTreeSet::new();
    candidates.retain(|it| it.row.first().is_some_and(|sample| known.insert(sample.labels.clone())));
    for (i, Candidate { scope, level, row, .. }) in candidates.into_iter().enumerate() {
        if i < metric::NEAR {
            kept.note(scope, level, now);
            series.add(row);
        } else {
            series.leave_out(&row);
        }
    }
}

fn destinations(snapshot: &Snapshot, labels: &Labels, kept: &Kept) -> Vec<Candidate> {
    let candidate = |row: &DestinationRow| {
        let ports = row.ports?;
        let DestinationRow { netns, local_ip, device, remote, .. } = *row;
        let scope = Scope::Destination { netns, local_ip, device, remote };
        let (ratio, level) = (ports.ratio(), ports.level());
        kept.has(&scope, level, snapshot.uptime).then(|| {
            let row = destination(row, ports, labels);
            Candidate { scope, level, ratio, row }
        })
    };
    snapshot.endpoints.iter().flat_map(|row| &row.destinations).filter_map(candidate).collect()
}

fn destination(row: &DestinationRow, ports: PortUse, labels: &Labels) -> Vec<Sample> {
    let local = row.device.scoped(row.local_ip);
    let (peer, port) = (row.remote.ip().to_string(), row.remote.port().to_string());
    let labels =
        [("netns", labels.netns(row.netns)), ("local_address", &local), ("peer_address", &peer), ("peer_port", &port)];
    let counts: [(&Metric, Option<u32>); 3] = [
        (&metric::PORTS_LEFT, ports.left()),
        (&metric::PORTS_USED, Some(ports.used)),
        (&metric::PORTS_TIME_WAIT, Some(ports.time_wait)),
    ];
    counts.into_iter().filter_map(|(metric, count)| Some(Sample::new(metric, &labels, count?))).collect()
}

fn listeners(snapshot: &Snapshot, labels: &Labels, kept: &Kept) -> Vec<Candidate> {
    let candidate = |limit: &Limit| {
        let Scope::Listener { netns, local, device, .. } = limit.scope else { return None };
        let is_wanted = limit.kind == LimitKind::AcceptQueue && kept.has(&limit.scope, limit.level(), snapshot.uptime);
        is_wanted.then(|| {
            let (address, port) = (device.scoped(local.ip()), local.port().to_string());
            let labels = [("netns", labels.netns(netns)), ("local_address", &address), ("local_port", &port)];
            let row = vec![
                Sample::new(&metric::QUEUE_LENGTH, &labels, limit.used),
                Sample::new(&metric::QUEUE_LIMIT, &labels, limit.maximum),
            ];
            Candidate { scope: limit.scope, level: limit.level(), ratio: limit.ratio(), row }
        })
    };
    snapshot.limits.iter().filter_map(candidate).collect()
}
