//! Walls and findings as JSON objects.

use std::{net::IpAddr, ops::Not};

use serde::Serialize;

use crate::model::{
    finding::Finding,
    hits::Hits,
    snapshot::Snapshot,
    wall::{About, Counter, Subject, Wall},
};

/// A wall. What does not apply to its kind, or is not known, is absent. Where there is no limit in practice, `unlimited` is
/// true and there is no maximum.
#[derive(Serialize)]
pub(super) struct WallObject {
    kind: &'static str,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
    used: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<u64>,
    #[serde(skip_serializing_if = "Not::not")]
    unlimited: bool,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slope_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_full: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hits_total: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    counters: Vec<CounterObject>,
    source: &'static str,
    refusal: &'static str,
    remedy: &'static str,
    risk: &'static str,
}

impl WallObject {
    pub(super) fn new(wall: &Wall) -> Self {
        let about = wall.about();
        let (scope, local, remote) = match wall.subject {
            Subject::Host => ("host", None, None),
            Subject::Namespace(_) => ("namespace", None, None),
            Subject::Process(_) => ("process", None, None),
            Subject::Destination { local_ip, remote, .. } => ("destination", Some((local_ip, None)), Some(remote)),
            Subject::Listener { local, .. } => ("listener", Some((local.ip(), Some(local.port()))), None),
        };
        Self {
            kind: about.id,
            scope,
            netns: wall.subject.netns().map(|netns| netns.0),
            netns_name: wall.netns_name.as_deref().map(str::to_owned),
            pid: wall.process.map(|process| process.pid.number()),
            comm: wall.process.map(|process| process.comm.to_string()),
            local_ip: local.map(|(ip, _)| ip),
            local_port: local.and_then(|(_, port)| port),
            device: wall.subject.device().label(),
            remote_ip: remote.map(|remote| remote.ip()),
            remote_port: remote.map(|remote| remote.port()),
            used: wall.used,
            maximum: wall.practical_maximum(),
            unlimited: wall.practical_maximum().is_none(),
            unit: about.unit,
            ratio: wall.practical_maximum().map(|_| wall.ratio()),
            slope_per_second: wall.slope,
            seconds_to_full: wall.time_to_full().map(|time| time.as_secs_f64()),
            hits_total: wall.hits,
            counters: wall.counters.iter().map(CounterObject::new).collect(),
            source: about.source,
            refusal: about.refusal,
            remedy: about.remedy,
            risk: about.risk,
        }
    }
}

/// A counter of the kernel beside a limit. `before_start` is the part of it that is older than observer.
#[derive(Serialize)]
struct CounterObject {
    id: &'static str,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_start: Option<u64>,
}

impl CounterObject {
    const fn new(counter: &Counter) -> Self {
        Self { id: counter.id, total: counter.total, before_start: counter.before }
    }
}

/// A finding.
#[derive(Serialize)]
pub(super) struct FindingObject {
    kind: &'static str,
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    sentence: String,
    evidence: String,
    remedy: String,
}

impl FindingObject {
    pub(super) fn new(finding: &Finding, snapshot: &Snapshot) -> Self {
        let Finding { kind, netns, subject: _, sentence, evidence, remedy } = finding.clone();
        let netns_name = snapshot.name_of(netns).map(str::to_owned);
        Self { kind: kind.id(), netns: netns.0, netns_name, sentence, evidence, remedy }
    }
}

/// How often a kind of limit was hit, and since when: `boot`, `namespace` (since it was made) or `observer` (since it
/// started).
#[derive(Serialize)]
pub(super) struct HitsObject {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    hits_total: u64,
    since: &'static str,
    counter: &'static str,
}

impl HitsObject {
    pub(super) fn new(hits: &Hits) -> Self {
        let Hits { kind, netns, netns_name, count, since, counter } = hits;
        Self {
            kind: About::of(*kind).id,
            netns: netns.map(|netns| netns.0),
            netns_name: netns_name.as_deref().map(str::to_owned),
            hits_total: *count,
            since: since.name(),
            counter,
        }
    }
}
