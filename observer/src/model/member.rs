//! Cgroups and processes that sockets belong to, with what each counts. Several of them make a service: the containers of a
//! pod, the processes of a unit.
//!
//! A socket belongs to its cgroup; where the kernel shows none, or one that names no service (the root, and units that
//! make sockets for others), to its owner. Names come later than sockets: what is counted here does not depend
//! on them.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::{
    flow::Flow,
    index::{NO_ROW, narrow},
    name::Name,
    row_members::{RowMember, RowMembers},
    service::{CgroupId, Service},
    units::{Pid, StateCounts},
};

/// What names a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Member {
    /// A cgroup of cgroup2.
    Cgroup(CgroupId),
    /// A process.
    Process(Pid),
}

/// The id of the root of cgroup2: the first that a kernfs hierarchy gives (`kernfs_create_root`).
const ROOT: CgroupId = CgroupId(1);
/// The row of sockets that belong to nobody that is known.
pub(super) const NOBODY: u32 = 0;
/// How long a row without sockets stays.
const LINGER: Duration = Duration::from_mins(1);

/// The sockets of a member, or of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberCounts {
    /// Full sockets by state.
    pub(super) states: StateCounts,
    /// Of these, the ones whose last descriptor is closed.
    pub(super) orphans: u32,
    pub(super) listeners: u32,
    /// Sockets that are bound and nothing more.
    pub(super) bound: u32,
}

impl MemberCounts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A cgroup or a process.
#[derive(Clone, Default)]
pub(super) struct MemberRow {
    /// `None` for [`NOBODY`].
    pub(super) member: Option<Member>,
    pub(super) service: Option<Arc<Service>>,
    /// The service's [`Service::row_key`].
    pub(super) key: Option<Arc<Service>>,
    /// The service's [`Service::namespace_name`].
    pub(super) namespace_name: Option<(Name, bool)>,
    /// It is among [`MemberTable::unnamed`].
    is_unnamed: bool,
    /// It names no service: its sockets belong to their owners.
    is_mute: bool,
    /// Nobody found out what service it is of.
    pub(super) is_unresolved: bool,
    pub(super) counts: MemberCounts,
    pub(super) flow: Flow,
    pub(super) failures: u64,
    last_active: Duration,
}

/// What members counted that are forgotten, while others of their service are there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) failed: u64,
    pub(super) failures: u64,
    at: Duration,
}

/// All members.
#[derive(Clone)]
pub(super) struct MemberTable {
    rows: Slab<MemberRow>,
    by_member: FxHashMap<Member, u32>,
    past: FxHashMap<Arc<Service>, Past>,
    /// The keys of all services: one for all members of each.
    keys: FxHashSet<Arc<Service>>,
    /// Nobody has said yet what service they are of.
    unnamed: FxHashSet<Member>,
    /// Cgroups that the last tick forgot: a replay takes none of them.
    forgotten: Vec<CgroupId>,
}

impl Default for MemberTable {
    fn default() -> Self {
        let mut rows = Slab::new();
        rows.insert(MemberRow::default());
        Self {
            rows,
            by_member: FxHashMap::default(),
            past: FxHashMap::default(),
            keys: FxHashSet::default(),
            unnamed: FxHashSet::default(),
            forgotten: Vec::new(),
        }
    }
}

impl MemberRow {
    /// Nobody has said yet what service it is of.
    pub(super) const fn is_unnamed(&self) -> bool {
        self.is_unnamed
    }
}

impl MemberTable {
    /// The row of a member, made if need be; `None` if it names no service.
    pub(super) fn index(&mut self, member: Member, now: Duration) -> Option<u32> {
        if member == Member::Cgroup(ROOT) {
            return None;
        }
        if let Some(index) = self.by_member.get(&member).copied() {
            let row = &mut self.rows[index as usize];
            row.last_active = now;
            let is_mute = row.is_mute;
            // Another process may have its number by now, and a process may have moved.
            if matches!(member, Member::Process(_)) && !row.is_unnamed && row.counts.is_empty() {
                self.want_name(member, index);
            }
            return (!is_mute).then_some(index);
        }
        let row = MemberRow { member: Some(member), last_active: now, ..MemberRow::default() };
        let index = narrow(self.rows.insert(row));
        self.by_member.insert(member, index);
        self.want_name(member, index);
        Some(index)
    }

    fn want_name(&mut self, member: Member, index: u32) {
        // /proc has nothing of processes outside, and may have another process of the same number.
        if !matches!(member, Member::Process(pid) if pid.is_outside()) {
            self.rows[index as usize].is_unnamed = true;
            self.unnamed.insert(member);
        }
    }

    /// The member of a row.
    pub(super) fn member(&self, index: u32) -> Option<Member> {
        self.rows.get(index as usize)?.member
    }

    /// Whether the sockets of a row belong to it by their cgroup, whoever owns them.
    pub(super) fn is_cgroup(&self, index: u32) -> bool {
        matches!(self.member(index), Some(Member::Cgroup(_)))
    }

    /// The cgroup of a row, if it is one's.
    pub(super) fn cgroup(&self, index: u32) -> Option<CgroupId> {
        match self.member(index)? {
            Member::Cgroup(id) => Some(id),
            Member::Process(_) => None,
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&MemberRow> {
        self.rows.get(index as usize)
    }

    pub(super) fn find(&self, member: Member) -> Option<&MemberRow> {
        self.get(*self.by_member.get(&member)?)
    }

    /// The row, to be changed at `now`.
    pub(super) fn touch(&mut self, index: u32, now: Duration) -> Option<&mut MemberRow> {
        let row = self.rows.get_mut(index as usize)?;
        row.last_active = now;
        Some(row)
    }

    /// Something beside its sockets names a member: it stays.
    pub(super) fn keep(&mut self, member: Member, now: Duration) {
        if let Some(index) = self.by_member.get(&member) {
            self.rows[*index as usize].last_active = now;
        }
    }

    /// Every row, that of nobody among them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &MemberRow> {
        self.rows.iter().map(|(_, row)| row)
    }

    pub(super) fn past(&self) -> impl Iterator<Item = (&Arc<Service>, &Past)> {
        self.past.iter()
    }

    /// Nobody has said yet what service these are of.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = Member> + '_ {
        self.unnamed.iter().copied()
    }

    /// Takes note of the service of a member; `None` if it names none. Returns its row if its sockets are to go to their
    /// owners now.
    pub(super) fn set_service(&mut self, member: Member, service: Option<Service>) -> Option<u32> {
        self.unnamed.remove(&member);
        let index = *self.by_member.get(&member)?;
        let is_unresolved = service.is_none();
        let named = service.filter(|service| matches!(member, Member::Process(_)) || names_a_service(service));
        let key = named.as_ref().map(|service| self.shared_key(service.row_key()));
        let namespace_name = named.as_ref().and_then(Service::namespace_name);
        let row = &mut self.rows[index as usize];
        row.is_unnamed = false;
        row.is_mute = named.is_none() && matches!(member, Member::Cgroup(_));
        row.is_unresolved = is_unresolved;
        (row.service, row.key, row.namespace_name) = (named.map(Arc::new), key, namespace_name);
        // Most cgroups of a host have no socket: to look for some among all would cost as much as a scan.
        (row.is_mute && !row.counts.is_empty()).then_some(index)
    }

    /// The same for all members of a service.
    fn shared_key(&mut self, key: Service) -> Arc<Service> {
        if let Some(known) = self.keys.get(&key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key);
        self.keys.insert(Arc::clone(&key));
        key
    }

    /// The service of most sockets of a row, as one of its members has it, and how many other services there are.
    pub(super) fn most(&self, members: &RowMembers) -> Option<(&MemberRow, usize)> {
        let mut named = members.iter().filter_map(|RowMember { member, count }| {
            let row = self.get(member)?;
            Some((row.key.as_ref()?, row, count))
        });
        let first = named.next()?;
        // Most rows have one: a snapshot asks for each row several times.
        let Some(second) = named.next() else { return Some((first.1, 0)) };
        // By address: members of a service share its key.
        let mut services: FxHashMap<*const Service, (&MemberRow, u32)> = FxHashMap::default();
        for (key, row, count) in [first, second].into_iter().chain(named) {
            services.entry(Arc::as_ptr(key)).or_insert((row, 0)).1 += count;
        }
        let (row, _) = services.values().max_by_key(|(row, count)| (*count, Reverse(row.member)))?;
        Some((row, services.len() - 1))
    }

    /// Once a second: rates, and the end of members that nothing names any more. Returns the rows that are gone.
    pub(super) fn tick(&mut self, elapsed: Duration, now: Duration) -> Vec<u32> {
        let mut gone = Vec::new();
        self.forgotten.clear();
        for (index, row) in &mut self.rows {
            row.flow.tick(elapsed);
            let is_idle = row.counts.is_empty() && now.saturating_sub(row.last_active) >= LINGER;
            if let Some(member) = row.member.filter(|_| is_idle) {
                gone.push((narrow(index), member));
            }
        }
        for (index, member) in &gone {
            let row = self.rows.remove(*index as usize);
            self.by_member.remove(member);
            self.unnamed.remove(member);
            if let Member::Cgroup(id) = member {
                self.forgotten.push(*id);
            }
            let Some(key) = row.key else {
                // It counted as nobody's, and nobody's totals never fall.
                let nobody = &mut self.rows[NOBODY as usize];
                nobody.flow.absorb(&row.flow);
                nobody.failures += row.failures;
                continue;
            };
            let past = self.past.entry(key).or_default();
            past.opened += row.flow.opened;
            past.closed += row.flow.closed;
            past.failed += row.flow.failed;
            past.failures += row.failures;
            past.at = now;
        }
        if !self.past.is_empty() {
            let alive: FxHashSet<&Arc<Service>> = self.rows.iter().filter_map(|(_, row)| row.key.as_ref()).collect();
            self.past.retain(|key, past| alive.contains(key) || now.saturating_sub(past.at) < LINGER);
        }
        // Those that only this set still has.
        self.keys.retain(|key| Arc::strong_count(key) > 1);
        gone.into_iter().map(|(index, _)| index).collect()
    }

    /// Cgroups that the last tick forgot, once.
    pub(super) fn take_forgotten(&mut self) -> Vec<CgroupId> {
        std::mem::take(&mut self.forgotten)
    }

    /// Resets totals of connections. Failures count on, as on every other screen.
    pub(super) fn restart(&mut self) {
        for past in self.past.values_mut() {
            (past.opened, past.closed, past.failed) = (0, 0, 0);
        }
        for (_, row) in &mut self.rows {
            row.flow.restart();
        }
    }

    /// Takes all sockets from all members.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        self.rows.iter_mut().for_each(|(_, row)| row.counts = MemberCounts::default());
    }

    /// All counts as text.
    #[cfg(test)]
    pub(super) fn totals(&self) -> impl Iterator<Item = String> + '_ {
        let of_members = self.rows.iter().filter(|(_, row)| !row.counts.is_empty());
        of_members.map(|(index, row)| format!("member {index}: {:?}", row.counts))
    }
}

/// Parts of the names of container runtimes' units, whoever packaged them (`snap.microk8s.daemon-containerd.service`,
/// `k0sworker.service`, `cri-docker.service`). On a host with both versions of cgroups, a runtime may place its containers in v1
/// alone: then their sockets have the cgroup2 of the runtime.
const RUNTIMES: [&str; 12] = [
    "containerd",
    "docker",
    "crio",
    "cri-o",
    "kubelet",
    "kubelite",
    "k0s",
    "k3s",
    "rke2",
    "podman",
    "nomad",
    "buildkit",
];

/// The part of a unit's name by which it is a container runtime's.
pub(crate) fn runtime_in(unit: &[u8]) -> Option<&'static str> {
    let name = String::from_utf8_lossy(unit);
    let name = name.strip_suffix(".service")?;
    RUNTIMES.into_iter().find(|part| name.contains(part))
}

/// systemd makes sockets in `init.scope` for the services that it starts on demand: that of the host, of a user, of a machine.
pub(super) fn is_init_scope(service: &Service) -> bool {
    service.path.as_ref().is_some_and(|path| path.as_bytes().ends_with(b"/init.scope"))
        || service.unit.as_ref().is_some_and(|unit| unit.as_bytes() == b"init.scope")
}

/// The root of all cgroups is nobody's, and some make sockets for others. Where one of these is meant, its processes say the same.
/// All of a pod or of a container is one row anyhow.
fn names_a_service(service: &Service) -> bool {
    let is_workload = service.pod.is_some() || service.container.is_some();
    let is_of_runtime =
        service.machine.is_none() && service.unit.as_ref().is_some_and(|unit| runtime_in(unit.as_bytes()).is_some());
    let is_mute = service.is_root() || (!is_workload && (is_of_runtime || is_init_scope(service)));
    !is_mute
}

const _: () = assert!(NOBODY != NO_ROW);
