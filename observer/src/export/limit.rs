//! Limits and findings as JSON objects.

use std::{net::IpAddr, ops::Not};

use serde::Serialize;

use super::{service::ServiceObject, value::ProcessObject};
use crate::model::{
    finding::Finding,
    hits::Hits,
    limit::{About, Counter, Limit, Scope},
    snapshot::Snapshot,
};

/// A limit. What does not apply to its kind, or is not known, is absent. Where there is no limit in practice, `unlimited` is
/// true and there is no maximum.
#[derive(Serialize)]
pub(super) struct LimitObject {
    kind: &'static str,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
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

impl LimitObject {
    pub(super) fn new(limit: &Limit) -> Self {
        let about = limit.about();
        let (scope, local, remote) = match limit.scope {
            Scope::Host => ("host", None, None),
            Scope::Namespace(_) => ("namespace", None, None),
            Scope::Process(_) => ("process", None, None),
            Scope::Destination { local_ip, remote, .. } => ("destination", Some((local_ip, None)), Some(remote)),
            Scope::Listener { local, .. } => ("listener", Some((local.ip(), Some(local.port()))), None),
        };
        Self {
            kind: about.id,
            scope,
            netns: limit.scope.netns().map(|netns| netns.0),
            netns_name: limit.netns_name.as_deref().map(str::to_owned),
            process: limit.process.as_ref().map(ProcessObject::new),
            service: ServiceObject::beside(limit.service.as_deref()),
            local_ip: local.map(|(ip, _)| ip),
            local_port: local.and_then(|(_, port)| port),
            device: limit.scope.device().label(),
            remote_ip: remote.map(|remote| remote.ip()),
            remote_port: remote.map(|remote| remote.port()),
            used: limit.used,
            maximum: limit.practical_maximum(),
            unlimited: limit.practical_maximum().is_none(),
            unit: about.unit,
            ratio: limit.practical_maximum().map(|_| limit.ratio()),
            slope_per_second: limit.slope,
            seconds_to_full: limit.time_to_full().map(|time| time.as_secs_f64()),
            hits_total: limit.hits,
            counters: limit.counters.iter().map(CounterObject::new).collect(),
            source: about.source,
            refusal: about.refusal,
            remedy: about.remedy,
            risk: about.risk,
        }
    }
}

/// A counter of the kernel beside a limit. `before_start_total` is the part of it that is older than observer.
#[derive(Serialize)]
struct CounterObject {
    id: &'static str,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_start_total: Option<u64>,
}

impl CounterObject {
    const fn new(counter: &Counter) -> Self {
        Self { id: counter.id, total: counter.total, before_start_total: counter.before }
    }
}

/// A finding.
#[derive(Serialize)]
pub(super) struct FindingObject {
    kind: &'static str,
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
    sentence: String,
    evidence: String,
    remedy: String,
}

impl FindingObject {
    pub(super) fn new(finding: &Finding, snapshot: &Snapshot) -> Self {
        let Finding { kind, netns, scope: _, service, sentence, evidence, remedy } = finding;
        let netns_name = snapshot.name_of(*netns).map(ToString::to_string);
        let service = ServiceObject::beside(service.as_deref());
        let [sentence, evidence, remedy] = [sentence, &**evidence, remedy].map(str::to_owned);
        Self { kind: kind.id(), netns: netns.0, netns_name, service, sentence, evidence, remedy }
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
    pub(super) fn new(hits: Hits<'_>) -> Self {
        let Hits { kind, netns, netns_name, count, since, counter } = hits;
        Self {
            kind: About::of(kind).id,
            netns: netns.map(|netns| netns.0),
            netns_name: netns_name.map(|name| &**name).map(str::to_owned),
            hits_total: count,
            since: since.name(),
            counter,
        }
    }
}
