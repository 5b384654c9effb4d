//! What the user side does for each record, at the size of a large host: `cargo bench -p observer`.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use observer::{
    decode,
    frame::Frame,
    model::{
        Model,
        device::Device,
        event::{Binding, Event, Found, Identity},
        namespace::NamespaceReading,
        query::Query,
        units::{Comm, FourTuple, NetnsId, Pid, PortRange, Process, SocketId, TcpState},
    },
    tui::{Look, shot},
};
use observer_ebpf::abi::{Kind, RecordHeader, SocketRecord};
use zerocopy::IntoBytes as _;

const NETNS: NetnsId = NetnsId(1);

/// Client `n` of a host: 50,000 destinations share the connections.
fn client(n: u32) -> Identity {
    Identity {
        id: SocketId(0xffff_8880_0000_0000 + u64::from(n) * 2368),
        netns: NETNS,
        tuple: FourTuple {
            local_ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            local_port: u16::try_from(32_768 + n / 50_000).expect("at most 1,600,000 clients"),
            remote_ip: IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + n % 50_000)),
            remote_port: 443,
        },
        device: Device::NONE,
        cgroup: None,
    }
}

fn change(n: u32, old: TcpState, new: TcpState) -> Event {
    change_of(client(n), old, new)
}

fn change_of(socket: Identity, old: TcpState, new: TcpState) -> Event {
    let by = (new == TcpState::SynSent).then(|| Process { pid: Pid(7), comm: Comm::from("client") });
    Event::change(socket, Duration::ZERO, old, new, by)
}

/// A client's socket: the five events that the state hook reports, and its end.
fn life(n: u32) -> [Event; 6] {
    use TcpState::{Closed, Established, FinWait1, FinWait2, SynSent};
    [
        change(n, Closed, SynSent),
        change(n, SynSent, Established),
        change(n, Established, FinWait1),
        change(n, FinWait1, FinWait2),
        change(n, FinWait2, Closed),
        Event::Destroyed { id: client(n).id, netns: NETNS },
    ]
}

fn reading() -> NamespaceReading {
    let port_range = Some(PortRange { low: 32_768, high: 60_999 });
    NamespaceReading { port_range, tcp_tw_reuse: Some(1), ..NamespaceReading::default() }
}

fn holding(sockets: u32) -> Model {
    let mut model = Model::default();
    model.set_namespace(NETNS, reading());
    model.begin_scan(NETNS, Duration::ZERO);
    model.end_scan(Duration::ZERO);
    for n in 0..sockets {
        model.apply(&change(n, TcpState::SynSent, TcpState::Established), Duration::ZERO);
    }
    model
}

/// A change of state between two IPv4 addresses, as the state hook writes it.
fn record(n: u32) -> SocketRecord {
    let v4_mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
    let header = RecordHeader {
        sock: client(n).id.0,
        at_ns_or_cgroup: 0,
        netns: NETNS.0,
        pid: 0,
        local_port: client(n).tuple.local_port,
        remote_port: 443,
        kind: Kind::State as u8,
        flags: 0,
        old_state: 2,
        new_state: 1,
    };
    SocketRecord { header, local: v4_mapped(1), remote: v4_mapped(2), device: 0, padding: 0 }
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let records: Vec<SocketRecord> = (0..1_000).map(record).collect();
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("changes of state", |b| {
        b.iter(|| records.iter().filter(|record| decode::event(black_box(record.as_bytes())).is_ok()).count());
    });
    group.finish();
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    for sockets in [1_000, 1_000_000] {
        let mut model = holding(sockets);
        let events: Vec<Event> = (sockets..sockets + 10_000).flat_map(life).collect();
        group.throughput(Throughput::Elements(events.len() as u64));
        group.bench_function(format!("lives beside {sockets} sockets"), |b| {
            b.iter(|| events.iter().for_each(|event| model.apply(black_box(event), Duration::ZERO)));
        });
    }
    group.finish();
}

/// Scans that find clients `0..sockets`.
fn scan(model: &mut Model, sockets: u32) {
    model.begin_scan(NETNS, Duration::ZERO);
    for n in 0..sockets {
        let (socket, state) = (client(n), Found::Full(TcpState::Established));
        let found = Event::Scanned { socket, state, binding: Binding::default(), orphan: false };
        model.apply(black_box(&found), Duration::ZERO);
    }
    model.end_scan(Duration::ZERO);
}

fn scans(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    group.sample_size(10);
    let sockets = 1_000_000;
    group.throughput(Throughput::Elements(u64::from(sockets)));
    group.bench_function("1000000 new sockets", |b| {
        let empty = || {
            let mut model = holding(0);
            let established_or_close_wait = Some(sockets);
            model.set_namespace(NETNS, NamespaceReading { established_or_close_wait, ..reading() });
            model
        };
        b.iter_batched_ref(empty, |model| scan(model, sockets), BatchSize::PerIteration);
    });
    group.bench_function("1000000 known sockets and the sweep", |b| {
        let mut model = holding(sockets);
        b.iter(|| scan(&mut model, sockets));
    });
    group.finish();
}

fn snapshot(c: &mut Criterion) {
    let mut model = holding(1_000_000);
    c.bench_function("snapshot of 1000000 sockets to 50000 destinations", |b| {
        b.iter_batched(
            || (),
            |()| model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 1_000),
            BatchSize::LargeInput,
        );
    });
}

/// A host where every connection is accepted at one of 50,000 local endpoints: as many rows on the main screen.
fn many_endpoints() -> Model {
    let mut model = holding(0);
    for n in 0..1_000_000 {
        let socket = client(n);
        let FourTuple { local_ip, local_port, remote_ip, remote_port } = socket.tuple;
        let tuple =
            FourTuple { local_ip: remote_ip, local_port: remote_port, remote_ip: local_ip, remote_port: local_port };
        let accepted = change_of(Identity { tuple, ..socket }, TcpState::SynReceived, TcpState::Established);
        model.apply(&accepted, Duration::ZERO);
    }
    model
}

/// What a key costs until its answer can be written: the snapshot, where single connections are asked for, and the frame.
fn frame(c: &mut Criterion) {
    let size = (160, 50);
    let mut group = c.benchmark_group("frame");
    for (host, mut model) in [("50000 destinations", holding(1_000_000)), ("50000 endpoints", many_endpoints())] {
        let latest = Arc::new(Frame::from(model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 1_000)));
        for (screen, keys) in
            [("endpoints", ""), ("destinations", "2"), ("limits", "5"), ("endpoints filtered", "/10.0\n")]
        {
            group.bench_function(format!("1000000 sockets, {host}, {screen}"), |b| {
                b.iter(|| shot(|_| Arc::clone(&latest), black_box(keys), size, Look::default()));
            });
        }
        let mut latest = latest;
        group.bench_function(format!("1000000 sockets, {host}, connections"), |b| {
            b.iter(|| {
                // As the screen has it: the connections join a frame that nobody copies.
                let ask = |query: Option<&Query>| {
                    let frame = Arc::get_mut(&mut latest).expect("the drawing before has ended");
                    frame.connections = query.map(|query| model.connections(query, Duration::ZERO, 1_000));
                    Arc::clone(&latest)
                };
                shot(ask, black_box("4"), size, Look::default())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decoding, apply, scans, snapshot, frame);
criterion_main!(benches);
