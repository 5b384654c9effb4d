//! Who dropped what at which listener: counters of the namespace and of each listener, read at different moments.

use std::time::{Duration, SystemTime};

use crate::model::{
    Model,
    device::Device,
    event::{Binding, Event, Found, Identity},
    failure::{FailureKind, FailureRow},
    limit::LimitKind,
    quality::ScanSummary,
    reading::{ListenCounters, NamespaceReading},
    snapshot::Snapshot,
    units::{FourTuple, NetnsId, Queues, SocketId, TcpState},
};

const NETNS: NetnsId = NetnsId(1);

/// A namespace with listeners on ports of 10.0.0.1, each with its queues.
struct ListenerStage {
    model: Model,
    reading: NamespaceReading,
    listeners: Vec<(u16, Queues)>,
    now: Duration,
}

impl ListenerStage {
    fn new(ports: &[u16]) -> Self {
        let queues = Queues { accept: 0, syn: 0, limit: 4, drops: 0 };
        let listen =
            ListenCounters { overflows: Some(0), drops: Some(0), syn_queue_drops: Some(0), syn_cookies: Some(0) };
        Self {
            model: Model::default(),
            reading: NamespaceReading { listen, tcp_syncookies: Some(1), ..NamespaceReading::default() },
            listeners: ports.iter().map(|port| (*port, queues)).collect(),
            now: Duration::ZERO,
        }
    }

    fn read(&mut self) {
        self.model.set_namespace(NETNS, self.reading.clone());
    }

    fn scan(&mut self) {
        self.now += Duration::from_secs(1);
        self.model.begin_scan(NETNS, self.now);
        for (port, queues) in &self.listeners {
            let id = SocketId((*port).into());
            let tuple = FourTuple {
                local_ip: [10, 0, 0, 1].into(),
                local_port: *port,
                remote_ip: [0, 0, 0, 0].into(),
                remote_port: 0,
            };
            let socket = Identity { id, netns: NETNS, tuple, device: Device::NONE, cgroup: None };
            let (state, binding) = (Found::Full(TcpState::Listen), Binding::default());
            self.model.apply(&Event::Scanned { socket, state, binding, orphan: false }, self.now);
            self.model.apply(&Event::Queues { id, netns: NETNS, queues: *queues }, self.now);
        }
        self.model.end_scan(self.now);
        self.model.end_round(ScanSummary { finished_at: self.now, took: Duration::ZERO, found: 0 });
    }

    /// An fd scan, which shows the queues as well, and with the kernel's counts that nothing else changed.
    fn scan_files(&mut self) {
        self.now += Duration::from_secs(1);
        self.model.begin_fd_scan(self.now);
        for (port, queues) in &self.listeners {
            let queues = Event::Queues { id: SocketId((*port).into()), netns: NETNS, queues: *queues };
            self.model.apply(&queues, self.now);
        }
        self.model.end_fd_scan(self.now);
        self.model.end_scan_by_counts(NETNS, self.now);
    }

    fn queues(&mut self, port: u16) -> &mut Queues {
        &mut self.listeners.iter_mut().find(|(other, _)| *other == port).unwrap().1
    }

    /// The kernel drops a SYN because the accept queue is full.
    fn overflow(&mut self, port: u16, count: u32) {
        self.queues(port).drops += count;
        *self.reading.listen.overflows.as_mut().unwrap() += u64::from(count);
        *self.reading.listen.drops.as_mut().unwrap() += u64::from(count);
    }

    fn snapshot(&mut self) -> Snapshot {
        self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 0)
    }

    /// Failures as port (0 for none) and count.
    fn failures(&mut self, kind: FailureKind) -> Vec<(u16, u64)> {
        let of = |row: &FailureRow| (row.key.local.map_or(0, |local| local.port), row.count);
        let rows = self.snapshot().failures;
        let mut rows: Vec<_> = rows.iter().filter(|row| row.key.kind == kind).map(of).collect();
        rows.sort_unstable();
        rows
    }

    fn overflows(&mut self) -> Vec<(u16, u64)> {
        self.failures(FailureKind::AcceptQueue)
    }
}

#[test]
fn what_happened_before_observer_is_no_failure_and_is_shown_as_such() {
    let mut stage = ListenerStage::new(&[80]);
    stage.overflow(80, 9);
    stage.read();
    stage.scan();
    stage.read();
    stage.scan();
    assert_eq!(stage.overflows(), []);
    let snapshot = stage.snapshot();
    let limit = snapshot.limits.iter().find(|limit| limit.kind == LimitKind::AcceptQueue).unwrap();
    assert_eq!(limit.hits, Some(0));
    assert!(limit.counted().contains("9 overflows in the namespace (ListenOverflows) (9 before observer started)"));
    stage.overflow(80, 2);
    stage.read();
    stage.scan();
    assert_eq!(stage.overflows(), [(80, 2)]);
}

#[test]
fn a_discarded_segment_is_no_overflow() {
    let mut stage = ListenerStage::new(&[80]);
    stage.read();
    stage.scan();
    for _ in 0..3 {
        stage.queues(80).drops += 5;
        stage.read();
        stage.scan();
    }
    assert_eq!(stage.snapshot().failures, []);
    let snapshot = stage.snapshot();
    let limit = snapshot.limits.iter().find(|limit| limit.kind == LimitKind::AcceptQueue).unwrap();
    assert_eq!(limit.hits, Some(0));
    assert!(limit.counted().ends_with("15 segments discarded here, for whatever reason (sk_drops)"));
    assert_eq!(snapshot.findings, []);
}

#[test]
fn a_scan_by_counts_shows_whose_an_overflow_was() {
    let mut stage = ListenerStage::new(&[80, 81]);
    stage.read();
    stage.scan();
    stage.overflow(80, 4);
    stage.scan_files();
    assert_eq!(stage.overflows(), [], "not yet counted");
    stage.read();
    assert_eq!(stage.overflows(), [], "not yet known whose");
    stage.scan_files();
    assert_eq!(stage.overflows(), [(80, 4)]);
}

#[test]
fn an_overflow_waits_for_the_scan_that_shows_its_listener() {
    let mut stage = ListenerStage::new(&[80, 81]);
    stage.read();
    stage.scan();
    // 81 discards segments, a scan sees it, then 80 overflows, and the counter is read before the next scan.
    stage.queues(81).drops += 3;
    stage.scan();
    stage.overflow(80, 4);
    stage.queues(80).accept = 5;
    stage.read();
    assert_eq!(stage.overflows(), [], "not yet known whose");
    stage.scan();
    assert_eq!(stage.overflows(), [(80, 4)]);
    // The scan comes first, the reading after it.
    stage.read();
    stage.overflow(80, 2);
    stage.scan();
    assert_eq!(stage.overflows(), [(80, 4)]);
    stage.read();
    stage.scan();
    assert_eq!(stage.overflows(), [(80, 6)]);
}

#[test]
fn without_a_full_queue_nobody_of_several_is_accused() {
    let mut stage = ListenerStage::new(&[80, 81]);
    stage.read();
    stage.scan();
    stage.queues(81).drops += 3;
    stage.overflow(80, 4);
    stage.read();
    stage.scan();
    assert_eq!(stage.overflows(), [(0, 4)]);
    let text = stage.snapshot().failures[0].reason();
    assert!(text.contains("ListenOverflows") && text.contains("do not say whose"), "{text}");
}

#[test]
fn a_listener_that_is_gone_may_have_been_the_one() {
    let mut stage = ListenerStage::new(&[80, 81]);
    stage.read();
    stage.scan();
    stage.queues(80).drops += 1;
    stage.overflow(81, 4);
    stage.listeners.pop();
    stage.model.apply(&Event::Destroyed { id: SocketId(81), netns: NETNS }, stage.now);
    stage.read();
    stage.scan();
    assert_eq!(stage.overflows(), [(0, 4)], "80 discarded a segment and did not overflow");
}

#[test]
fn a_full_syn_queue_is_its_own_reason() {
    let mut stage = ListenerStage::new(&[80, 81]);
    stage.read();
    stage.scan();
    stage.queues(80).syn = 4;
    stage.queues(80).drops += 3;
    stage.reading.listen.syn_queue_drops = Some(3);
    stage.read();
    stage.scan();
    assert_eq!((stage.overflows(), stage.failures(FailureKind::SynQueue)), (vec![], vec![(80, 3)]));
    // With cookies nobody is refused.
    stage.reading.listen.syn_cookies = Some(7);
    stage.read();
    stage.scan();
    assert_eq!(stage.failures(FailureKind::SynQueue), [(80, 3)]);
    let hits = |snapshot: &Snapshot| {
        let limits = snapshot.limits.iter().filter(|limit| limit.kind == LimitKind::SynQueue);
        limits.filter_map(|limit| limit.hits).sum::<u64>()
    };
    assert_eq!(hits(&stage.snapshot()), 10);
    // With tcp_syncookies 2 each SYN is answered by one, whatever the queue.
    stage.reading.tcp_syncookies = Some(2);
    stage.read();
    stage.reading.listen.syn_cookies = Some(1_000);
    stage.read();
    stage.scan();
    assert_eq!(hits(&stage.snapshot()), 10);
}

#[test]
fn without_cookies_a_syn_queue_ends_at_tcp_max_syn_backlog() {
    let mut stage = ListenerStage::new(&[80, 81]);
    for (_, queues) in &mut stage.listeners {
        queues.limit = 128;
    }
    stage.reading.tcp_syncookies = Some(0);
    stage.reading.tcp_max_syn_backlog = Some(16);
    stage.read();
    stage.scan();
    // 16 - 4 and one more fit: the rest is dropped, and only ListenDrops counts it.
    let drop_all = |stage: &mut ListenerStage, count: u32| {
        stage.queues(80).drops += count;
        *stage.reading.listen.drops.as_mut().unwrap() += u64::from(count);
        stage.read();
        stage.scan();
    };
    stage.queues(80).syn = 5;
    drop_all(&mut stage, 3);
    assert_eq!(stage.failures(FailureKind::SynQueue), [], "dropped for another reason");
    stage.queues(80).syn = 13;
    drop_all(&mut stage, 7);
    assert_eq!((stage.overflows(), stage.failures(FailureKind::SynQueue)), (vec![], vec![(80, 7)]));
    let snapshot = stage.snapshot();
    let limit = snapshot.limits.iter().find(|limit| limit.kind == LimitKind::SynQueue).unwrap();
    assert_eq!((limit.used, limit.maximum, limit.hits), (13, 13, Some(7)));
    // With cookies there is no such limit.
    stage.reading.tcp_syncookies = Some(1);
    stage.read();
    stage.scan();
    drop_all(&mut stage, 2);
    assert_eq!(stage.failures(FailureKind::SynQueue), [(80, 7)]);
}

#[test]
fn a_queue_that_has_overflowed_is_listed_among_many() {
    let ports: Vec<u16> = (80..120).collect();
    let mut stage = ListenerStage::new(&ports);
    for (_, queues) in &mut stage.listeners {
        queues.accept = 1;
    }
    stage.queues(100).accept = 0;
    stage.read();
    stage.scan();
    stage.overflow(100, 3);
    stage.read();
    stage.scan();
    let snapshot = stage.snapshot();
    let hits: u64 =
        snapshot.limits.iter().filter(|limit| limit.kind == LimitKind::AcceptQueue).filter_map(|it| it.hits).sum();
    assert_eq!(hits, 3);
}
