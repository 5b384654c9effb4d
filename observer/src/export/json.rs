//! Schema 2 of `observer snapshot --json` and `observer watch`. Fields that are not known are absent, never a guess.

use std::{net::IpAddr, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    counts::{FailureCountObject, FlowObject},
    limit::{FindingObject, HitsObject, LimitObject},
    quality::QualityObject,
    service::{ServiceObject, ServiceRowObject},
    value::{Ports, ProcessObject, rfc_3339, states},
};
use crate::model::{
    failure::{FailureKey, FailureRow},
    port_owner::PortOwner,
    snapshot::{DestinationRow, EndpointRow, NamespaceRow, OwnerRow, Snapshot},
};

/// The document of `snapshot --json` and of each line of `watch`.
#[derive(Serialize)]
pub(super) struct Document {
    schema: u32,
    taken_at: String,
    uptime_seconds: f64,
    kernel: String,
    totals: Totals,
    endpoints: Vec<Endpoint>,
    services: Vec<ServiceRowObject>,
    namespaces: Vec<NamespaceObject>,
    failures: Vec<Failure>,
    failures_total: u64,
    failure_counts: Vec<FailureCountObject>,
    flows: Vec<FlowObject>,
    limits: Vec<LimitObject>,
    hits: Vec<HitsObject>,
    findings: Vec<FindingObject>,
    quality: QualityObject,
}

#[derive(Serialize)]
struct Totals {
    sockets: u32,
    connections: u32,
    opened_total: u64,
    closed_total: u64,
    unopened_total: u64,
}

#[derive(Serialize)]
struct Endpoint {
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    direction: &'static str,
    local_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    listening: bool,
    sockets: u32,
    states: Map<String, Value>,
    opened_total: u64,
    closed_total: u64,
    unopened_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owners: Vec<OwnerObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<ProcessObject>,
    orphans: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destinations: Vec<Destination>,
}

#[derive(Serialize)]
struct OwnerObject {
    #[serde(flatten)]
    process: ProcessObject,
    sockets: u32,
    /// Sockets that it holds, and that count with another of the owners.
    #[serde(skip_serializing_if = "is_zero")]
    shared: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Destination {
    remote_ip: IpAddr,
    remote_port: u16,
    sockets: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Ports>,
}

#[derive(Serialize)]
struct NamespaceObject {
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port_range: Option<[u16; 2]>,
    reserved_ports: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_ports: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_tw_reuse: Option<u8>,
    established: u32,
    time_wait: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen_drops_total: Option<u64>,
}

#[derive(Serialize)]
struct Failure {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'static str>,
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_ended: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_port_range: Option<[u16; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port_owner: Option<PortOwnerObject>,
    count: u64,
    first_at: String,
    last_at: String,
    reason: String,
}

/// Who holds the port that bind() did not get.
#[derive(Serialize)]
struct PortOwnerObject {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<u64>,
}

impl Document {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let totals = &snapshot.totals;
        Self {
            schema: super::SCHEMA,
            taken_at: rfc_3339(snapshot.taken_at),
            uptime_seconds: snapshot.uptime.as_secs_f64(),
            kernel: snapshot.host.kernel.clone(),
            totals: Totals {
                sockets: totals.sockets,
                connections: totals.connections,
                opened_total: totals.opened_total,
                closed_total: totals.closed_total,
                unopened_total: totals.failed_total,
            },
            endpoints: snapshot.endpoints.iter().map(Endpoint::new).collect(),
            services: snapshot.services.iter().map(|row| ServiceRowObject::new(row, snapshot)).collect(),
            namespaces: snapshot.namespaces.iter().map(NamespaceObject::new).collect(),
            failures: snapshot.failures.iter().map(|row| Failure::new(row, snapshot)).collect(),
            failures_total: snapshot.failures_total,
            failure_counts: snapshot.failure_counts.iter().map(FailureCountObject::new).collect(),
            flows: snapshot.flows.iter().map(FlowObject::new).collect(),
            limits: snapshot.limits.iter().map(LimitObject::new).collect(),
            hits: snapshot.hits().map(HitsObject::new).collect(),
            findings: snapshot.findings.iter().map(|finding| FindingObject::new(finding, snapshot)).collect(),
            quality: QualityObject::new(&snapshot.quality, snapshot.taken_at, snapshot.uptime),
        }
    }
}

impl Endpoint {
    fn new(row: &EndpointRow) -> Self {
        Self {
            netns: row.key.netns.0,
            netns_name: row.netns_name.as_deref().map(str::to_owned),
            direction: row.key.direction.name(),
            local_ip: row.key.local_ip,
            device: row.key.device.label(),
            local_port: row.key.local_port,
            listening: row.listening,
            sockets: row.sockets,
            states: states(&row.states),
            opened_total: row.opened_total,
            closed_total: row.closed_total,
            unopened_total: row.failed_total,
            process: row.process.as_ref().map(ProcessObject::new),
            owners: row.owners.iter().map(OwnerObject::new).collect(),
            listeners: row.listeners.iter().map(ProcessObject::new).collect(),
            orphans: row.orphans,
            service: ServiceObject::beside(row.service.as_deref()),
            destinations: row.destinations.iter().map(Destination::new).collect(),
        }
    }
}

impl OwnerObject {
    fn new(row: &OwnerRow) -> Self {
        Self { process: ProcessObject::new(&row.process), sockets: row.sockets, shared: row.shared }
    }
}

impl Destination {
    fn new(row: &DestinationRow) -> Self {
        Self {
            remote_ip: row.remote.ip(),
            remote_port: row.remote.port(),
            sockets: row.sockets,
            service: ServiceObject::beside(row.service.as_deref()),
            ports: row.ports.map(Ports::new),
        }
    }
}

impl NamespaceObject {
    fn new(row: &NamespaceRow) -> Self {
        Self {
            netns: row.netns.0,
            netns_name: row.name.as_deref().map(str::to_owned),
            service: ServiceObject::beside(row.service.as_deref()),
            port_range: row.port_range.map(|range| [range.low, range.high]),
            reserved_ports: row.reserved_ports,
            blocked_ports: row.blocked_ports,
            tcp_tw_reuse: row.tcp_tw_reuse,
            established: row.established,
            time_wait: row.time_wait,
            listen_drops_total: row.listen_drops,
        }
    }
}

impl Failure {
    fn new(row: &FailureRow, snapshot: &Snapshot) -> Self {
        let FailureKey { kind, netns, call, process, local, remote, own_range, member: _ } = &row.key;
        let at = |uptime: Duration| rfc_3339(snapshot.taken_at - snapshot.uptime.saturating_sub(uptime));
        Self {
            kind: kind.name(),
            errno: kind.errno(),
            call: *call,
            netns: netns.0,
            netns_name: snapshot.netns_name_of(row).map(ToString::to_string),
            netns_ended: row.ended.as_ref().map(|_| true),
            process: process.as_ref().map(ProcessObject::new),
            service: ServiceObject::beside(row.service.as_deref()),
            local_ip: local.map(|local| local.ip),
            device: local.and_then(|local| local.device.label()),
            local_port: local.map(|local| local.port).filter(|port| *port != 0),
            remote_ip: remote.map(|remote| remote.ip()),
            remote_port: remote.map(|remote| remote.port()),
            own_port_range: own_range.map(|range| [range.low, range.high]),
            port_owner: row.port_owner().map(PortOwnerObject::new),
            count: row.count,
            first_at: at(row.first_at),
            last_at: at(row.last_at),
            reason: row.reason(),
        }
    }
}

impl PortOwnerObject {
    fn new(port_owner: PortOwner) -> Self {
        let seconds_left = match port_owner {
            PortOwner::Waiting { left, .. } => left.map(|left| left.as_secs()),
            _ => None,
        };
        Self { kind: port_owner.name(), process: port_owner.process().as_ref().map(ProcessObject::new), seconds_left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::{Comm, Pid, Process, TcpState};

    #[test]
    fn a_port_owner_is_a_process_or_the_seconds_that_are_left() {
        let object = |port_owner| serde_json::to_value(PortOwnerObject::new(port_owner)).unwrap();
        let nginx = Process { pid: Pid(812), comm: Comm::from("nginx") };
        assert_eq!(
            object(PortOwner::Listener(Some(nginx))),
            serde_json::json!({ "kind": "listener", "process": { "pid": 812, "comm": "nginx" } })
        );
        let left = Some(Duration::from_millis(42_900));
        let waiting = PortOwner::Waiting { state: TcpState::TimeWait, ends_at: None, left };
        assert_eq!(object(waiting), serde_json::json!({ "kind": "time_wait", "seconds_left": 42 }));
        assert_eq!(object(PortOwner::Unseen), serde_json::json!({ "kind": "unseen" }));
    }
}
