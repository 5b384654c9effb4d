//! Which local ports connect() can still be given. It takes a port of `ip_local_port_range` that is not reserved, whose
//! bind bucket was not made by an explicit bind of whatever address, and whose four-tuple with the destination is free or
//! in use only by a TIME_WAIT socket that may be reused (`__inet_hash_connect` in net/ipv4/inet_hashtables.c).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use rustc_hash::FxHashSet;

use super::{
    Basis, Model, index::NO_ROW, key_of, ledger::Contribution, port_table::PortClass, socket::Socket, units::NetnsId,
};

/// When TIME_WAIT sockets become reusable, with their rows in the table. A row that is empty by then, or
/// another socket's, has another time of its own.
#[derive(Default)]
pub(super) struct ReuseQueue {
    /// Events come in the order of time, and most namespaces have the same delay.
    in_order: VecDeque<(Duration, u32)>,
    /// The others.
    rest: BinaryHeap<Reverse<(Duration, u32)>>,
}

impl ReuseQueue {
    fn add(&mut self, from: Duration, index: u32) {
        if self.in_order.back().is_none_or(|(last, _)| *last <= from) {
            self.in_order.push_back((from, index));
        } else {
            self.rest.push(Reverse((from, index)));
        }
    }

    /// One that is due by `now`, in no order among these.
    fn next(&mut self, now: Duration) -> Option<(Duration, u32)> {
        self.in_order.pop_front_if(|(from, _)| *from <= now).or_else(|| {
            self.rest.peek().filter(|Reverse((from, _))| *from <= now)?;
            self.rest.pop().map(|Reverse(entry)| entry)
        })
    }
}

impl Model {
    /// connect() chooses the port after the socket is in SYN_SENT: a later event shows it.
    pub(super) fn learn_port(&mut self, index: u32, port: u16) {
        if port != 0 && self.sockets.get(index).local_port == 0 {
            self.set_local_port(index, port);
        }
    }

    fn set_local_port(&mut self, index: u32, port: u16) {
        let before = self.sockets.get(index).contribution();
        let endpoints = self.ledger.endpoints();
        self.sockets.set_local_port(index, port, |socket| key_of(endpoints, socket));
        let named = self.sockets.get(index);
        self.take_over_minisock(key_of(self.ledger.endpoints(), named), named.endpoint);
        let named = self.sockets.get_mut(index);
        named.port_class = named.find_port_class(&self.ledger);
        self.ledger.apply(before, named.contribution(), self.now);
        self.note_few_ports(index);
    }

    /// Finds what the socket's port is towards its destination.
    pub(super) fn find_port_class(&mut self, index: u32) {
        let class = self.sockets.get(index).find_port_class(&self.ledger);
        self.change_socket(index, |socket| socket.port_class = class);
        self.note_few_ports(index);
    }

    /// What is left is best known exactly while it is little: asks for a scan.
    pub(super) fn note_few_ports(&mut self, index: u32) {
        let socket = self.sockets.get(index);
        if socket.port_class == Some(PortClass::InUse) && self.ledger.has_few_ports(socket.endpoint, socket.destination)
        {
            let netns = self.ledger.endpoints().get(socket.endpoint).key.netns;
            self.wanted_scans.insert(netns);
        }
    }

    /// The socket is, or is not, on an explicit bind bucket.
    pub(super) fn set_explicit(&mut self, index: u32, is_explicit: bool) {
        let socket = self.sockets.get(index);
        if socket.is_explicit == is_explicit || socket.local_port == 0 {
            return;
        }
        self.change_socket(index, |socket| {
            socket.is_explicit = is_explicit;
            socket.port_class = None;
        });
        self.find_port_class(index);
    }

    /// Finds when connect() may take over a TIME_WAIT socket, and queues it until then.
    pub(super) fn note_reuse(&mut self, index: u32) {
        let now = self.basis.monotonic(self.now);
        let Self { minisocks, ledger, readings, reuse_queue, .. } = self;
        let Some(minisock) = minisocks.get_mut(index) else { return };
        if minisock.destination == NO_ROW {
            return;
        }
        let key = &ledger.endpoints().get(minisock.endpoint).key;
        let Some(namespace) = readings.namespaces.get(&key.netns) else { return };
        minisock.reusable_from = minisock.may_be_reused_from(&namespace.reading, key);
        if let Some(from) = minisock.reusable_from.filter(|from| *from > now) {
            reuse_queue.add(from, index);
        }
    }

    /// What every socket, of whatever kind, adds to all totals.
    pub(super) fn contributions(&self) -> impl Iterator<Item = Contribution> + '_ {
        let of_listeners = self.listeners.iter().map(|(_, it)| it.contribution(self.ledger.endpoints()));
        let of_bound = self.bound.iter().map(|(_, it)| it.contribution());
        let of_sockets = self.sockets.iter().map(Socket::contribution);
        let of_minisocks = self.minisocks.iter().map(|(_, it)| it.contribution());
        of_listeners.chain(of_bound).chain(of_sockets).chain(of_minisocks)
    }

    /// The range of a namespace changed, or the rule of reuse: who uses which port is found again.
    pub(super) fn rebuild_ports(&mut self, netns: NetnsId) {
        let Some(namespace) = self.readings.namespaces.get(&netns) else { return };
        let rules = (&namespace.reading, &namespace.devices);
        let ports = self.ledger.ports_of(netns, rules, self.contributions());
        self.ledger.set_ports(netns, ports);
        let ledger = &self.ledger;
        let minisocks = self.minisocks.of(netns);
        let of_clients = minisocks.filter(|(_, it)| ledger.destinations().get(it.destination).is_some());
        let queued: Vec<u32> = of_clients.map(|(index, _)| index).collect();
        for index in queued {
            self.note_reuse(index);
        }
        self.find_port_classes(netns);
    }

    /// Finds what the port of each client of a namespace is towards its destination.
    fn find_port_classes(&mut self, netns: NetnsId) {
        let now = self.basis.monotonic(self.now);
        let Self { sockets, minisocks, ledger, .. } = self;
        for socket in sockets.iter_mut() {
            if ledger.endpoints().get(socket.endpoint).key.netns == netns {
                let before = socket.contribution();
                socket.port_class = socket.find_port_class(ledger);
                ledger.apply(before, socket.contribution(), self.now);
            }
        }
        for (_, minisock) in minisocks.iter_mut() {
            if ledger.endpoints().get(minisock.endpoint).key.netns == netns {
                let before = minisock.contribution();
                minisock.port_class = minisock.find_port_class(ledger, now);
                ledger.apply(before, minisock.contribution(), self.now);
            }
        }
    }

    /// Brings the counts of ports to `now`: what has become reusable by it, and what was put off.
    pub(super) fn settle_ports(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let now = self.basis.monotonic(self.now);
        while let Some((from, index)) = self.reuse_queue.next(now) {
            let minisock = self.minisocks.get_mut(index);
            let due =
                minisock.filter(|it| it.reusable_from == Some(from) && it.port_class == Some(PortClass::TimeWait));
            if let Some(minisock) = due {
                let before = minisock.contribution();
                minisock.port_class = Some(PortClass::Reusable);
                self.ledger.apply(before, minisock.contribution(), self.now);
            }
        }
        for netns in self.ledger.take_stale_ports() {
            self.find_port_classes(netns);
        }
        self.share_ports();
    }

    /// Namespaces that should be scanned soon, for what happened since the last call: ports have become so few there that
    /// a scan should count them exactly, or only a scan can show what a failure came from.
    pub fn take_scan_requests(&mut self) -> FxHashSet<NetnsId> {
        std::mem::take(&mut self.wanted_scans)
    }
}

impl Basis {
    /// The kernel's `CLOCK_MONOTONIC` at a time since start. Where it is not known, the end of time: every TIME_WAIT that
    /// may ever be reused counts as reusable, and [`Model::port_use`] says that this is not certain.
    pub(super) fn monotonic(&self, now: Duration) -> Duration {
        self.started_at.map_or(Duration::MAX, |started_at| started_at + now)
    }
}
