//! Forecasts, by simulated seconds of a client that opens and closes connections.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use crate::model::{
    Model,
    device::Device,
    event::{Binding, Event, Found, Identity},
    limit::{Limit, LimitKind},
    quality::ScanSummary,
    reading::NamespaceReading,
    tests::scenario,
    units::{FourTuple, NetnsId, PortRange, SocketId, TIME_WAIT_LASTS, TcpState},
};

const NETNS: NetnsId = NetnsId(1);

/// A client of one destination: each connection takes the next port.
struct Client {
    model: Model,
    reading: NamespaceReading,
    now: Duration,
    next: u16,
    open: VecDeque<u16>,
    waiting: VecDeque<(Duration, u16)>,
}

impl Client {
    fn new(ports: u16) -> Self {
        let mut client = Self {
            model: scenario::model(true),
            reading: NamespaceReading {
                port_range: Some(PortRange { low: 20_000, high: 20_000 + ports - 1 }),
                tcp_tw_reuse: Some(0),
                tcp_max_tw_buckets: Some(ports.into()),
                ..NamespaceReading::default()
            },
            now: Duration::ZERO,
            next: 0,
            open: VecDeque::new(),
            waiting: VecDeque::new(),
        };
        client.read();
        client.scan();
        client
    }

    fn socket(&self, port: u16) -> Identity {
        let _ = self;
        let remote: SocketAddr = "10.0.0.9:80".parse().unwrap();
        let (local_ip, local_port): (IpAddr, u16) = ([10, 0, 0, 5].into(), port);
        let tuple = FourTuple { local_ip, local_port, remote_ip: remote.ip(), remote_port: remote.port() };
        Identity { id: SocketId(port.into()), netns: NETNS, tuple, device: Device::NONE, cgroup: None }
    }

    fn state(&mut self, port: u16, old: TcpState, new: TcpState) {
        let mut event = Event::change(self.socket(port), self.now, old, new, None);
        if let Event::State { binding, .. } = &mut event {
            binding.explicit_bucket = Some(false);
        }
        self.model.apply(&event, self.now);
    }

    fn open(&mut self) {
        let is_taken = |port: &u16| self.open.contains(port) || self.waiting.iter().any(|(_, other)| other == port);
        let range = self.reading.port_range.unwrap();
        let offset = |n: u16| range.low + (self.next + n) % u16::try_from(range.size()).unwrap();
        let Some(port) = (0..u16::MAX).map(offset).take(range.size() as usize).find(|port| !is_taken(port)) else {
            return;
        };
        self.next = port - range.low + 1;
        self.state(port, TcpState::SynSent, TcpState::Established);
        self.open.push_back(port);
    }

    fn close(&mut self) {
        let Some(port) = self.open.pop_front() else { return };
        self.state(port, TcpState::Established, TcpState::FinWait1);
        self.state(port, TcpState::FinWait1, TcpState::FinWait2);
        self.state(port, TcpState::FinWait2, TcpState::Closed);
        self.waiting.push_back((self.now, port));
    }

    fn read(&mut self) {
        self.reading.time_wait = Some(u32::try_from(self.waiting.len()).unwrap());
        self.model.set_namespace(NETNS, self.reading.clone());
    }

    fn scan(&mut self) {
        self.model.begin_scan(NETNS, self.now);
        let binding = Binding { explicit_bucket: Some(false), ..Binding::default() };
        for port in self.open.clone() {
            let (socket, state) = (self.socket(port), Found::Full(TcpState::Established));
            self.model.apply(&Event::Scanned { socket, state, binding, orphan: false }, self.now);
        }
        for (_, port) in self.waiting.clone() {
            let state = Found::TimeWait { substate: TcpState::TimeWait, since: None, began: None };
            let socket = Identity { id: SocketId(1 << 32 | u64::from(port)), ..self.socket(port) };
            self.model.apply(&Event::Scanned { socket, state, binding, orphan: false }, self.now);
        }
        self.model.end_scan(self.now);
        self.model.end_round(ScanSummary { finished_at: self.now, took: Duration::ZERO, found: 0 });
    }

    /// A second in which so many connections are opened and so many closed.
    fn second(&mut self, opened: u32, closed: u32) {
        self.now += Duration::from_secs(1);
        while self.waiting.front().is_some_and(|(since, _)| self.now.saturating_sub(*since) >= TIME_WAIT_LASTS) {
            self.waiting.pop_front();
        }
        for _ in 0..opened {
            self.open();
        }
        for _ in 0..closed {
            self.close();
        }
        self.read();
        self.scan();
        self.model.tick(self.now);
    }

    fn limit(&mut self, kind: LimitKind) -> Limit {
        let snapshot = self.model.snapshot(SystemTime::UNIX_EPOCH, self.now, 1);
        snapshot.limits.into_iter().find(|limit| limit.kind == kind).unwrap_or_else(|| panic!("no {kind:?}"))
    }

    fn time_to_full(&mut self, kind: LimitKind) -> Option<f64> {
        self.limit(kind).time_to_full().map(|time| time.as_secs_f64())
    }
}

#[test]
fn a_rate_that_levels_off_below_the_limit_has_no_forecast() {
    let mut client = Client::new(1_000);
    for _ in 0..25 {
        client.open();
    }
    for second in 1..=150 {
        client.second(12, 12);
        for kind in [LimitKind::Ports, LimitKind::TimeWait] {
            assert_eq!(client.time_to_full(kind), None, "{kind:?} after {second} s");
        }
    }
    assert_eq!(client.limit(LimitKind::Ports).used, 745, "25 live, and 12 a second for a minute");
}

#[test]
fn a_rate_that_levels_off_above_the_limit_is_full_when_predicted() {
    for kind in [LimitKind::Ports, LimitKind::TimeWait] {
        let mut client = Client::new(1_000);
        let mut predicted = Vec::new();
        let full_after = loop {
            client.second(20, 20);
            let now = client.now.as_secs_f64();
            match client.time_to_full(kind) {
                Some(0.0) => break now,
                Some(time) => predicted.push((now, now + time)),
                None => assert!(now < 12.0, "{kind:?}: nothing predicted after {now} s"),
            }
            assert!(now < 100.0, "{kind:?} is not full yet");
        };
        assert!(predicted.len() > 30, "{kind:?}: {} forecasts", predicted.len());
        for (now, full) in predicted {
            assert!((full - full_after).abs() <= 2.0, "{kind:?}: at {now} s for {full} s, full at {full_after} s");
        }
    }
}

#[test]
fn live_connections_that_grow_above_a_plateau_are_predicted() {
    let mut client = Client::new(1_000);
    // 600 in TIME_WAIT in the end, and one more live connection each second: full after 400 seconds.
    let mut right = 0;
    for second in 1..=300_u32 {
        client.second(11, 10);
        let predicted = client.time_to_full(LimitKind::Ports).map(|time| f64::from(second) + time);
        match predicted {
            None => assert!(second < 12, "nothing predicted after {second} s"),
            Some(full) => right += u32::from((full - 400.0).abs() <= 20.0),
        }
    }
    assert!(right >= 270, "{right} of 289 forecasts were right");
}

#[test]
fn what_only_wanders_has_no_forecast() {
    let mut client = Client::new(1_000);
    for _ in 0..700 {
        client.open();
    }
    // Up and down by 20, for long.
    for second in 1..=120_u32 {
        let opened = if second / 5 % 2 == 0 { 4 } else { 0 };
        client.second(opened, 0);
        for _ in 0..4 - opened {
            // Reset: no TIME_WAIT.
            let port = client.open.pop_front().unwrap();
            client.state(port, TcpState::Established, TcpState::Closed);
        }
        assert_eq!(client.time_to_full(LimitKind::Ports), None, "after {second} s");
    }
}

#[test]
fn a_beginning_and_what_is_a_day_away_have_no_forecast() {
    let limit = |used, slope| {
        let mut client = Client::new(1_000);
        client.open();
        Limit { used, maximum: 1_000_000, slope: Some(slope), turnover: None, ..client.limit(LimitKind::Ports) }
    };
    assert_eq!(limit(9_999, 1_000.0).time_to_full(), None, "less than 1 %");
    assert!(limit(10_000, 1_000.0).time_to_full().is_some());
    assert!(limit(500_000, 5.8).time_to_full().is_some(), "23 hours and 57 minutes");
    assert_eq!(limit(500_000, 5.7).time_to_full(), None, "more than a day");
}

#[test]
fn what_leaves_by_itself_is_not_predicted_beyond_its_time() {
    let limit = |slope| {
        let mut client = Client::new(1_000);
        client.open();
        let lifetime = Some(Duration::from_secs(63));
        Limit { used: 50, maximum: 100, slope: Some(slope), turnover: None, lifetime, ..client.limit(LimitKind::Ports) }
    };
    assert!(limit(1.0).time_to_full().is_some());
    assert_eq!(limit(0.5).time_to_full(), None, "the first to come are gone by then");
}
