//! Services as JSON objects.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value};

use super::value::{Ports, ProcessObject, states};
use crate::{
    model::{
        limit::practical,
        name::Name,
        service::{Container, Pod, Runtime, Service},
        snapshot::{NearestDestination, ProcessFiles, ServiceRow, Snapshot},
    },
    present::service,
};

/// What a socket's cgroup names. Parts that its path does not show are absent.
#[derive(Serialize)]
pub(super) struct ServiceObject {
    label: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<PodObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<ContainerObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
}

#[derive(Serialize)]
struct PodObject {
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize)]
struct ContainerObject {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'static str>,
}

impl ServiceObject {
    /// The service beside a row.
    pub(super) fn beside(service: Option<&Service>) -> Option<Self> {
        service::beside(service).map(Self::new)
    }

    fn new(service: &Service) -> Self {
        let text = |name: &Option<Name>| name.as_deref().map(str::to_owned);
        let pod = |Pod { uid, namespace, name }: &Pod| PodObject {
            uid: uid.to_string(),
            namespace: text(namespace),
            name: text(name),
        };
        let container = |Container { id, name, runtime }: &Container| ContainerObject {
            id: id.to_string(),
            name: text(name),
            runtime: runtime.map(Runtime::id),
        };
        let Service { path, unit, pod: of_pod, container: of_container, machine } = service;
        Self {
            label: service.label().to_string(),
            kind: service.kind(),
            path: text(path),
            unit: text(unit),
            pod: of_pod.as_ref().map(pod),
            container: of_container.as_ref().map(container),
            machine: text(machine),
        }
    }
}

/// A row of services; `service` is absent from the one that sums what nobody could name.
#[derive(Serialize)]
pub(super) struct ServiceRowObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
    sockets: u32,
    states: Map<String, Value>,
    orphans: u32,
    listeners: u32,
    bound: u32,
    opened_total: u64,
    closed_total: u64,
    unopened_total: u64,
    failures_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<NearestObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fullest: Option<FullestObject>,
}

/// Of the destinations where a service has the most sockets, the one with the largest share of its ports in use.
#[derive(Serialize)]
struct NearestObject {
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    local_ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    remote_ip: IpAddr,
    remote_port: u16,
    ports: Ports,
}

/// The process of a service that is nearest to its limit of descriptors.
#[derive(Serialize)]
struct FullestObject {
    process: ProcessObject,
    open_fds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_fds: Option<u64>,
}

impl ServiceRowObject {
    pub(super) fn new(row: &ServiceRow, snapshot: &Snapshot) -> Self {
        Self {
            service: row.service.as_deref().map(ServiceObject::new),
            sockets: row.sockets,
            states: states(&row.states),
            orphans: row.orphans,
            listeners: row.listeners,
            bound: row.bound,
            opened_total: row.opened_total,
            closed_total: row.closed_total,
            unopened_total: row.failed_total,
            failures_total: row.failures_total,
            nearest: row.nearest.as_ref().map(NearestObject::new),
            fullest: row.fullest.as_ref().map(|files| FullestObject::new(files, snapshot)),
        }
    }
}

impl NearestObject {
    fn new(nearest: &NearestDestination) -> Self {
        let NearestDestination { netns, netns_name, local_ip, device, remote, ports } = nearest;
        Self {
            netns: netns.0,
            netns_name: netns_name.as_deref().map(str::to_owned),
            local_ip: *local_ip,
            device: device.label(),
            remote_ip: remote.ip(),
            remote_port: remote.port(),
            ports: Ports::new(*ports),
        }
    }
}

impl FullestObject {
    fn new(files: &ProcessFiles, snapshot: &Snapshot) -> Self {
        Self {
            process: ProcessObject::new(&files.process),
            open_fds: files.open,
            maximum_fds: snapshot.host.most_descriptors(files).and_then(practical),
        }
    }
}
