//! The owner of a port that bind() could not get. Listeners and bound sockets are few, and are looked through at once;
//! connections and TIME_WAITs are many, and are looked through once for all that was asked, by the next tick or snapshot.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use rustc_hash::FxHashMap;

pub use super::failure::PortOwner;
use super::{
    Model,
    address::Local,
    device::Device,
    failure::{Failed, FailureKey, FailureKind},
    owner::Owner,
    port_table::PortSet,
    units::{NetnsId, PortRange, SocketId, TIME_WAIT_LASTS, TcpState},
};

/// Searches for port owners that wait at most: a process that tries port after port gets the first ones answered.
const QUESTIONS: usize = 1024;
/// Scans that may still show an owner that was not known.
const TRIES: u8 = 3;

/// Ports whose owners are to be found, or found better.
#[derive(Default)]
pub(super) struct Questions(FxHashMap<FailureKey, Question>);

struct Question {
    /// The socket that wanted the port.
    socket: SocketId,
    /// The number of scans of its namespace when it was looked for last.
    tried_after: Option<u64>,
    tries: u8,
}

impl Questions {
    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.0.retain(|key, _| key.netns != netns);
    }
}

/// A port, and the best that was found on it so far.
struct Search {
    netns: NetnsId,
    local: Local,
    /// Does not stand in its own way.
    socket: SocketId,
    best: Option<(Rank, PortOwner)>,
}

/// What makes an answer better than another: the lower, the better.
type Rank = (u8, Reverse<Duration>);

impl Search {
    /// Sockets of a lower class are the better answer: a listener shares its port with its connections. Of those that
    /// only wait it is the one that waits longest, which has the port to itself in the end.
    fn consider(&mut self, ip: IpAddr, class: u8, port_owner: impl FnOnce() -> PortOwner) {
        let Some(overlap) = overlap(self.local.ip, ip) else { return };
        let class = overlap * CLASSES + class;
        if self.best.is_some_and(|((best, _), _)| best < class) {
            return;
        }
        let port_owner = port_owner();
        let rank = (class, Reverse(port_owner.ends_at()));
        if self.best.is_none_or(|(best, _)| rank < best) {
            self.best = Some((rank, port_owner));
        }
    }
}

const LISTENER: u8 = 0;
const BOUND: u8 = 1;
const CONNECTION: u8 = 2;
const WAITING: u8 = 3;
const CLASSES: u8 = 4;

/// Whether sockets on both addresses are in each other's way: 0 for certain, 1 if the one on every IPv6 address takes
/// IPv4 too (`IPV6_V6ONLY` is not known).
fn overlap(asked: IpAddr, used: IpAddr) -> Option<u8> {
    const EVERY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let is_same_family = asked.is_ipv4() == used.is_ipv4();
    match (asked, used) {
        _ if asked == used => Some(0),
        _ if is_same_family => (asked.is_unspecified() || used.is_unspecified()).then_some(0),
        (EVERY_V6, _) | (_, EVERY_V6) => Some(1),
        _ => None,
    }
}

impl Model {
    /// The port's owner as far as it is known at once; the rest is looked for later.
    pub(super) fn ask_for_port_owner(&mut self, key: FailureKey, local: Local, socket: SocketId) -> PortOwner {
        let mut search = Search { netns: key.netns, local, socket, best: None };
        self.search_few(&mut search);
        let port_owner = search.best.map_or(PortOwner::Unseen, |(_, port_owner)| port_owner);
        if !port_owner.is_settled() {
            self.ask_later(key, socket);
        }
        port_owner
    }

    /// The numbers of a group will be better known after the next scan.
    pub(super) fn ask_later(&mut self, key: FailureKey, socket: SocketId) {
        if self.diagnosis.questions.0.len() >= QUESTIONS {
            return;
        }
        self.diagnosis.questions.0.insert(key, Question { socket, tried_after: None, tries: 0 });
        // no hook watches bind(): only fd scans show what is bound.
        self.wanted_scans.insert(key.netns);
    }

    /// Looks again for what was not found at once, after each scan.
    pub(super) fn answer_questions(&mut self) {
        let is_due = |key: &FailureKey, it: &Question| it.tried_after != Some(self.scans_of(key.netns));
        let questions = self.diagnosis.questions.0.iter();
        let due: Vec<(FailureKey, SocketId)> =
            questions.filter(|(key, it)| is_due(key, it)).map(|(key, it)| (*key, it.socket)).collect();
        if due.is_empty() {
            return;
        }
        let (of_connects, due): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(key, _)| key.kind == FailureKind::PortsExhausted);
        for (key, _) in of_connects {
            self.count_ports_again(&key);
        }
        let (of_ranges, of_ports): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(key, _)| key.kind == FailureKind::BindPorts);
        for (key, _) in of_ranges {
            let now = self.used_ports(&key);
            let row = self.diagnosis.failures.get_mut(&key);
            match row.map(|row| &mut row.failed) {
                Some(Failed::UsedPorts(used, usable)) if *used < now.0 => (*used, *usable) = now,
                _ => {}
            }
            self.note_try(&key, false);
        }
        let searches = of_ports.into_iter().filter_map(|(key, socket)| {
            let local = key.local?;
            Some((key, Search { netns: key.netns, local, socket, best: None }))
        });
        let mut searches: Vec<(FailureKey, Search)> = searches.collect();
        self.search_all(&mut searches);
        for (key, search) in searches {
            let found = search.best.map(|(_, port_owner)| port_owner);
            if let (Some(found), Some(row)) = (found, self.diagnosis.failures.get_mut(&key)) {
                row.failed = Failed::PortOwner(found);
            }
            self.note_try(&key, found.is_some_and(PortOwner::is_settled));
        }
    }

    /// A connect() that was refused with ports left, as far as was known: the scan since then may have shown their owners.
    fn count_ports_again(&mut self, key: &FailureKey) {
        let now = self.ports_by_now(key);
        let mut is_settled = false;
        if let (Some(now), Some(row)) = (now, self.diagnosis.failures.get_mut(key))
            && let Failed::Ports(known) = &mut row.failed
        {
            if known.in_use() < now.in_use() || known.blocked.is_none() {
                *known = now;
            }
            is_settled = known.explains_refusal();
        }
        self.note_try(key, is_settled);
    }

    fn note_try(&mut self, key: &FailureKey, is_settled: bool) {
        let scans = self.scans_of(key.netns);
        let Some(question) = self.diagnosis.questions.0.get_mut(key) else { return };
        question.tried_after = Some(scans);
        question.tries += 1;
        if is_settled || question.tries >= TRIES {
            self.diagnosis.questions.0.remove(key);
        } else {
            self.wanted_scans.insert(key.netns);
        }
    }

    /// Whether a socket of this device can keep the port from the one that wanted it.
    fn is_in_way(&self, netns: NetnsId, asked: Device, used: Device) -> bool {
        let rules = self.readings.namespaces.get(&netns).map(|namespace| &namespace.devices);
        rules.is_none_or(|rules| rules.share_ports(asked.index(), used.index()))
    }

    fn search_few(&self, search: &mut Search) {
        let Search { netns, local: Local { port, device, .. }, socket, .. } = *search;
        let listeners = self.listeners.of_namespace(netns).filter(|(id, it)| *id != socket && it.port == port);
        for (_, listener) in listeners.filter(|(_, it)| self.is_in_way(netns, device, it.device)) {
            search.consider(listener.ip, LISTENER, || PortOwner::Listener(listener.process));
        }
        let bound = self.bound.iter();
        let bound = bound.filter(|(id, it)| **id != socket && (it.netns, it.local.port) == (netns, port));
        for (_, bound) in bound.filter(|(_, it)| self.is_in_way(netns, device, it.local.device)) {
            search.consider(bound.local.ip, BOUND, || PortOwner::Bound(bound.process));
        }
    }

    /// One walk over all sockets for all searches.
    fn search_all(&self, searches: &mut [(FailureKey, Search)]) {
        let mut ports = PortSet::default();
        let mut by_port: FxHashMap<(NetnsId, u16), Vec<usize>> = FxHashMap::default();
        for (index, (_, search)) in searches.iter_mut().enumerate() {
            self.search_few(search);
            let port = search.local.port;
            ports.insert(PortRange { low: port, high: port });
            by_port.entry((search.netns, port)).or_default().push(index);
        }
        if searches.is_empty() {
            return;
        }
        for socket in self.sockets.iter().filter(|it| ports.contains(it.local_port)) {
            let key = &self.ledger.endpoints().get(socket.endpoint).key;
            for index in by_port.get(&(key.netns, socket.local_port)).into_iter().flatten() {
                let search = &mut searches[*index].1;
                if socket.id != search.socket && self.is_in_way(search.netns, search.local.device, key.device) {
                    let process = self.ledger.owners().process(socket.owner);
                    let port_owner = || match socket.owner {
                        Owner::ORPHAN => PortOwner::Orphan(socket.state),
                        _ => PortOwner::Connection(socket.state, process),
                    };
                    search.consider(key.local_ip, CONNECTION, port_owner);
                }
            }
        }
        for (_, minisock) in self.minisocks.iter().filter(|(_, it)| ports.contains(it.local_port)) {
            // A request is its listener's.
            if minisock.state == TcpState::SynReceived {
                continue;
            }
            let key = &self.ledger.endpoints().get(minisock.endpoint).key;
            for index in by_port.get(&(key.netns, minisock.local_port)).into_iter().flatten() {
                let ends_at = minisock.began().zip(self.basis.started_at);
                let ends_at = ends_at.map(|(began, started)| (began + TIME_WAIT_LASTS).saturating_sub(started));
                let waiting = PortOwner::Waiting { state: minisock.state, ends_at, left: None };
                let search = &mut searches[*index].1;
                if self.is_in_way(search.netns, search.local.device, key.device) {
                    search.consider(key.local_ip, WAITING, || waiting);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_each_others_way_as_the_kernel_has_it() {
        let overlap = |asked: &str, used: &str| overlap(asked.parse().unwrap(), used.parse().unwrap());
        for (asked, used, expected) in [
            ("127.0.0.1", "127.0.0.1", Some(0)),
            ("127.0.0.1", "127.0.0.2", None),
            ("127.0.0.1", "0.0.0.0", Some(0)),
            ("0.0.0.0", "10.0.0.1", Some(0)),
            ("::1", "::", Some(0)),
            ("::", "::1", Some(0)),
            ("127.0.0.1", "::", Some(1)),
            ("::", "0.0.0.0", Some(1)),
            ("::1", "0.0.0.0", None),
            ("::1", "127.0.0.1", None),
        ] {
            assert_eq!(overlap(asked, used), expected, "{asked} and {used}");
        }
    }
}
