//! What a namespace is called: first by what lives in it, then by its sockets.

use std::time::{Duration, SystemTime};

use super::{change, socket};
use crate::model::{
    Model,
    failure::FailureRow,
    member::Member,
    namespace::{NamespaceName, NamespaceReading},
    quality::ScanSummary,
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
fn a_name_that_several_namespaces_have_or_that_looks_like_a_number_has_its_number_beside_it() {
    let mut model = Model::default();
    // The last ones pretend to be others.
    let names = ["host", "web", "web", "4", "5", "web (2)", "blue (1)", "blue"];
    for (netns, name) in (1..).zip(names) {
        let reading = NamespaceReading { name: NamespaceName::Other(name.into()), ..NamespaceReading::default() };
        model.set_namespace(NetnsId(netns), reading);
    }
    model.set_namespace(NetnsId(9), NamespaceReading::default());
    let labels = |model: &mut Model| -> Vec<String> {
        let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0);
        snapshot.namespaces.iter().map(|row| row.netns.label(row.name.as_ref())).collect()
    };
    assert_eq!(
        labels(&mut model),
        ["host", "web (2)", "web (3)", "4", "5", "web (2) (6)", "blue (1) (7)", "blue", "9"]
    );
    let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0);
    assert_eq!(snapshot.name_of(NetnsId(2)).map(ToString::to_string).as_deref(), Some("web"), "as it was chosen");
    model.forget_namespace(NetnsId(2));
    assert_eq!(labels(&mut model)[1], "web", "it is alone");
}

#[test]
fn a_name_in_a_recording_of_before_is_read_as_one_of_no_workload() {
    for (before, now) in [(None, NamespaceName::Unknown), (Some("blue"), NamespaceName::Other("blue".into()))] {
        let bytes = postcard::to_stdvec(&before.map(crate::model::name::Name::from)).unwrap();
        assert_eq!(postcard::from_bytes::<NamespaceName>(&bytes).unwrap(), now);
        assert_eq!(postcard::to_stdvec(&now).unwrap(), bytes);
    }
}

#[test]
fn nothing_of_a_namespace_that_ended_is_left_to_the_next_one_of_its_number() {
    let mut model = Model::default();
    let reading = |name: &str, overflows| NamespaceReading {
        name: NamespaceName::Other(name.into()),
        time_wait_overflows: Some(overflows),
        tcp_max_tw_buckets: Some(100),
        time_wait: Some(90),
        ..NamespaceReading::default()
    };
    let netns = NetnsId(NETNS);
    let listed = |model: &mut Model| {
        let snapshot = model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0);
        let failure =
            |row: &FailureRow| (snapshot.netns_name_of(row).map(ToString::to_string), row.ended.is_some(), row.count);
        let failures: Vec<_> = snapshot.failures.iter().map(failure).collect();
        let before = snapshot.limits.iter().flat_map(|limit| &limit.counters).map(|counter| counter.before);
        (failures, snapshot.flows.len() + snapshot.endpoints.len(), before.collect::<Vec<_>>())
    };
    model.set_namespace(netns, reading("old", 7));
    model.end_round(ScanSummary { finished_at: Duration::ZERO, took: Duration::ZERO, found: 0 });
    model.set_namespace(netns, reading("old", 9));
    let opened = socket(NETNS, 1, None);
    model.apply(&change(opened, Duration::ZERO, TcpState::SynSent, TcpState::Established), Duration::ZERO);
    let (failures, _, before) = listed(&mut model);
    assert_eq!(failures, [(Some("old".to_owned()), false, 2)], "what it counted first was there before observer");
    assert_eq!(before, [Some(7)]);
    model.forget_namespace(netns);
    let old = (Some("old".to_owned()), true, 2);
    assert_eq!(listed(&mut model), (vec![old.clone()], 0, vec![]));
    // All that a younger namespace has counted, it has counted since observer started.
    model.set_namespace(netns, reading("new", 3));
    let (failures, rows, before) = listed(&mut model);
    assert_eq!(failures, [(Some("new".to_owned()), false, 3), old]);
    assert_eq!((rows, before), (0, vec![Some(0)]));
    assert_eq!(model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 0).failures_total, 5);
}
