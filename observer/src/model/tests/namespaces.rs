//! What a namespace is called: first by what lives in it, then by its sockets.

use std::time::{Duration, SystemTime};

use super::{change, socket};
use crate::model::{
    Model,
    member::Member,
    namespace::{NamespaceName, NamespaceReading},
    service::{CgroupId, Container, Pod, Service},
    units::{NetnsId, TcpState},
};

const NETNS: u32 = 5;
const AGENT: CgroupId = CgroupId(20);
const OWN: CgroupId = CgroupId(30);

/// The name of a namespace that has these sockets of cgroups, and that a reading knows by `name`.
fn name(name: NamespaceName, services: [(CgroupId, Service, u64); 2]) -> Option<String> {
    let mut model = Model::default();
    model.set_namespace(NetnsId(NETNS), NamespaceReading { name, ..NamespaceReading::default() });
    let mut n = 0;
    for (cgroup, service, sockets) in services {
        for _ in 0..sockets {
            n += 1;
            // Each has an endpoint of its own.
            let mut opened = socket(NETNS, n, Some(cgroup));
            opened.tuple.local_port = u16::try_from(cgroup.0).unwrap();
            let event = change(opened, Duration::ZERO, TcpState::SynReceived, TcpState::Established);
            model.apply(&event, Duration::ZERO);
        }
        model.set_service(Member::Cgroup(cgroup), Some(service));
    }
    let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0);
    snapshot.namespaces[0].name.as_ref().map(ToString::to_string)
}

#[test]
fn what_lives_in_a_namespace_names_it_before_an_agent_that_opened_most_of_its_sockets() {
    let pod = |name: &str| {
        let pod = Pod { uid: name.into(), namespace: Some("shop".into()), name: Some(name.into()) };
        Service { pod: Some(pod), ..Service::default() }
    };
    let container = Container { id: "front".into(), name: None, runtime: None };
    let container = Service { container: Some(container), ..Service::default() };
    let unit = Service { unit: Some("web.service".into()), ..Service::default() };
    let (other, workload) =
        (|name: &str| NamespaceName::Other(name.into()), NamespaceName::Workload("shop/web".into()));
    for (known, agents, own, expected) in [
        (workload.clone(), (pod("ztunnel"), 9), (pod("web"), 1), "shop/web"),
        (workload, (container.clone(), 9), (unit.clone(), 0), "shop/web"),
        (other("blue"), (pod("ztunnel"), 2), (pod("web"), 1), "shop/ztunnel"),
        (other("blue"), (pod("ztunnel"), 1), (pod("web"), 2), "shop/web"),
        // Of as many, the first in the alphabet.
        (other("blue"), (pod("b"), 1), (pod("a"), 1), "shop/a"),
        (other("blue"), (unit.clone(), 9), (container.clone(), 1), "front"),
        (other("blue"), (unit.clone(), 9), (unit.clone(), 0), "blue"),
        (other("host"), (pod("ztunnel"), 9), (pod("web"), 1), "host"),
        (NamespaceName::Unknown, (unit.clone(), 9), (container, 1), "front"),
        (NamespaceName::Unknown, (unit.clone(), 1), (unit, 0), "web.service"),
    ] {
        let found = name(known.clone(), [(AGENT, agents.0, agents.1), (OWN, own.0, own.1)]);
        assert_eq!(found.as_deref(), Some(expected), "{known:?}");
    }
}

#[test]
fn a_name_in_a_recording_of_before_is_read_as_one_of_no_workload() {
    for (before, now) in [(None, NamespaceName::Unknown), (Some("blue"), NamespaceName::Other("blue".into()))] {
        let bytes = postcard::to_stdvec(&before.map(crate::model::name::Name::from)).unwrap();
        assert_eq!(postcard::from_bytes::<NamespaceName>(&bytes).unwrap(), now);
        assert_eq!(postcard::to_stdvec(&now).unwrap(), bytes);
    }
}
