//! A host that no recording shows: observer in a pid namespace, sockets bound to a device, port ranges of sockets' own, a
//! hook that is missing, a round that was skipped, services of every kind. The model gets the inputs, and says the rest
//! but the services.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use observer::{
    export::{json, limits},
    frame::Frame,
    model::{
        Basis, Model,
        cost::Cost,
        device::{Device, DeviceReading},
        event::{Binding, Event, Found, Identity, OwnRange, Queues, Refused},
        failure::Local,
        finding::{Finding, FindingKind},
        gaps::{Gaps, ProcessScope, Skipped},
        headroom::PortUse,
        name::NetnsName,
        namespace::NamespaceReading,
        quality::{AttachMethod, FailedMethod, Hook, HookStatus, ScanSummary},
        service::{Container, Pod, Runtime, Service},
        snapshot::{DestinationRow, Direction, FileUse, Host, NearestDestination, ProcessFiles, ServiceRow, Snapshot},
        units::{FourTuple, NetnsId, Pid, PortRange, Process, SocketId, StateCounts, TcpState},
    },
};

const NETNS: NetnsId = NetnsId(1);
const NOW: Duration = Duration::from_secs(10);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
const DEVICE: u32 = 2;

/// A process outside of the pid namespace in which observer runs.
fn outside(pid: u32, comm: &str) -> Process {
    Process { pid: Pid(Pid::OUTSIDE | pid), comm: comm.into() }
}

fn hooks() -> Vec<HookStatus> {
    let attached = |hook, method| HookStatus { hook, method: Some(method), failed: Vec::new() };
    let because = "EPERM (Operation not permitted)".to_owned();
    vec![
        attached(Hook::State, AttachMethod::RawTracepoint),
        HookStatus {
            hook: Hook::Accept,
            method: None,
            failed: vec![FailedMethod { method: AttachMethod::Fexit, because }],
        },
        attached(Hook::Failures, AttachMethod::SyscallTracepoint),
        attached(Hook::Scan, AttachMethod::Iterator),
        attached(Hook::FdOwners, AttachMethod::Iterator),
    ]
}

fn set_host(model: &mut Model) {
    let devices = vec![DeviceReading { index: DEVICE, name: "eth0".into(), vrf: 0 }];
    let port_range = Some(PortRange { low: 32_768, high: 60_999 });
    model.set_namespace(NETNS, NamespaceReading { devices, port_range, ..NamespaceReading::default() });
    let files = Some(FileUse { allocated: 2_112, max: i64::MAX as u64 });
    model.set_host(Host { kernel: "6.18.0".to_owned(), files, ..Host::default() });
    let cause = "no descriptor was free".to_owned();
    let skipped = Skipped { rounds: 1, operation: "BPF_ITER_CREATE".to_owned(), errno: Some(24), cause };
    let mut gaps = Gaps::default();
    gaps.skipped = skipped;
    model.set_gaps(gaps, NOW);
}

/// A listener on a device, and its connection, which two processes share.
fn scan(model: &mut Model) {
    let tuple = |remote_ip: Ipv4Addr, remote_port| FourTuple {
        local_ip: LOCAL,
        local_port: 80,
        remote_ip: remote_ip.into(),
        remote_port,
    };
    let identity =
        |id, tuple| Identity { id: SocketId(id), netns: NETNS, tuple, device: Device::new(DEVICE), cgroup: None };
    let found = |socket, state| {
        let binding = Binding { explicit_bucket: Some(true), port_locked: true, ..Binding::default() };
        Event::Scanned { socket, state: Found::Full(state), binding, orphan: false }
    };
    let held =
        |id, by| Event::Held { id: SocketId(id), netns: NETNS, by, fd: 3, state: None, bound: None, cgroup: None };
    let (listener, accepted) =
        (identity(1, tuple(Ipv4Addr::UNSPECIFIED, 0)), identity(2, tuple([10, 0, 0, 9].into(), 40_000)));
    model.begin_scan(NETNS, NOW);
    model.apply(&found(listener, TcpState::Listen), NOW);
    let queues = Queues { accept: 1, syn: 0, limit: 128, drops: 0 };
    model.apply(&Event::Queues { id: listener.id, netns: NETNS, queues }, NOW);
    model.apply(&found(accepted, TcpState::Established), NOW);
    model.end_scan(NOW);
    model.end_round(ScanSummary { finished_at: NOW, took: Duration::ZERO, found: 2 });
    model.begin_fd_scan(NOW);
    for (id, by) in [(1, outside(7, "server")), (2, outside(7, "server")), (2, outside(8, "worker"))] {
        model.apply(&held(id, by), NOW);
    }
    model.end_fd_scan(NOW);
}

/// A port that another process has, and a range of a socket's own without a free port.
fn refuse(model: &mut Model) {
    let refused = |socket, port, own_range, is_in_use| Event::CallFailed {
        netns: NETNS,
        call: "bind",
        by: outside(9, "late"),
        cgroup: None,
        refused: Refused::Bind {
            socket: SocketId(socket),
            local: Local { ip: LOCAL, port, device: Device::new(DEVICE) },
            is_in_use,
            own_range,
            no_ipv6: false,
        },
    };
    model.apply(&refused(3, 80, OwnRange::default(), true), NOW);
    model.apply(&refused(4, 0, OwnRange { low: 40_000, high: 40_000 }, true), NOW);
    model.tick(NOW + Duration::from_secs(2));
}

/// A namespace that ends after a failure in it.
fn end_a_namespace(model: &mut Model) {
    let ended = NetnsId(2);
    let reading = |overflows| NamespaceReading { time_wait_overflows: Some(overflows), ..NamespaceReading::default() };
    model.set_namespace(ended, reading(0));
    model.set_namespace(ended, reading(1));
    model.forget_namespace(ended);
}

/// A service with every part that a path can show.
fn whole_service() -> Service {
    Service {
        path: Some("/machine.slice/machine-web.scope/kubepods/pod1/2".into()),
        unit: Some("kubelet.service".into()),
        pod: Some(Pod { uid: "1".into(), namespace: Some("shop".into()), name: Some("web".into()) }),
        container: Some(Container { id: "2".into(), name: Some("front".into()), runtime: Some(Runtime::Containerd) }),
        machine: Some("web".into()),
    }
}

/// Rows of services of every kind, and the service of everything that has one.
fn name_services(snapshot: &mut Snapshot) {
    let whole = Some(Arc::new(whole_service()));
    let mut outbound = snapshot.endpoints[0].clone();
    let remote = "10.0.0.9:5432".parse().unwrap();
    let (netns_name, device) = (Some(NetnsName::from("blue")), Device::new(DEVICE).named("eth0".into()));
    let (ports, service) = (PortUse { range: 10, blocked: Some(0), used: 1, ..PortUse::default() }, whole.clone());
    let (netns, local_ip) = (NETNS, LOCAL);
    outbound.key.direction = Direction::Outbound;
    outbound.destinations = vec![DestinationRow {
        netns,
        netns_name: netns_name.clone(),
        local_ip,
        device,
        remote,
        sockets: 1,
        time_wait: 0,
        service,
        ports: Some(ports),
    }];
    snapshot.endpoints.push(outbound);
    let (sentence, evidence, remedy) = ("".into(), String::new().into(), "".into());
    let kind = FindingKind::NoAnswer;
    snapshot.findings.push(Finding { kind, netns, scope: None, service: whole.clone(), sentence, evidence, remedy });
    snapshot.endpoints.iter_mut().for_each(|row| row.service.clone_from(&whole));
    snapshot.namespaces.iter_mut().for_each(|row| row.service.clone_from(&whole));
    snapshot.failures.iter_mut().for_each(|row| row.service.clone_from(&whole));
    snapshot.limits.iter_mut().for_each(|row| row.service.clone_from(&whole));
    let process = outside(7, "server");
    let fullest = ProcessFiles { process, open: 3, soft_limit: Some(1_024), hard_limit: None };
    let nearest = NearestDestination { netns, netns_name, local_ip, device, remote, ports };
    let Service { path, unit, pod, container, machine } = whole_service();
    let of_each_kind = [
        Service { path, ..Service::default() },
        Service { unit, ..Service::default() },
        Service { pod, ..Service::default() },
        Service { container, ..Service::default() },
        Service { machine, ..Service::default() },
    ];
    snapshot.services = of_each_kind.map(|it| row_of(it, nearest.clone(), fullest)).into();
}

fn row_of(service: Service, nearest: NearestDestination, fullest: ProcessFiles) -> ServiceRow {
    ServiceRow {
        service: Some(Arc::new(service)),
        sockets: 1,
        states: StateCounts::default(),
        orphans: 0,
        listeners: 1,
        bound: 0,
        opened_total: 1,
        closed_total: 0,
        failed_total: 0,
        opened_per_second: 0.0,
        closed_per_second: 0.0,
        failures_total: 0,
        nearest: Some(nearest),
        fullest: Some(fullest),
    }
}

/// Its documents.
pub(crate) fn documents() -> [Vec<u8>; 2] {
    let basis = Basis { reads_buckets: true, processes: ProcessScope::PidNamespace, ..Basis::default() };
    let mut model = Model::new(hooks(), basis);
    set_host(&mut model);
    scan(&mut model);
    refuse(&mut model);
    end_a_namespace(&mut model);
    model.set_cost(Cost { is_suspended: true, ..Cost::default() }, NOW);
    let mut snapshot = model.snapshot(SystemTime::UNIX_EPOCH, NOW, usize::MAX);
    name_services(&mut snapshot);
    let frame = Frame::from(snapshot);
    [json(&frame).unwrap(), limits::json(&frame).unwrap()]
}
