//! Snapshots: of a recording, and built by hand where no recording shows the state. `possible` holds them to what a model can
//! say.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    frame::Frame,
    model::{
        capability::{BPF, PERFMON},
        cost::{Cost, CpuShare},
        device::Device,
        finding::{Finding, FindingKind},
        gaps::Gaps,
        headroom::PortUse,
        hits::{KernelHits, OwnHits},
        quality::{
            AttachMethod, Coverage, Drift, FailedMethod, Hook, HookStatus, Losses, NamespaceScan, OwnCost,
            ProcessScope, Quality, ScanSummary,
        },
        snapshot::{
            DestinationRow, Direction, EndpointKey, EndpointRow, FileUse, Host, NamespaceRow, OwnUse, ProcessFiles,
            Snapshot, Totals,
        },
        units::{NetnsId, Pid, PortRange, Process, StateCounts, TcpState},
    },
    replay::Replay,
};

pub(super) use super::drawing::{arc, buffer, rows, text, ui};
pub(crate) use super::rows::unit;
use super::rows::{connections, failures, limits, pod, processes, services};

pub(super) const NETNS: NetnsId = NetnsId(4_026_531_840);

pub(super) fn states(counts: &[(TcpState, u32)]) -> StateCounts {
    let mut states = StateCounts::default();
    for (state, count) in counts {
        *states.get_mut(*state) = *count;
    }
    states
}

pub(super) fn process(pid: u32, comm: &str) -> Process {
    Process { pid: Pid(pid), comm: comm.into() }
}

pub(super) fn row(key: EndpointKey, states: StateCounts) -> EndpointRow {
    let sockets = states.sum() - states.get(TcpState::TimeWait);
    EndpointRow {
        key,
        service: None,
        other_services: 0,
        netns_name: None,
        listening: key.direction == Direction::Inbound,
        sockets,
        peak: sockets + sockets / 10,
        beyond_port_numbers: None,
        states,
        opened_total: u64::from(sockets) * 3,
        closed_total: u64::from(sockets) * 2,
        failed_total: 0,
        opened_per_second: 0.0,
        closed_per_second: 0.0,
        process: None,
        owners: Vec::new(),
        listeners: Vec::new(),
        orphans: 0,
        history: (0..60).map(|second| sockets * second / 59).collect(),
        destination_count: 0,
        destinations: Vec::new(),
    }
}

pub(super) fn inbound(ip: impl Into<IpAddr>, port: u16, counts: &[(TcpState, u32)]) -> EndpointRow {
    let key = EndpointKey {
        netns: NETNS,
        direction: Direction::Inbound,
        local_ip: ip.into(),
        local_port: Some(port),
        device: Device::NONE,
    };
    row(key, states(counts))
}

pub(super) fn outbound(ip: impl Into<IpAddr>, counts: &[(TcpState, u32)]) -> EndpointRow {
    let key = EndpointKey {
        netns: NETNS,
        direction: Direction::Outbound,
        local_ip: ip.into(),
        local_port: None,
        device: Device::NONE,
    };
    row(key, states(counts))
}

pub(super) fn destination(remote: &str, used: u32, time_wait: u32) -> DestinationRow {
    DestinationRow {
        service: None,
        netns: NETNS,
        netns_name: None,
        local_ip: Ipv4Addr::LOCALHOST.into(),
        device: Device::NONE,
        remote: remote.parse::<SocketAddr>().unwrap(),
        sockets: used,
        time_wait,
        ports: Some(PortUse { range: 28_232, blocked: Some(12), used, time_wait, ..PortUse::default() }),
    }
}

pub(super) fn files(process: Process, open: u64, soft_limit: u64) -> ProcessFiles {
    ProcessFiles { process, open, soft_limit: Some(soft_limit), hard_limit: Some(1 << 20) }
}

fn hooks() -> Vec<HookStatus> {
    let failed = |method, because: &str| FailedMethod { method, because: because.to_owned() };
    let status = |hook, method, failed| HookStatus { hook, method: Some(method), failed };
    vec![
        status(Hook::State, AttachMethod::RawTracepoint, vec![]),
        status(Hook::Destroy, AttachMethod::RawTracepoint, vec![]),
        status(Hook::Connect, AttachMethod::StateHook, vec![failed(AttachMethod::Fentry, "operation not permitted")]),
        status(
            Hook::Accept,
            AttachMethod::SyscallTracepoint,
            vec![failed(AttachMethod::Fexit, "operation not permitted")],
        ),
        status(Hook::Scan, AttachMethod::Iterator, vec![]),
        status(Hook::FdOwners, AttachMethod::Iterator, vec![]),
    ]
}

/// A host without a single socket.
pub(super) fn empty() -> Frame {
    Frame::from(Snapshot {
        taken_at: SystemTime::UNIX_EPOCH,
        uptime: Duration::from_secs(3_725),
        totals: Totals::default(),
        endpoints: Vec::new(),
        services: Vec::new(),
        namespaces: vec![NamespaceRow {
            netns: NETNS,
            name: None,
            service: None,
            port_range: Some(PortRange { low: 32_768, high: 60_999 }),
            reserved_ports: 0,
            blocked_ports: Some(12),
            tcp_tw_reuse: Some(2),
            established: 0,
            time_wait: 0,
            listen_drops: None,
            hits: KernelHits::default(),
        }],
        host: Host {
            kernel: "6.12.48-generic".to_owned(),
            files: Some(FileUse { allocated: 2_112, max: i64::MAX as u64 }),
            nr_open: Some(1 << 20),
            processes: vec![files(process(812, "sshd"), 12, 1_024)],
            memory: None,
            own: Some(OwnUse { cpu: Duration::from_secs(9), resident: 21 << 20 }),
        },
        limits: Vec::new(),
        findings: Vec::new(),
        quality: Quality {
            hooks: hooks(),
            events_total: 24,
            events_per_second: 0.0,
            losses: Losses::default(),
            stream_lost: 0,
            last_loss_at: None,
            scans_total: 60,
            last_scan: Some(ScanSummary {
                finished_at: Duration::from_millis(3_724_600),
                took: Duration::from_millis(3),
                found: 0,
            }),
            coverage: Coverage {
                namespaces: 1,
                scanned: 1,
                found: 0,
                oldest: Some(NamespaceScan {
                    netns: NETNS,
                    began_at: Duration::from_millis(3_724_597),
                    finished_at: Duration::from_millis(3_724_600),
                    found: 0,
                }),
            },
            last_fd_scan_at: Some(Duration::from_millis(3_724_600)),
            drift: Drift::default(),
            own: Some(OwnCost { cpu: 0.004, ns_per_event: None, resident: 21 << 20 }),
            cost: None,
            processes: ProcessScope::All,
            unseen_accepts: 0,
            gaps: Gaps::default(),
            given_capabilities: BPF.mask() | PERFMON.mask(),
            last_skip_at: None,
        },
        processes: Vec::new(),
        failures: Vec::new(),
        failures_total: 0,
        failure_counts: Vec::new(),
        flows: Vec::new(),
        own_hits: OwnHits::default(),
    })
}

/// One listener that nobody is connected to.
pub(super) fn one() -> Frame {
    let mut data = empty();
    let mut row = inbound(Ipv4Addr::UNSPECIFIED, 22, &[]);
    row.process = Some(process(812, "sshd"));
    data.snapshot.endpoints.push(row);
    data
}

/// A busy host: five rows worth reading.
pub(crate) fn busy() -> Frame {
    use TcpState::{CloseWait, Established, FinWait2, SynSent, TimeWait};
    let mut data = one();

    let (nginx, load) = (Some(Arc::new(unit("nginx.service"))), Some(Arc::new(pod())));
    let mut web = inbound([127, 0, 0, 1], 8_080, &[(Established, 70_000), (CloseWait, 7)]);
    web.process = Some(process(1_234_567, "nginx"));
    web.service.clone_from(&nginx);
    web.opened_per_second = 1_204.4;
    web.closed_per_second = 3.0;

    let mut clients =
        outbound([127, 0, 0, 1], &[(Established, 20_000), (SynSent, 12), (FinWait2, 3), (TimeWait, 2_000)]);
    clients.process = Some(process(4_242, "load-generator"));
    clients.service.clone_from(&load);
    clients.opened_per_second = 1_204.4;
    clients.destination_count = 2;
    let to_web = DestinationRow { service: load, ..destination("127.0.0.1:8080", 20_010, 2_000) };
    clients.destinations = vec![to_web, destination("10.0.0.9:5432", 5, 0)];

    let mut database = outbound([10, 0, 0, 5], &[(Established, 12)]);
    database.destination_count = 1;
    database.destinations =
        vec![DestinationRow { local_ip: [10, 0, 0, 5].into(), ..destination("10.0.0.9:5432", 12, 0) }];
    database.failed_total = 3;

    let mut six =
        inbound(Ipv6Addr::new(0x2001, 0xdb8, 0x1234, 0x5678, 0x9abc, 0xdef0, 1, 0x80), 443, &[(Established, 1)]);
    six.process = Some(process(99, "caddy"));
    six.closed_per_second = 0.5;

    data.snapshot.endpoints.splice(0..0, [web, clients, database, six]);
    data.snapshot.totals = Totals {
        counted_since: Duration::ZERO,
        sockets: 90_035,
        connections: 70_021,
        peak_sockets: 99_038,
        opened_total: 270_105,
        closed_total: 180_070,
        failed_total: 3,
        opened_per_second: 2_408.8,
        closed_per_second: 3.5,
    };
    data.snapshot.namespaces[0].time_wait = 2_000;
    data.snapshot.namespaces[0].established = 90_013;
    data.snapshot.host.processes = vec![files(process(1_234_567, "nginx"), 70_019, 73_000)];
    data.snapshot.host.files = Some(FileUse { allocated: 94_208, max: 1_048_576 });
    data.snapshot.limits = limits();
    data.snapshot.quality.events_per_second = 4_816.0;
    data.snapshot.processes = processes(&data.snapshot);
    data.snapshot.failures = failures();
    data.snapshot.failures_total = 1_403;
    data.snapshot.services = services(&data.snapshot);
    data.connections = Some(connections());
    data
}

/// A busy host where something is likely to be wrong.
pub(super) fn ailing() -> Frame {
    let mut data = busy();
    let finding = |kind, sentence: &str| Finding {
        kind,
        netns: NETNS,
        scope: None,
        service: Some(Arc::new(pod())),
        sentence: sentence.to_owned().into(),
        evidence: "numbers".to_owned().into(),
        remedy: "what to do".into(),
    };
    data.snapshot.findings = vec![
        finding(
            FindingKind::BindBeforeConnect,
            "Sockets of load-generator (4242) were bound before connect() from 127.0.0.1.",
        ),
        finding(FindingKind::ReservedInRange, "Much of the ephemeral range is reserved."),
    ];
    data
}

/// Real traffic of many kinds.
pub(super) const DEMO: &[u8] = include_bytes!("../../../tests/data/demo.obs");

/// A moment of the demo recording, in which every kind of row has some.
pub(super) fn recorded() -> Frame {
    let mut replay = Replay::start(DEMO).unwrap();
    replay.advance(Duration::from_millis(11_500)).unwrap();
    replay.snapshot(1_000).into()
}

/// Thousands of local endpoints.
pub(super) fn thousands() -> Frame {
    let mut data = busy();
    data.snapshot.endpoints.extend((0..3_000_u32).map(|i| {
        let [_, _, high, low] = i.to_be_bytes();
        let mut row = inbound([10, 1, high, low], 9_000, &[(TcpState::Established, i * 7 % 3_001)]);
        row.process = Some(process(20_000 + i, "worker"));
        row
    }));
    data.snapshot.totals.sockets = data.snapshot.endpoints.iter().map(|row| row.sockets).sum();
    data.snapshot.totals.peak_sockets = data.snapshot.totals.sockets;
    data
}

/// The ring was full, and no scan has put it right yet.
pub(super) fn losing() -> Frame {
    let mut data = busy();
    data.snapshot.quality.losses = Losses { ring_full: 1_200, read_failed: 34, ..Losses::default() };
    data.snapshot.quality.last_loss_at = Some(data.snapshot.uptime);
    data.snapshot.quality.drift = Drift { added: 3, removed: 2, changed: 1 };
    data
}

/// Hooks cost more than `--max-cost`.
pub(super) fn suspended() -> Frame {
    let mut data = busy();
    data.snapshot.quality.cost = Some(Cost {
        share: CpuShare::from_ratio(0.073),
        at_most: CpuShare::from_ratio(0.05),
        hook_ns: 241,
        is_measured: true,
        is_suspended: true,
        suspensions: 1,
        skipped: 1_234_567,
    });
    data
}

/// No attach method of the accept hook could be attached.
pub(super) fn degraded() -> Frame {
    let mut data = busy();
    let accept = data.snapshot.quality.hooks.iter_mut().find(|status| status.hook == Hook::Accept).unwrap();
    accept.method = None;
    let because = "permission denied".to_owned();
    accept.failed.push(FailedMethod { method: AttachMethod::SyscallTracepoint, because });
    data
}

/// The hook without which there is no live count.
pub(super) fn without_hooks() -> Frame {
    let mut data = degraded();
    data.snapshot.quality.hooks[0].method = None;
    data
}
