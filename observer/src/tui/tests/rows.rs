//! The rows of the screens that [`super::fixture`] shows: services, processes, failures, connections and limits.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::model::{
    device::Device,
    event::Queues,
    failure::{Failed, FailureKey, FailureKind, FailureRow, Local},
    headroom::PortUse,
    limit::{Counter, Limit, LimitKind, Scope},
    query::{ConnectionRow, Connections, Query},
    service::{Container, Pod, Runtime, Service},
    snapshot::{Direction, NearestDestination, ProcessRow, ServiceRow, Snapshot},
    units::{FourTuple, Pid, SocketId, TcpState},
};

use super::fixture::{NETNS, process, states};

pub(crate) fn unit(name: &str) -> Service {
    let path = format!("/system.slice/{name}");
    Service { path: Some(path.as_str().into()), unit: Some(name.into()), ..Service::default() }
}

/// A container of a pod.
pub(super) fn pod() -> Service {
    let uid = "1a2b3c4d-0000-4000-8000-00000000000f";
    let id = "0123456789ab".repeat(5) + "0123";
    let path = format!("/kubepods/burstable/pod{uid}/{id}");
    Service {
        path: Some(path.as_str().into()),
        pod: Some(Pod { uid: uid.into(), namespace: Some("shop".into()), name: Some("load-6f5d8".into()) }),
        container: Some(Container {
            id: id.as_str().into(),
            name: Some("load".into()),
            runtime: Some(Runtime::Containerd),
        }),
        ..Service::default()
    }
}

pub(super) fn services(data: &Snapshot) -> Vec<ServiceRow> {
    use TcpState::{CloseWait, Established, FinWait2, SynSent};
    let row = |service: Option<Service>, counts: &[(TcpState, u32)]| ServiceRow {
        sockets: states(counts).sum(),
        states: states(counts),
        ..ServiceRow::of(service.map(Arc::new))
    };
    let destination = &data.endpoints[1].destinations[0];
    let nearest = NearestDestination {
        netns: NETNS,
        netns_name: Some("host".into()),
        local_ip: destination.local_ip,
        device: destination.device,
        remote: destination.remote,
        ports: destination.ports.unwrap(),
    };
    vec![
        ServiceRow {
            listeners: 1,
            opened_per_second: 1_204.4,
            closed_per_second: 3.0,
            failures_total: 3,
            fullest: data.host.processes.first().copied(),
            ..row(Some(unit("nginx.service")), &[(Established, 70_000), (CloseWait, 7)])
        },
        ServiceRow {
            orphans: 3,
            opened_per_second: 1_204.4,
            failures_total: 1_400,
            nearest: Some(nearest),
            ..row(Some(pod().row_key()), &[(Established, 20_000), (SynSent, 12), (FinWait2, 3)])
        },
        ServiceRow { listeners: 1, ..row(Some(unit("ssh.service")), &[]) },
        ServiceRow { failed_total: 3, ..row(None, &[(Established, 13)]) },
    ]
}

pub(super) fn processes(data: &Snapshot) -> Vec<ProcessRow> {
    let files = data.host.processes.first().copied();
    let row = |pid, comm, sockets, files, failures, service| ProcessRow {
        process: process(pid, comm),
        sockets,
        files,
        failures,
        service: Some(Arc::new(service)),
    };
    vec![
        row(1_234_567, "nginx", 70_007, files, 0, unit("nginx.service")),
        row(4_242, "load-generator", 20_015, None, 1_400, pod()),
        row(812, "sshd", 0, None, 0, unit("ssh.service")),
    ]
}

pub(super) fn failures() -> Vec<FailureRow> {
    let full = PortUse { range: 28_232, blocked: Some(2), used: 8_830, time_wait: 19_400, ..PortUse::default() };
    let key = |kind, call, by, local: &str, port, remote: Option<&str>| FailureKey {
        kind,
        netns: NETNS,
        call,
        process: by,
        member: None,
        local: Some(Local { ip: local.parse().unwrap(), port, device: Device::NONE }),
        remote: remote.map(|remote| remote.parse().unwrap()),
        own_range: None,
    };
    let seconds = Duration::from_secs;
    let row = |key, count, last_at, failed, service| {
        let service = Some(Arc::new(service));
        FailureRow { key, count, first_at: seconds(60), last_at, failed, service, ended: None }
    };
    let client = Some(process(4_242, "load-generator"));
    let server = Some(process(1_234_567, "nginx"));
    let queues = Queues { accept: 129, syn: 3, limit: 128, drops: 3 };
    vec![
        row(
            key(FailureKind::PortsExhausted, Some("connect"), client, "10.0.0.5", 0, Some("10.0.0.9:5432")),
            1_400,
            seconds(3_724),
            Failed::Ports(full),
            pod(),
        ),
        row(
            key(FailureKind::AcceptQueue, None, server, "127.0.0.1", 8_080, None),
            3,
            seconds(3_600),
            Failed::Queues(queues),
            unit("nginx.service"),
        ),
    ]
}

pub(super) fn connections() -> Connections {
    let row = |port, remote: &str, state, owner, age| ConnectionRow {
        netns: NETNS,
        netns_name: None,
        tuple: FourTuple {
            local_ip: [127, 0, 0, 1].into(),
            local_port: port,
            remote_ip: remote.parse::<SocketAddr>().unwrap().ip(),
            remote_port: remote.parse::<SocketAddr>().unwrap().port(),
        },
        device: Device::NONE,
        direction: Direction::Inbound,
        state,
        owner,
        co_fd_owners: Vec::new(),
        // TIME_WAIT belongs to no cgroup.
        service: (state != TcpState::TimeWait).then(|| Arc::new(unit("nginx.service"))),
        cgroup: None,
        is_orphan: false,
        age,
    };
    let nginx = Some(process(1_234_567, "nginx"));
    Connections {
        query: Query::default(),
        rows: vec![
            row(8_080, "127.0.0.1:40000", TcpState::Established, nginx, Some(Duration::from_secs(5))),
            row(8_080, "127.0.0.1:40001", TcpState::CloseWait, nginx, Some(Duration::from_secs(75))),
            row(8_080, "127.0.0.1:40002", TcpState::TimeWait, None, None),
        ],
        matching: 70_009,
    }
}

/// What a busy host can run out of, the most urgent first.
pub(super) fn limits() -> Vec<Limit> {
    let limit = Limit::for_test;
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (nginx, service) = (Some(process(1_234_567, "nginx")), Some(Arc::new(unit("nginx.service"))));
    let listener =
        Scope::Listener { netns: NETNS, local: address("127.0.0.1:8080"), device: Device::NONE, id: SocketId(1) };
    let counter = |id, name, total, before| Counter { id, name, total, before };
    let counters = vec![
        counter("overflows", "overflows here since observer started", 3, None),
        counter("namespace_overflows", "overflows in the namespace (ListenOverflows)", 17, Some(14)),
    ];
    let local_ip = [127, 0, 0, 1].into();
    let destination =
        Scope::Destination { netns: NETNS, local_ip, device: Device::NONE, remote: address("127.0.0.1:8080") };
    vec![
        Limit {
            process: nginx,
            service: service.clone(),
            hits: Some(3),
            counters,
            ..limit(LimitKind::AcceptQueue, listener, 129, 129)
        },
        Limit { slope: Some(50.0), ..limit(LimitKind::Ports, destination, 22_022, 28_232) },
        Limit {
            process: nginx,
            service,
            ..limit(LimitKind::ProcessFiles, Scope::Process(Pid(1_234_567)), 70_019, 73_000)
        },
        limit(LimitKind::HostFiles, Scope::Host, 94_208, 1_048_576),
        limit(LimitKind::TimeWait, Scope::Namespace(NETNS), 2_000, 131_072),
        limit(LimitKind::TcpMemory, Scope::Host, 5_000, 575_802),
    ]
}
