//! What the user side does for each record, at the size of a large host: `cargo bench -p observer`.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use observer::model::{
    Model,
    event::{Binding, Event, Found, Identity},
    namespace::NamespaceReading,
    units::{Comm, FourTuple, NetnsId, Pid, PortRange, Process, SocketId, TcpState},
};

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
    }
}

fn change(n: u32, old: TcpState, new: TcpState) -> Event {
    let by = (new == TcpState::SynSent).then(|| Process { pid: Pid(7), comm: Comm::from("client") });
    Event::State {
        socket: client(n),
        at: Duration::ZERO,
        old,
        new,
        by,
        orphan: false,
        unsent: false,
        binding: Binding::default(),
        timestamps: false,
    }
}

/// The life of a client's socket, in the five events that the state hook tells of it, and its end.
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

fn holding(sockets: u32) -> Model {
    let mut model = Model::default();
    let port_range = Some(PortRange { low: 32_768, high: 60_999 });
    model.set_namespace(NETNS, NamespaceReading { port_range, tcp_tw_reuse: Some(1), ..NamespaceReading::default() });
    model.begin_scan(NETNS);
    model.end_scan(Duration::ZERO);
    for n in 0..sockets {
        model.apply(&change(n, TcpState::SynSent, TcpState::Established), Duration::ZERO);
    }
    model
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

fn rescan(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    group.sample_size(10);
    let sockets = 1_000_000;
    group.throughput(Throughput::Elements(u64::from(sockets)));
    group.bench_function("1000000 known sockets and the sweep", |b| {
        let mut model = holding(sockets);
        b.iter(|| {
            model.begin_scan(NETNS);
            for n in 0..sockets {
                let (socket, state) = (client(n), Found::Full(TcpState::Established));
                let found = Event::Scanned { socket, state, binding: Binding::default(), orphan: false };
                model.apply(black_box(&found), Duration::ZERO);
            }
            model.end_scan(Duration::ZERO);
        });
    });
    group.finish();
}

fn snapshot(c: &mut Criterion) {
    let mut model = holding(1_000_000);
    c.bench_function("snapshot of 1000000 sockets to 50000 destinations", |b| {
        b.iter_batched(|| (), |()| model.snapshot(SystemTime::UNIX_EPOCH, Duration::ZERO, 32), BatchSize::LargeInput);
    });
}

criterion_group!(benches, apply, rescan, snapshot);
criterion_main!(benches);
