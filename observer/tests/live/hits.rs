//! How often limits were hit, where the kernel counts nothing: by the errnos that calls returned.

use std::net::TcpStream;

use observer::model::{
    hits::Since,
    limit::{LimitKind, Scope},
    snapshot::Snapshot,
};

use crate::{
    refused::errno,
    support::{eventually, in_private_netns, listen, observe, set_sysctl},
};

/// Hits that observer has counted itself.
fn own(snapshot: &Snapshot, kind: LimitKind) -> u64 {
    let hits = snapshot.hits().find(|hits| hits.kind == kind && hits.since == Since::Observer);
    hits.expect("each kind is listed").count
}

#[test]
fn ports_that_ran_out_are_counted_from_the_start_of_observer() {
    in_private_netns(|| {
        set_sysctl("ipv4/ip_local_port_range", "40000 40009");
        let listeners = ["127.0.0.1:7000", "127.0.0.1:7001"].map(|address| listen(address, 128));
        let full: Vec<_> = (0..10).map(|_| TcpStream::connect("127.0.0.1:7000").unwrap()).collect();
        // observer has not started yet.
        assert_eq!(errno(TcpStream::connect("127.0.0.1:7000")), libc::EADDRNOTAVAIL);
        let mut engine = observe();
        assert_eq!(own(&engine.snapshot(0), LimitKind::Ports), 0);
        for _ in 0..4 {
            assert_eq!(errno(TcpStream::connect("127.0.0.1:7000")), libc::EADDRNOTAVAIL);
        }
        // Others have room, and a refusal by the peer is no limit.
        let other = TcpStream::connect("127.0.0.1:7001").unwrap();
        assert_eq!(errno(TcpStream::connect("127.0.0.1:7002")), libc::ECONNREFUSED);
        eventually(&mut engine, "four hits", |snapshot| (own(snapshot, LimitKind::Ports) == 4).then_some(()));
        let snapshot = engine.snapshot(usize::MAX);
        for (port, hits) in [(7_000, 4), (7_001, 0)] {
            let is_its = |scope| matches!(scope, Scope::Destination { remote, .. } if remote.port() == port);
            let limit = snapshot.limits.iter().find(|limit| is_its(limit.scope)).unwrap();
            assert_eq!(limit.hits, Some(hits), "{limit:?}");
        }
        assert_eq!([LimitKind::ProcessFiles, LimitKind::HostFiles].map(|kind| own(&snapshot, kind)), [0, 0]);
        drop((listeners, full, other));
    });
}
