//! Frames of hosts that no recording shows, made of the rows of one.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use observer::{
    frame::{Detail, Frame, FrameSource as _, RecordedSource},
    model::{
        address::Direction,
        failure::{FailureCount, FailureKind},
        headroom::PortUse,
        limit::{Limit, LimitKind, Scope},
        name::Name,
        service::{Container, Pod, Runtime, Service},
        snapshot::{DestinationRow, EndpointRow, FlowRow, NamespaceRow, ProcessFiles, ProcessRow, Snapshot},
        units::{Comm, NetnsId, Pid, PortRange, Process, SocketId, StateCounts, TcpState},
    },
};

use super::recording;

pub(crate) const NAMESPACES: u32 = 300;
pub(crate) const DESTINATIONS: u32 = 5_000;
pub(crate) const COMMS: u32 = 1_000;
/// The range of every namespace.
const PORTS: u32 = 28_232;

/// The end of a recording in which ports run out.
pub(crate) fn frame() -> Frame {
    let mut source = RecordedSource::open(&recording("lab-time-wait")).unwrap();
    source.seek(None).unwrap();
    source.frame(Detail::ALL).unwrap()
}

/// Rows to copy.
struct Templates {
    client: EndpointRow,
    listener: EndpointRow,
    namespace: NamespaceRow,
    queue: Limit,
}

impl Templates {
    fn of(snapshot: &Snapshot) -> Self {
        let client = snapshot.endpoints.iter().find(|row| !row.destinations.is_empty()).unwrap().clone();
        let listener = snapshot.endpoints.iter().find(|row| row.listening).unwrap().clone();
        let queue = snapshot.limits.iter().find(|limit| limit.kind == LimitKind::AcceptQueue).unwrap().clone();
        Self { client, listener, namespace: snapshot.namespaces[0].clone(), queue }
    }
}

/// The namespace with this place in the order.
pub(crate) fn netns(n: u32) -> NetnsId {
    NetnsId(4_026_532_000 + n)
}

pub(crate) fn namespace(template: &NamespaceRow, n: u32, name: Option<&[u8]>) -> NamespaceRow {
    NamespaceRow {
        netns: netns(n),
        name: name.map(|name| Name::new(name).into()),
        service: service(n).map(Arc::new),
        port_range: Some(PortRange { low: 32_768, high: 60_999 }),
        reserved_ports: 1,
        blocked_ports: Some(2),
        listen_drops: Some(3),
        ..template.clone()
    }
}

/// Every kind of service that a namespace can have, in turn, and none.
pub(crate) fn service(n: u32) -> Option<Service> {
    let container = |name: &str| Container {
        id: format!("{n:064x}").as_str().into(),
        name: Some(name.into()),
        runtime: Some(Runtime::Containerd),
    };
    let unit = || Some(Name::from("docker-1.scope"));
    match n % 5 {
        0 => None,
        1 => {
            let pod = Pod { uid: "u".into(), namespace: Some("shop".into()), name: Some("web-6f5d8".into()) };
            Some(Service { pod: Some(pod), container: Some(container("front")), ..Service::default() })
        }
        2 => Some(Service { container: Some(container("db")), unit: unit(), ..Service::default() }),
        3 => Some(Service { machine: Some("vm".into()), unit: unit(), ..Service::default() }),
        _ => Some(Service { unit: Some("nginx.service".into()), ..Service::default() }),
    }
}

/// 300 namespaces with 5,000 destinations, each with a listener, and 2,000 processes with 1,000 names.
pub(crate) fn large_host() -> Frame {
    let mut frame = frame();
    let templates = Templates::of(&frame.snapshot);
    let snapshot = &mut frame.snapshot;
    snapshot.endpoints.clear();
    snapshot.namespaces =
        (0..NAMESPACES).map(|n| namespace(&templates.namespace, n, Some(format!("pod-{n}").as_bytes()))).collect();
    snapshot.limits.retain(|limit| !matches!(limit.kind, LimitKind::AcceptQueue));
    for n in 0..NAMESPACES {
        snapshot.endpoints.push(client(&templates.client, n));
        snapshot.endpoints.push(listener(&templates.listener, n));
    }
    snapshot.limits.extend((0..16).map(|n| queue(&templates.queue, n)));
    let directions = [Direction::Inbound, Direction::Outbound];
    let flow = |n, direction| FlowRow { netns: netns(n), direction, opened_total: 7, closed_total: 5, failed_total: 1 };
    snapshot.flows = (0..NAMESPACES).flat_map(|n| directions.map(|direction| flow(n, direction))).collect();
    let kinds = [FailureKind::PortsExhausted, FailureKind::AcceptQueue];
    let failures = |n: u32| kinds.map(|kind| FailureCount { netns: netns(n), kind, count: 11 });
    snapshot.failure_counts = (0..NAMESPACES).flat_map(failures).collect();
    snapshot.processes = (0..2 * COMMS).map(|n| process(n, format!("worker-{}", n % COMMS).as_bytes())).collect();
    frame
}

/// The client of a namespace, with its share of all destinations.
fn client(template: &EndpointRow, n: u32) -> EndpointRow {
    let mut row = template.clone();
    row.key.netns = netns(n);
    row.states = states(&[(TcpState::Established, 10), (TcpState::TimeWait, 3)]);
    let own = (0..DESTINATIONS).filter(|destination| destination % NAMESPACES == n);
    row.destinations = own.map(|number| destination(&template.destinations[0], n, number)).collect();
    row
}

/// Towards destination `number` the part `number` / 5,000 of all ports is used.
fn destination(template: &DestinationRow, n: u32, number: u32) -> DestinationRow {
    let used = PORTS * number / DESTINATIONS;
    let ip = IpAddr::from(Ipv4Addr::from_bits(0x0a01_0000 + number));
    let ports = PortUse { range: PORTS, blocked: Some(0), used, ..PortUse::default() };
    DestinationRow { netns: netns(n), remote: SocketAddr::new(ip, 443), ports: Some(ports), ..template.clone() }
}

fn listener(template: &EndpointRow, n: u32) -> EndpointRow {
    let mut row = template.clone();
    row.key.netns = netns(n);
    row.sockets = n;
    row.states = states(&[(TcpState::Established, n)]);
    row
}

/// A queue near its limit.
fn queue(template: &Limit, n: u32) -> Limit {
    let Scope::Listener { local, device, .. } = template.scope else { panic!("{template:?}") };
    let scope = Scope::Listener { netns: netns(n), local, device, id: SocketId(n.into()) };
    Limit { scope, used: 110 + u64::from(n), maximum: 129, ..template.clone() }
}

pub(crate) fn process(n: u32, comm: &[u8]) -> ProcessRow {
    let process = Process { pid: Pid(100_000 + n), comm: Comm::from(comm) };
    let files = ProcessFiles { process, open: u64::from(n), soft_limit: Some(4_000), hard_limit: None };
    ProcessRow { process, sockets: 0, files: Some(files), failures: 0, service: None }
}

fn states(counts: &[(TcpState, u32)]) -> StateCounts {
    let mut states = StateCounts::default();
    for (state, count) in counts {
        *states.get_mut(*state) = *count;
    }
    states
}
