//! System calls that failed. A failure counts once its call has returned, with the errno; the socket's changes of state
//! before that show which limit it was. Connects that return from no system call (io_uring, a SYN with data) count via
//! the state hook alone, where that is certain.

use std::{net::SocketAddr, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    Model,
    address::{Direction, EndpointKey, Local, TupleKey},
    device::Device,
    event::{Identity, OwnRange, Refused},
    failure::{Failed, FailureKey, FailureKind},
    headroom::PortUse,
    member::NOBODY,
    port_table::Place,
    quality::Hook,
    service::CgroupId,
    socket::key_of,
    units::{FourTuple, NetnsId, PortRange, Process, SocketId},
};

/// How long after a socket was given up its connect() returns at the latest.
const RETURNS_WITHIN: Duration = Duration::from_secs(1);
/// How long one that was counted without its call is remembered, should the call return after all.
const REMEMBERED: Duration = Duration::from_mins(1);

/// No socket has this address.
const NO_SOCKET: SocketId = SocketId(0);

/// A socket that went from SYN_SENT to CLOSE before it had sent anything.
#[derive(Clone, Copy)]
struct GivenUp {
    /// What it is if connect() returns EADDRNOTAVAIL.
    key: FailureKey,
    /// `None` if the numbers of its group are not due.
    failed: Option<Failed>,
    /// It never had a port: nothing but `inet_hash_connect` ends so, and connect() has failed for certain.
    is_certain: bool,
    is_counted: bool,
    at: Duration,
}

/// Sockets whose connect() has not returned.
#[derive(Default)]
pub(super) struct GivenUpTable(FxHashMap<SocketId, GivenUp>);

/// As the socket was before the change: it is gone after it.
#[derive(Clone, Copy)]
pub(super) struct BeforeGivingUp {
    key: FailureKey,
    destination: u32,
    is_certain: bool,
}

impl Model {
    /// What is known of a socket that is about to be given up. Cold, like all that few events need: inlined, it would cost each
    /// event.
    #[cold]
    pub(super) fn before_giving_up(
        &mut self,
        socket: &Identity,
        own_range: OwnRange,
        by: &Process,
    ) -> Option<BeforeGivingUp> {
        let index = self.find(socket)?;
        let known = *self.sockets.get(index);
        // The record's port is the last that the socket ever had; the known one is what it had in this connect().
        let kind = if known.local_port == 0 { FailureKind::PortsExhausted } else { FailureKind::TupleInUse };
        let is_unbound = kind == FailureKind::PortsExhausted;
        let key = FailureKey {
            local: Some(Local { ip: socket.tuple.local_ip, port: known.local_port, device: socket.device }),
            remote: Some(SocketAddr::new(known.remote_ip, known.remote_port)),
            own_range: if is_unbound { self.own_range(socket.netns, own_range) } else { None },
            member: self.ledger.members().member(known.member),
            ..FailureKey::by_call(kind, socket.netns, "connect", *by)
        };
        let is_certain = is_unbound && socket.tuple.local_port == 0;
        Some(BeforeGivingUp { key, destination: known.destination, is_certain })
    }

    /// The socket was given up, and is not counted any more.
    pub(super) fn note_given_up(&mut self, id: SocketId, before: &BeforeGivingUp) {
        let BeforeGivingUp { key, destination, is_certain } = *before;
        let failed = self.diagnosis.failures.is_due(&key, self.now).then(|| self.ports_at_failure(&key, destination));
        let mut given_up = GivenUp { key, failed, is_certain, is_counted: false, at: self.now };
        if !self.sees_calls() {
            // Without the hook of failures nothing shows what connect() returns.
            if is_certain {
                self.count_given_up(&mut given_up);
            }
            return;
        }
        self.diagnosis.given_up.0.insert(id, given_up);
    }

    /// The socket does something else: a connect() that has not returned by now is no system call.
    pub(super) fn settle_given_up(&mut self, id: SocketId) {
        if !self.diagnosis.given_up.0.is_empty() {
            self.settle_one(id);
        }
    }

    #[cold]
    fn settle_one(&mut self, id: SocketId) {
        if let Some(mut given_up) = self.diagnosis.given_up.0.remove(&id)
            && given_up.is_certain
        {
            self.count_given_up(&mut given_up);
        }
    }

    /// The namespace is gone: no call returns there any more.
    pub(super) fn settle_given_up_in(&mut self, netns: NetnsId) {
        let ids = self.diagnosis.given_up.0.iter().filter(|(_, given_up)| given_up.key.netns == netns);
        for id in ids.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.settle_one(id);
        }
    }

    /// Once a second: calls that will not return any more.
    pub(super) fn settle_old_given_up(&mut self) {
        let now = self.now;
        let mut table = std::mem::take(&mut self.diagnosis.given_up.0);
        table.retain(|_, given_up| {
            let age = now.saturating_sub(given_up.at);
            if age >= RETURNS_WITHIN && given_up.is_certain {
                self.count_given_up(given_up);
            }
            age < RETURNS_WITHIN || given_up.is_counted && age < REMEMBERED
        });
        self.diagnosis.given_up.0 = table;
    }

    fn count_given_up(&mut self, given_up: &mut GivenUp) {
        if !std::mem::replace(&mut given_up.is_counted, true) {
            self.count_failure(given_up.key, given_up.failed);
        }
    }

    /// `None` for numbers that are not due.
    fn count_failure(&mut self, key: FailureKey, failed: Option<Failed>) {
        let row = key.member.and_then(|member| self.ledger.member(member, self.now));
        self.ledger.note_failures(row.unwrap_or(NOBODY), 1, self.now);
        match failed {
            None if self.diagnosis.failures.get_mut(&key).is_some() => self.diagnosis.failures.repeat(&key, self.now),
            failed => {
                self.diagnosis.failures.add(key, 1, self.now, failed.unwrap_or(Failed::Unknown));
                if let (FailureKind::PortsExhausted, Some(Failed::Ports(ports))) = (key.kind, failed)
                    && !ports.explains_refusal()
                {
                    // Sockets that no scan has shown yet use these ports.
                    self.ask_later(key, NO_SOCKET);
                }
            }
        }
    }

    /// A call has returned an errno.
    pub(super) fn on_call_failed(
        &mut self,
        (netns, call, by, cgroup): (NetnsId, &'static str, Process, Option<CgroupId>),
        refused: Refused,
    ) {
        let row = self.member_of_cgroup(cgroup).unwrap_or_else(|| self.member_of_process(Some(by)));
        let member = self.ledger.members().member(row);
        let key = |kind| FailureKey { member, ..FailureKey::by_call(kind, netns, call, by) };
        if let Refused::Bind { local, .. } | Refused::Connect { local, .. } = refused {
            self.note_device(netns, local.device);
        }
        match refused {
            Refused::Descriptor { found } => {
                let (kind, failed) = descriptor(call, found);
                self.count_failure(key(kind), Some(failed));
            }
            Refused::File => {
                let failed = self.readings.host.files.map_or(Failed::Unknown, Failed::Files);
                self.count_failure(key(FailureKind::HostFiles), Some(failed));
            }
            Refused::Bind { local, is_in_use: false, no_ipv6, .. } => {
                let failed = if no_ipv6 { Failed::NoIpv6 } else { Failed::Unknown };
                let key = FailureKey { local: Some(local), ..key(FailureKind::AddressNotLocal) };
                self.count_failure(key, Some(failed));
            }
            Refused::Bind { socket, local, own_range, .. } => {
                let kind = if local.port == 0 { FailureKind::BindPorts } else { FailureKind::AddressInUse };
                let own_range = if local.port == 0 { self.own_range(netns, own_range) } else { None };
                let key = FailureKey { local: Some(local), own_range, ..key(kind) };
                let failed =
                    self.diagnosis.failures.is_due(&key, self.now).then(|| self.bound_at_failure(key, local, socket));
                self.count_failure(key, failed);
            }
            Refused::Connect { socket, local, remote, no_ipv6 } => match self.diagnosis.given_up.0.remove(&socket) {
                // By the state hook, before the call returned.
                Some(given_up) if given_up.is_counted => {}
                Some(given_up) => self.count_failure(given_up.key, given_up.failed),
                None => {
                    let failed = if no_ipv6 { Failed::NoIpv6 } else { Failed::Unknown };
                    let key =
                        FailureKey { local: Some(local), remote: Some(remote), ..key(FailureKind::NoSourceAddress) };
                    self.count_failure(key, Some(failed));
                }
            },
        }
    }

    fn sees_calls(&self) -> bool {
        self.quality.hooks.iter().any(|it| it.hook == Hook::Failures && it.method.is_some())
    }

    /// The ports that a socket may get, where these are its own.
    fn own_range(&self, netns: NetnsId, own: OwnRange) -> Option<PortRange> {
        own.within(self.readings.namespaces.get(&netns)?.reading.port_range?)
    }

    fn bound_at_failure(&mut self, key: FailureKey, local: Local, socket: SocketId) -> Failed {
        if key.kind == FailureKind::AddressInUse {
            return Failed::PortOwner(self.ask_for_port_owner(key, local, socket));
        }
        self.ask_later(key, socket);
        let (used, usable) = self.used_ports(&key);
        Failed::UsedPorts(used, usable)
    }

    /// Ports of the range that have a socket, and how many ports that bind() may choose it has.
    pub(super) fn used_ports(&self, key: &FailureKey) -> (u32, u32) {
        let Some(namespace) = self.readings.namespaces.get(&key.netns) else { return (0, 0) };
        let range = key.own_range.or(namespace.reading.port_range);
        let device = key.local.map_or(Device::NONE, |local| local.device);
        let space = namespace.devices.space(device.index());
        let ports = self.ledger.ports(key.netns);
        range.zip(ports).map_or((0, 0), |(range, ports)| ports.used_within(range, space))
    }

    /// The ports towards the destination, now that the socket is not among them.
    fn ports_at_failure(&mut self, key: &FailureKey, destination: u32) -> Failed {
        let ports = match (key.kind, key.own_range) {
            (FailureKind::PortsExhausted, Some(own)) => self.ports_within(own, key),
            (FailureKind::PortsExhausted, None) => self.ports_of(destination, key.netns),
            _ => None,
        };
        ports.map_or(Failed::Unknown, Failed::Ports)
    }

    /// The numbers of a group that found no port, as they are known by now.
    pub(super) fn ports_by_now(&mut self, key: &FailureKey) -> Option<PortUse> {
        if let Some(own) = key.own_range {
            return self.ports_within(own, key);
        }
        let local = key.local?;
        let endpoint = self.ledger.endpoints().find(&EndpointKey {
            netns: key.netns,
            direction: Direction::Outbound,
            local_ip: local.ip,
            local_port: None,
            device: local.device,
        })?;
        let destination = self.ledger.destinations().find(endpoint, key.remote?)?;
        self.ports_of(destination, key.netns)
    }

    /// As [`Self::ports_of`], of a part of the range: port by port.
    fn ports_within(&self, range: PortRange, key: &FailureKey) -> Option<PortUse> {
        let namespace = self.readings.namespaces.get(&key.netns)?;
        let ports = self.ledger.ports(key.netns)?;
        let (local, remote) = (key.local?, key.remote?);
        let mut counts = PortUse { range: range.size(), blocked: Some(0), ..PortUse::default() };
        let space = namespace.devices.space(local.device.index());
        for port in range.low..=range.high {
            let tuple =
                FourTuple { local_ip: local.ip, local_port: port, remote_ip: remote.ip(), remote_port: remote.port() };
            let key = |device| TupleKey { netns: key.netns, tuple, device };
            let in_use =
                |device| self.sockets.find_tuple(key(device), |socket| key_of(self.ledger.endpoints(), socket));
            let conflicts = || namespace.devices.conflicts(local.device.index());
            if !ports.is_usable(port) {
                counts.reserved += 1;
            } else if !ports.may_be_chosen(Place::new(space, port)) {
                counts.blocked = counts.blocked.map(|blocked| blocked + 1);
            } else if conflicts().any(|device| in_use(device).is_some()) {
                counts.used += 1;
            } else if let Some(minisock) = conflicts().find_map(|device| self.minisock_of(key(device))) {
                counts.count_minisock(minisock.port_class.unwrap_or_default());
            }
        }
        counts.blocked = self.blocked_ports(namespace, ports, space).and(counts.blocked);
        Some(counts)
    }
}

/// Which limit an EMFILE was, by `alloc_fd`'s own rule: the lowest free descriptor must be below `RLIMIT_NOFILE`.
fn descriptor(call: &str, found: Option<(u64, u64)>) -> (FailureKind, Failed) {
    // These ask for nothing else that could run out with EMFILE.
    let asks_for_descriptors_alone = matches!(
        call,
        "socket" | "accept" | "accept4" | "socketpair" | "dup" | "pipe" | "pipe2" | "eventfd" | "eventfd2"
    );
    match found {
        Some((limit, lowest_free)) if lowest_free >= limit => {
            (FailureKind::ProcessFds, Failed::Descriptors(lowest_free, limit))
        }
        _ if asks_for_descriptors_alone => (FailureKind::ProcessFds, Failed::Unknown),
        Some((limit, lowest_free)) => (FailureKind::OtherFdLimit, Failed::FreeDescriptor(lowest_free, limit)),
        None => (FailureKind::OtherFdLimit, Failed::Unknown),
    }
}
