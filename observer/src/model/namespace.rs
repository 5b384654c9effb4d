//! Network namespaces: what is read of each, and how they come and go.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, hash_map::Entry},
    sync::Arc,
};

use rustc_hash::FxHashMap;

pub use super::reading::{Conntrack, ConntrackCounters, ListenCounters, NamespaceName, NamespaceReading, Shared};
use super::{
    Diagnosis, Model,
    device::{Device, DeviceRules},
    listen_drops::Unsettled,
    name::{Name, NetnsName},
    quality::NamespaceScan,
    service::Service,
    socket::Socket,
    units::{NetnsId, SocketId},
};

/// What the kernel has counted in a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) listen: ListenCounters,
    pub(super) conntrack: Option<ConntrackCounters>,
    pub(super) time_wait_overflows: Option<u64>,
    pub(super) aborts_on_memory: Option<u64>,
}

impl Counters {
    pub(super) fn of(reading: &NamespaceReading) -> Self {
        let NamespaceReading { listen, time_wait_overflows, aborts_on_memory, .. } = *reading;
        let conntrack = reading.conntrack.and_then(|conntrack| conntrack.counters);
        Self { listen, conntrack, time_wait_overflows, aborts_on_memory }
    }

    /// Each of these counters as it was when the namespace began.
    fn zeroed(self) -> Self {
        let ListenCounters { overflows, drops, syn_queue_drops, syn_cookies } = self.listen;
        let zero = |counter: Option<u64>| counter.map(|_| 0);
        Self {
            listen: ListenCounters {
                overflows: zero(overflows),
                drops: zero(drops),
                syn_queue_drops: zero(syn_queue_drops),
                syn_cookies: zero(syn_cookies),
            },
            conntrack: self.conntrack.map(|_| ConntrackCounters::default()),
            time_wait_overflows: zero(self.time_wait_overflows),
            aborts_on_memory: zero(self.aborts_on_memory),
        }
    }

    /// Each counter of these, or of `other` where it could not be read.
    fn or(self, other: Self) -> Self {
        let (a, b) = (self.listen, other.listen);
        Self {
            listen: ListenCounters {
                overflows: a.overflows.or(b.overflows),
                drops: a.drops.or(b.drops),
                syn_queue_drops: a.syn_queue_drops.or(b.syn_queue_drops),
                syn_cookies: a.syn_cookies.or(b.syn_cookies),
            },
            conntrack: self.conntrack.or(other.conntrack),
            time_wait_overflows: self.time_wait_overflows.or(other.time_wait_overflows),
            aborts_on_memory: self.aborts_on_memory.or(other.aborts_on_memory),
        }
    }
}

/// The name of the host's own namespace, and of no other.
const HOST: &str = "host";

/// A network namespace.
#[derive(Default)]
pub(super) struct Namespace {
    pub(super) reading: NamespaceReading,
    pub(super) devices: DeviceRules,
    /// What its sockets are of, where that names it.
    pub(super) socket_name: Option<Name>,
    /// As [`NetnsName::is_ambiguous`], when the last snapshot was made.
    is_ambiguous: bool,
    /// The service that it is named by.
    pub(super) service: Option<Arc<Service>>,
    /// The last scan of its table. Once there was one, what is found and not known is drift.
    pub(super) last_scan: Option<NamespaceScan>,
    /// Scans of its table that were completed.
    pub(super) scans: u64,
    /// It is younger than observer: the first round of readings and scans did not find it.
    is_younger: bool,
    /// Its counters as they were read first: what happened before observer watched it.
    pub(super) at_first: Counters,
    /// Its counters as they were read last, each.
    at_last: Counters,
    /// What was dropped at listeners, and no listener answers for yet.
    pub(super) unsettled: Unsettled,
    /// TIME_WAIT sockets that it got since observer started, less those that connect() took over.
    pub(super) time_wait_entered: i64,
}

impl Namespace {
    fn name(&self) -> Option<&Name> {
        self.socket_name.as_ref().or(self.reading.name.name())
    }

    /// What it is called.
    pub(super) fn netns_name(&self) -> Option<NetnsName> {
        Some(NetnsName { name: self.name()?.clone(), is_ambiguous: self.is_ambiguous })
    }

    /// The same ports may be chosen by connect() as under `other`.
    pub(super) fn has_ports_of(&self, other: &NamespaceReading) -> bool {
        let rules = |it: &NamespaceReading| (it.port_range, it.tcp_tw_reuse, it.tcp_tw_reuse_delay);
        rules(&self.reading) == rules(other) && self.reading.reserved == other.reserved
    }
}

impl Model {
    /// Takes note of what a namespace was read to be.
    pub fn set_namespace(&mut self, netns: NetnsId, reading: NamespaceReading) {
        self.readings.unread.remove(&netns);
        self.readings.unread_devices.retain(|(named, _)| *named != netns);
        let known = self.readings.namespaces.entry(netns);
        let is_new = matches!(known, Entry::Vacant(_));
        let known = known.or_default();
        let devices = DeviceRules::new(&reading.devices, reading.tcp_l3mdev_accept == Some(true));
        let has_same_ports = !is_new && known.has_ports_of(&reading) && known.devices.is_same(&devices);
        known.devices = devices;
        let counters = Counters::of(&reading);
        known.is_younger |= is_new && self.quality.scans_total > 0;
        // All counters of a new namespace begin at 0.
        let zero = if known.is_younger { counters.zeroed() } else { Counters::default() };
        let is_first = is_new && !known.is_younger;
        known.at_first = known.at_first.or(zero).or(counters);
        let before = known.at_last.or(zero);
        known.at_last = counters.or(before);
        let cookies_before = if is_new { reading.tcp_syncookies } else { known.reading.tcp_syncookies };
        self.readings.have_new_names |= is_new || known.reading.name != reading.name;
        known.reading = reading;
        if !is_first {
            self.note_counters(netns, before, counters);
            self.note_listen_counters(netns, before.listen, cookies_before);
        }
        if !has_same_ports {
            self.rebuild_ports(netns);
        }
    }

    /// The last reading of each namespace.
    pub fn namespace_readings(&self) -> impl Iterator<Item = (NetnsId, &NamespaceReading)> {
        self.readings.namespaces.iter().map(|(netns, namespace)| (*netns, &namespace.reading))
    }

    /// The last reading of a namespace.
    #[must_use]
    pub fn namespace_reading(&self, netns: NetnsId) -> Option<&NamespaceReading> {
        self.readings.namespaces.get(&netns).map(|namespace| &namespace.reading)
    }

    /// Namespaces that events or open files have named and nobody has read yet.
    pub fn unread_namespaces(&self) -> impl Iterator<Item = NetnsId> + '_ {
        self.readings.unread.iter().copied()
    }

    /// Namespaces in which sockets are bound to devices that nobody has read yet.
    #[must_use]
    pub fn with_unread_devices(&self) -> BTreeSet<NetnsId> {
        self.readings.unread_devices.iter().map(|(netns, _)| *netns).collect()
    }

    /// Whether there are such namespaces.
    #[must_use]
    pub fn has_unread_devices(&self) -> bool {
        !self.readings.unread_devices.is_empty()
    }

    /// Indexes of the devices that sockets are bound to, by namespace.
    #[must_use]
    pub fn devices_in_use(&self) -> BTreeMap<NetnsId, BTreeSet<u32>> {
        let mut devices: BTreeMap<NetnsId, BTreeSet<u32>> = BTreeMap::new();
        let of_rows = self.ledger.endpoints().iter().map(|(_, row)| (row.key.netns, row.key.device));
        let of_bound = self.bound.iter().map(|(_, bound)| (bound.netns, bound.local.device));
        let of_refused = self.diagnosis.failures.devices();
        for (netns, device) in of_rows.chain(of_bound).chain(of_refused).filter(|(_, device)| !device.is_none()) {
            devices.entry(netns).or_default().insert(device.index());
        }
        devices
    }

    /// Takes note of a device that a socket is bound to.
    pub(super) fn note_device(&mut self, netns: NetnsId, device: Device) {
        let knows = |namespace: &Namespace| namespace.devices.knows(device.index());
        if !device.is_none() && !self.readings.namespaces.get(&netns).is_some_and(knows) {
            self.readings.unread_devices.insert((netns, device.index()));
        }
    }

    /// The device with its name, as far as that is known.
    pub(super) fn named(&self, netns: NetnsId, device: Device) -> Device {
        if device.is_none() {
            return device;
        }
        self.readings.namespaces.get(&netns).map_or(device, |namespace| namespace.devices.named(device))
    }

    /// The namespace is gone, and the kernel has ended what was in it.
    pub fn forget_namespace(&mut self, netns: NetnsId) {
        self.readings.unread.remove(&netns);
        self.readings.unread_devices.retain(|(named, _)| *named != netns);
        let sockets: Vec<SocketId> = self.sockets_of(netns).map(|socket| socket.id).collect();
        for id in sockets {
            self.remove_socket(id);
        }
        self.settle_given_up_in(netns);
        let listeners: Vec<SocketId> = self.listeners.of_namespace(netns).map(|(id, _)| id).collect();
        for id in listeners {
            self.remove_listener(id);
        }
        self.remove_minisocks(netns, |_| true);
        self.unbind_all(|bound| bound.netns == netns);
        let name = self.netns_name(netns);
        self.ledger.forget(netns);
        self.readings.namespaces.remove(&netns);
        self.readings.have_new_names = true;
        let Diagnosis { failures, given_up: _, questions, bind_before_connect, stuck, trends, alarms: _ } =
            &mut self.diagnosis;
        failures.forget(netns, name);
        questions.forget(netns);
        bind_before_connect.forget(netns);
        stuck.forget(netns);
        trends.forget(netns);
    }

    /// What a namespace is called.
    pub(super) fn netns_name(&self, netns: NetnsId) -> Option<NetnsName> {
        self.readings.namespaces.get(&netns)?.netns_name()
    }

    /// Names each namespace by the pod, container or machine that most of its sockets belong to, unless it is the host's or its
    /// own processes have named it so: an agent of a node may open most of the sockets in a pod's namespace. The other names
    /// of a reading come after. Where the reading knows none, the unit of its sockets names it.
    pub(super) fn name_namespaces(&mut self) {
        let mut counts: FxHashMap<(NetnsId, &Name), (bool, u32)> = FxHashMap::default();
        for (_, row) in self.ledger.endpoints().iter() {
            let most = self.ledger.members().most(&row.members);
            let name = most.and_then(|(member, _)| member.namespace_name.as_ref());
            let Some((name, is_closed)) = name.filter(|(name, _)| name.trim() != HOST) else { continue };
            let Some(namespace) = self.readings.namespaces.get(&row.key.netns) else { continue };
            let may_name = match &namespace.reading.name {
                NamespaceName::Unknown => true,
                NamespaceName::Other(known) => *is_closed && &**known != HOST,
                NamespaceName::Workload(_) => false,
            };
            if may_name {
                let count = counts.entry((row.key.netns, name)).or_insert((*is_closed, 0));
                count.1 += row.listeners + row.states.sum();
            }
        }
        let mut most: FxHashMap<NetnsId, (bool, u32, Reverse<&Name>)> = FxHashMap::default();
        for ((netns, name), (is_closed, count)) in counts {
            let candidate = (is_closed, count, Reverse(name));
            most.entry(netns).and_modify(|known| *known = candidate.max(*known)).or_insert(candidate);
        }
        for (netns, namespace) in &mut self.readings.namespaces {
            let name = most.get(netns).map(|(_, _, Reverse(name))| *name);
            if namespace.socket_name.as_ref() != name {
                namespace.socket_name = name.cloned();
                self.readings.have_new_names = true;
            }
        }
        if std::mem::take(&mut self.readings.have_new_names) {
            self.find_ambiguous_names();
        }
    }

    /// The namespace with the lowest number, the host's where it is visible, keeps its name whatever others are called.
    fn find_ambiguous_names(&mut self) {
        let mut called: FxHashMap<Arc<str>, u32> = FxHashMap::default();
        for (netns, namespace) in &self.readings.namespaces {
            if let Some(name) = namespace.name().filter(|name| !netns.is_belied_by(name)) {
                *called.entry(Arc::clone(name.shown())).or_default() += 1;
            }
        }
        let first = self.readings.namespaces.keys().min().copied();
        for (netns, namespace) in &mut self.readings.namespaces {
            let is_shared = |name: &Name| called.get(name.shown()).is_some_and(|count| *count > 1);
            let is_ambiguous = |name: &Name| is_shared(name) && first != Some(*netns) || netns.is_belied_by(name);
            namespace.is_ambiguous = namespace.name().is_some_and(is_ambiguous);
        }
    }

    /// Finds the service that each namespace is named by among those of its sockets. It stays while the name does, because
    /// a pod without sockets is the same pod.
    pub(super) fn find_services_of_namespaces(&mut self) {
        let mut found: FxHashMap<NetnsId, &Arc<Service>> = FxHashMap::default();
        for (_, row) in self.ledger.endpoints().iter() {
            let Some((member, _)) = self.ledger.members().most(&row.members) else { continue };
            let Some(service) = &member.service else { continue };
            let namespace = self.readings.namespaces.get(&row.key.netns);
            if is_named_by(namespace.and_then(Namespace::name), member.namespace_name.as_ref()) {
                found.entry(row.key.netns).or_insert(service);
            }
        }
        for (netns, namespace) in &mut self.readings.namespaces {
            if let Some(service) = found.get(netns) {
                namespace.service = Some(Arc::clone(service));
            } else if let Some(before) = &namespace.service
                && !is_named_by(namespace.name(), before.namespace_name().as_ref())
            {
                namespace.service = None;
            }
        }
    }

    pub(super) fn sockets_of(&self, netns: NetnsId) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(move |socket| self.ledger.endpoints().get(socket.endpoint).key.netns == netns)
    }

    /// Takes note of a namespace that was named.
    pub(super) fn note_namespace(&mut self, netns: NetnsId) {
        if !self.readings.namespaces.contains_key(&netns) {
            self.readings.unread.insert(netns);
        }
    }
}

/// Whether a namespace has this name because of the service whose [`Service::namespace_name`] is `own`. The host's has its own.
fn is_named_by(name: Option<&Name>, own: Option<&(Name, bool)>) -> bool {
    own.is_some_and(|(own, _)| name == Some(own) && own.trim() != HOST)
}
