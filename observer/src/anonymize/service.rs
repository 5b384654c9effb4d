//! Services under pseudonyms. Their labels are the pseudonyms of their labels: a network namespace is called by one.

use super::names::Names;
use crate::model::{
    name::Name,
    service::{Container, Pod, Service},
};

impl Names {
    /// Each of its parts.
    pub(super) fn service(&mut self, service: Service) -> Service {
        let Service { path, unit, pod, container, machine } = service;
        let pod = pod.map(|Pod { uid, namespace, name }| Pod {
            uid: self.uid(&uid),
            namespace: namespace.map(|name| self.workload(&name, "k8s")),
            name: name.map(|name| self.workload(&name, "pod")),
        });
        let container = container.map(|Container { id, name, runtime }| Container {
            id: self.workload(&id, "container"),
            name: name.map(|name| self.workload(&name, "container")),
            runtime,
        });
        Service {
            path: path.map(|path| self.path(&path)),
            unit: unit.map(|unit| Name::from(self.unit(unit.as_bytes()).as_str())),
            pod,
            container,
            machine: machine.map(|name| self.workload(&name, "machine")),
        }
    }

    /// Segment by segment: what a path says of users, and whether it is the root, stays.
    fn path(&mut self, path: &Name) -> Name {
        let segments = path.as_bytes().split(|byte| *byte == b'/').map(|segment| self.segment(segment));
        Name::from(segments.collect::<Vec<_>>().join("/").as_str())
    }
}
