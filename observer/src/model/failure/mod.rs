//! What the kernel refused: to whom, where, why, how often. In groups, and bounded in memory. Socket counts do not depend
//! on it.

mod count;
mod kind;
mod owner;
mod text;

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

pub use self::{count::FailureCount, kind::FailureKind, owner::PortOwner};
pub use super::address::Local;
use super::{
    device::Device,
    endpoint::rate,
    headroom::PortUse,
    member::Member,
    name::NetnsName,
    reading::FileUse,
    service::Service,
    units::{NetnsId, PortRange, Process, Queues, grouped},
};

/// Groups kept at most; the one that has been quiet longest makes room for a new one.
const GROUPS: usize = 1024;
/// Failures of one kind are a loop from here on: nobody types that fast.
pub(super) const LOOP_PER_SECOND: f64 = 10.0;
/// How long the numbers of a group are good for.
const NUMBERS_LAST: Duration = Duration::from_secs(1);

/// What makes two failures one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailureKey {
    /// Why.
    pub kind: FailureKind,
    /// Where.
    pub netns: NetnsId,
    /// The system call; `None` where the kernel refused on its own account.
    pub call: Option<&'static str>,
    /// Who, where that is known.
    pub process: Option<Process>,
    /// The cgroup of the task, or the process where that names no service.
    pub member: Option<Member>,
    /// The local address that was asked for or chosen.
    pub local: Option<Local>,
    /// The destination.
    pub remote: Option<SocketAddr>,
    /// The ports that the socket could get, where these are its own and not the namespace's (`IP_LOCAL_PORT_RANGE`).
    pub own_range: Option<PortRange>,
}

impl FailureKey {
    /// Of a system call that failed.
    pub(super) const fn by_call(kind: FailureKind, netns: NetnsId, call: &'static str, process: Process) -> Self {
        Self {
            kind,
            netns,
            call: Some(call),
            process: Some(process),
            member: None,
            local: None,
            remote: None,
            own_range: None,
        }
    }

    /// Of what the kernel refused on its own account.
    pub(super) const fn by_kernel(kind: FailureKind, netns: NetnsId) -> Self {
        Self { kind, netns, call: None, process: None, member: None, local: None, remote: None, own_range: None }
    }
}

/// What had run out, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Not known.
    Unknown,
    /// Ports of the destination, at the last refusal.
    Ports(PortUse),
    /// The queues of the listener, at the last scan.
    Queues(Queues),
    /// Descriptors of the process and its soft limit.
    Descriptors(u64, u64),
    /// A descriptor that was free at the last refusal, and the soft limit above it.
    FreeDescriptor(u64, u64),
    /// Open files of the host.
    Files(FileUse),
    /// Ports of the range that have a socket, and how many there are.
    UsedPorts(u32, u32),
    /// The port's owner.
    PortOwner(PortOwner),
    /// IPv6 is disabled there.
    NoIpv6,
}

/// A group of failures, as a snapshot has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// What they have in common.
    pub key: FailureKey,
    /// How many.
    pub count: u64,
    /// The first, as time since start.
    pub first_at: Duration,
    /// The last, as time since start.
    pub last_at: Duration,
    /// What had run out.
    pub failed: Failed,
    /// The service of whoever was refused; set in snapshots alone.
    pub service: Option<Arc<Service>>,
    /// Set once its namespace has ended: the kernel may give the number to another namespace.
    pub ended: Option<EndedNamespace>,
}

/// A namespace that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedNamespace {
    /// The name that it had.
    pub name: Option<NetnsName>,
}

impl FailureRow {
    /// What failed, in a few words.
    #[must_use]
    pub fn what(&self) -> String {
        match (self.key.call, self.key.kind.errno()) {
            (Some(call), Some(errno)) => format!("{call}() {errno}"),
            _ => match self.key.kind {
                FailureKind::AcceptQueue => "handshake dropped",
                FailureKind::TimeWait => "TIME_WAIT left out",
                FailureKind::SynQueue => "SYN dropped",
                FailureKind::Conntrack | FailureKind::ConntrackClash => "packet dropped",
                FailureKind::ConntrackEvicted => "tracked entry evicted",
                FailureKind::TcpMemory => "connection aborted",
                kind => kind.name(),
            }
            .to_owned(),
        }
    }

    /// The owner of the port that bind() or listen() did not get.
    #[must_use]
    pub const fn port_owner(&self) -> Option<PortOwner> {
        match self.failed {
            Failed::PortOwner(port_owner) => Some(port_owner),
            _ => None,
        }
    }

    /// What to do, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        text::remedy(self)
    }

    /// Why, in numbers as far as they are known.
    #[must_use]
    pub fn reason(&self) -> String {
        if let Some(reason) = text::of_call(self) {
            return reason;
        }
        let FailureKey { kind, local, .. } = self.key;
        let is_unnamed = local.is_none();
        let local = local.map_or_else(String::new, |local| local.to_string());
        match (kind, self.failed) {
            (FailureKind::AcceptQueue, Failed::Queues(queues)) => {
                format!(
                    "{local}: {} wait for accept(), {} fit (backlog {} + 1)",
                    grouped(queues.accept.into()),
                    grouped(u64::from(queues.limit) + 1),
                    grouped(queues.limit.into())
                )
            }
            (FailureKind::AcceptQueue, _) if is_unnamed => {
                "an accept queue was full (ListenOverflows); the counters do not say whose".to_owned()
            }
            (FailureKind::AcceptQueue, _) => format!("{local}: its accept queue was full"),
            (FailureKind::SynQueue, _) if is_unnamed => {
                "a SYN queue was full and tcp_syncookies is 0 (TCPReqQFullDrop); the counters do not say whose"
                    .to_owned()
            }
            (FailureKind::SynQueue, _) => format!("{local}: its SYN queue was full and tcp_syncookies is 0"),
            (FailureKind::TimeWait, _) => "there are tcp_max_tw_buckets TIME_WAITs already".to_owned(),
            (FailureKind::Conntrack, _) => "nf_conntrack_max connections are tracked already (drop)".to_owned(),
            (FailureKind::ConntrackClash, _) => {
                "its addresses clash with another tracked connection: often NAT without a free port (insert_failed)"
                    .to_owned()
            }
            (FailureKind::ConntrackEvicted, _) => {
                "nf_conntrack_max was reached: an old entry made room, the new packet passed (early_drop)".to_owned()
            }
            (FailureKind::TcpMemory, _) => {
                "too many orphans (tcp_max_orphans), or too much in buffers (tcp_mem)".to_owned()
            }
            (kind, _) => kind.name().to_owned(),
        }
    }
}

/// All groups.
#[derive(Default)]
pub(super) struct FailureTable {
    groups: FxHashMap<FailureKey, FailureRow>,
    /// Groups of namespaces that have ended, those that ended first in front.
    ended: VecDeque<FailureRow>,
    /// When the numbers of a group were found.
    found_at: FxHashMap<FailureKey, Duration>,
    total: u64,
    /// Of all groups that ever were.
    by_kind: FxHashMap<FailureKind, u64>,
    /// The same of each namespace that is still there.
    by_namespace: FxHashMap<(NetnsId, FailureKind), u64>,
    /// Of groups that found no port: how often, at the last tick, and how often a second before it.
    exhausted: FxHashMap<FailureKey, (u64, f64)>,
    /// Of all kinds: how often, at the last tick, and how often a second before it.
    rates: FxHashMap<FailureKind, (u64, f64)>,
}

impl FailureTable {
    /// So many more.
    pub(super) fn add(&mut self, key: FailureKey, count: u64, now: Duration, failed: Failed) {
        if count == 0 {
            return;
        }
        self.count_in_totals(&key, count);
        if !self.groups.contains_key(&key) && self.groups.len() + self.ended.len() >= GROUPS {
            self.make_room();
        }
        let new = FailureRow { key, count: 0, first_at: now, last_at: now, failed, service: None, ended: None };
        let row = self.groups.entry(key).or_insert(new);
        row.count += count;
        row.last_at = now;
        row.failed = failed;
        self.found_at.insert(key, now);
    }

    fn make_room(&mut self) {
        if self.ended.pop_front().is_some() {
            return;
        }
        if let Some(oldest) = self.groups.values().min_by_key(|row| row.last_at).map(|row| row.key) {
            self.groups.remove(&oldest);
            self.found_at.remove(&oldest);
        }
    }

    /// All groups that are kept.
    fn rows(&self) -> impl Iterator<Item = &FailureRow> {
        self.groups.values().chain(&self.ended)
    }

    /// Whether the numbers of a group are out of date: a loop of retries must not cost as much as what it looks for.
    pub(super) fn is_due(&self, key: &FailureKey, now: Duration) -> bool {
        self.found_at.get(key).is_none_or(|at| now.saturating_sub(*at) >= NUMBERS_LAST)
    }

    /// One more in a group whose numbers are not due.
    pub(super) fn repeat(&mut self, key: &FailureKey, now: Duration) {
        if let Some(row) = self.groups.get_mut(key) {
            row.count += 1;
            row.last_at = now;
            self.count_in_totals(key, 1);
        }
    }

    /// A group that is kept still.
    pub(super) fn get_mut(&mut self, key: &FailureKey) -> Option<&mut FailureRow> {
        self.groups.get_mut(key)
    }

    /// The host's files were counted: right after an ENFILE this says more than the count before it.
    pub(super) fn note_files(&mut self, files: FileUse, now: Duration) {
        let is_recent = |row: &&mut FailureRow| now.saturating_sub(row.last_at) <= NUMBERS_LAST;
        let rows = self.groups.values_mut().filter(|row| row.key.kind == FailureKind::HostFiles);
        for row in rows.filter(is_recent) {
            match row.failed {
                Failed::Files(known) if known.allocated >= files.allocated => {}
                _ => row.failed = Failed::Files(files),
            }
        }
    }

    /// Computes how often each kind failed, and how often connect() found no port, over the time since the last call.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        for (kind, count) in &self.by_kind {
            let (counted, per_second) = self.rates.entry(*kind).or_default();
            *per_second = rate(count.saturating_sub(*counted), elapsed);
            *counted = *count;
        }
        let before = std::mem::take(&mut self.exhausted);
        let groups = self.groups.values().filter(|row| row.key.kind == FailureKind::PortsExhausted);
        self.exhausted = groups
            .map(|row| {
                let (counted, _) = before.get(&row.key).copied().unwrap_or_default();
                (row.key, (row.count, rate(row.count.saturating_sub(counted), elapsed)))
            })
            .collect();
    }

    /// The kinds that came in a loop before the last tick.
    pub(super) fn loops(&self) -> impl Iterator<Item = FailureKind> + '_ {
        self.rates.iter().filter(|(_, (_, per_second))| *per_second >= LOOP_PER_SECOND).map(|(kind, _)| *kind)
    }

    /// Groups that found no port, each with how many a second.
    pub(super) fn exhausted(&self) -> impl Iterator<Item = (&FailureRow, f64)> {
        self.exhausted.iter().filter_map(|(key, (_, per_second))| Some((self.groups.get(key)?, *per_second)))
    }

    /// The devices of the sockets that were refused, by namespace.
    pub(super) fn devices(&self) -> impl Iterator<Item = (NetnsId, Device)> + '_ {
        self.groups.keys().filter_map(|key| Some((key.netns, key.local?.device)))
    }

    /// What the groups name.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.rows().filter_map(|row| row.key.member)
    }

    /// How often each group refused a process.
    pub(super) fn by_process(&self) -> impl Iterator<Item = (Process, u64)> + '_ {
        self.rows().filter_map(|row| Some((row.key.process?, row.count)))
    }

    /// Since start, of all groups that ever were.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Since start, of one kind.
    pub(super) fn of_kind(&self, kind: FailureKind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or(0)
    }

    /// How often the groups that are kept and wanted failed.
    pub(super) fn count(&self, is_wanted: impl Fn(&FailureRow) -> bool) -> u64 {
        self.rows().filter(|row| is_wanted(row)).map(|row| row.count).sum()
    }

    /// The newest groups first, `most` of them.
    pub(super) fn newest(&self, most: usize) -> Vec<FailureRow> {
        let mut rows: Vec<&FailureRow> = self.rows().collect();
        rows.sort_unstable_by_key(|row| {
            let FailureKey { kind, process, local, remote, .. } = row.key;
            let local = local.map(|local| (local.ip, local.port));
            (std::cmp::Reverse(row.last_at), kind, process.map(|it| it.pid), local, remote)
        });
        rows.into_iter().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::units::{Comm, Pid};

    fn key(pid: u32) -> FailureKey {
        FailureKey {
            kind: FailureKind::PortsExhausted,
            netns: NetnsId(1),
            call: Some("connect"),
            process: Some(Process { pid: Pid(pid), comm: Comm::from("app") }),
            member: None,
            local: Some(Local { ip: Ipv4Addr::LOCALHOST.into(), port: 0, device: Device::NONE }),
            remote: None,
            own_range: None,
        }
    }

    #[test]
    fn equal_failures_are_one_group_and_the_newest_comes_first() {
        let mut table = FailureTable::default();
        for (second, pid) in [(1, 7), (2, 8), (3, 7)] {
            table.add(key(pid), 1, Duration::from_secs(second), Failed::Unknown);
        }
        let rows = table.newest(10);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.key.process.unwrap().pid.0, row.count, row.first_at.as_secs(), row.last_at.as_secs()))
            .collect();
        assert_eq!(shown, [(7, 2, 1, 3), (8, 1, 2, 2)]);
        assert_eq!(table.newest(1).len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_the_total_is_not() {
        let mut table = FailureTable::default();
        for pid in 0..3000 {
            table.add(key(pid), 1, Duration::from_secs(pid.into()), Failed::Unknown);
        }
        assert_eq!((table.newest(usize::MAX).len(), table.total()), (GROUPS, 3000));
        assert_eq!(table.newest(1)[0].key.process.unwrap().pid, Pid(2999));
        let count = FailureCount { netns: NetnsId(1), kind: FailureKind::PortsExhausted, count: 3000 };
        assert_eq!(table.counts(), [count], "groups that are gone count too");
        table.forget(NetnsId(1), None);
        assert_eq!((table.counts().len(), table.total()), (0, 3000));
        assert_eq!(table.newest(usize::MAX).len(), GROUPS, "its groups are listed still");
        table.add(key(1), 1, Duration::from_mins(50), Failed::Unknown);
        assert_eq!((table.newest(usize::MAX).len(), table.newest(1)[0].count), (GROUPS, 1));
    }
}
