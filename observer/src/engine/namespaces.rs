//! The network namespaces that are watched: found, named, entered, read, and forgotten.

mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use self::known::{Hint, Known, Member, Namer};
use crate::{
    errno,
    host::{
        cgroup::Resolver,
        handle::{self, Handle, Target},
        namespace_id::Listed,
        namespaces::{self, FoundNamespace},
        netns::{self, Identity, Reading, Totals},
        proc,
        text::Procfs,
    },
    model::{
        event::Event,
        gaps::Gap,
        name::Name,
        namespace::{NamespaceName, NamespaceReading},
        units::{NetnsId, Pid},
    },
};

/// How long a namespace that cannot be found any more is kept for the sake of the sockets that were seen in it: longer
/// than the kernel keeps an orphaned one.
const KEPT_WITHOUT_HANDLE: Duration = Duration::from_mins(5);
/// Processes with sockets that are remembered of a namespace, to name it by one of them.
const SOCKET_OWNERS: usize = 4;
/// To read so many namespaces one after the other takes longer than to mount procfs.
pub(super) const WORTH_A_MOUNT: usize = 16;
/// The name of the host's own namespace.
const HOST: &str = "host";

/// A name that others chose, different from that of the host's own namespace.
fn unlike_host(name: &Name, netns: NetnsId) -> Name {
    if name.trim() == HOST { Name::from(format!("{HOST} ({})", netns.0).as_str()) } else { name.clone() }
}

/// The namespaces that are known.
pub(super) struct Namespaces {
    own: NetnsId,
    host: Option<NetnsId>,
    listed: Listed,
    /// Boxed, so that the ids, which are asked for many times a second, stand close together.
    known: FxHashMap<NetnsId, Box<Known>>,
    /// Processes that hold a socket in a namespace or acted on one: where to look for a handle.
    hints: FxHashMap<NetnsId, Hint>,
    /// Processes that hold sockets of namespaces that are not named by such a process yet.
    fd_owners: FxHashMap<NetnsId, Vec<Pid>>,
    /// Those of `known` of which nothing has to be noted: many events name them, and what is known of each is large.
    settled: FxHashSet<NetnsId>,
    were_looked_for: bool,
}

impl Namespaces {
    /// Knows the namespace of the calling thread.
    pub(super) fn new(own: NetnsId) -> Self {
        Self {
            own,
            host: namespaces::of_host(),
            listed: Listed::default(),
            known: [(own, Box::default())].into_iter().collect(),
            hints: FxHashMap::default(),
            fd_owners: FxHashMap::default(),
            settled: FxHashSet::default(),
            were_looked_for: false,
        }
    }

    /// Whether there was a look at all mounts and processes.
    pub(super) const fn were_looked_for(&self) -> bool {
        self.were_looked_for
    }

    /// That of the engine.
    pub(super) const fn own(&self) -> NetnsId {
        self.own
    }

    /// All of them, the own one first.
    pub(super) fn ids(&self) -> Vec<NetnsId> {
        let others = self.known.keys().copied().filter(|netns| *netns != self.own);
        [self.own].into_iter().chain(others).collect()
    }

    /// Whether it was found, or looked for in vain.
    pub(super) fn knows(&self, netns: NetnsId) -> bool {
        self.known.contains_key(&netns)
    }

    /// Remembers where a namespace can be looked for, and who may name it.
    pub(super) fn note(&mut self, event: &Event) {
        let (netns, hint) = match *event {
            Event::Held { netns, by, fd, .. } => (netns, Hint { pid: by.pid, fd: Some(fd) }),
            Event::State { socket, by: Some(by), .. }
            | Event::Connecting { socket, by }
            | Event::Accepted { socket, by, .. } => (socket.netns, Hint { pid: by.pid, fd: None }),
            _ => return,
        };
        if self.settled.contains(&netns) {
            return;
        }
        // The table has no such process, or another of that number.
        if hint.pid.is_outside() {
            return;
        }
        let known = self.known.get(&netns);
        let is_open = known.is_some_and(|known| known.missing_since.is_none());
        if !is_open && (hint.fd.is_some() || !self.hints.contains_key(&netns)) {
            self.hints.insert(netns, hint);
        }
        if hint.fd.is_some() && self.host != Some(netns) && known.is_none_or(|known| known.wants_fd_owner()) {
            let fd_owners = self.fd_owners.entry(netns).or_default();
            if fd_owners.len() < SOCKET_OWNERS && !fd_owners.contains(&hint.pid) {
                fd_owners.push(hint.pid);
            }
        }
    }

    /// Looks for all namespaces again, and for those that were `named` without being found so far. Returns the processes
    /// whose namespace could not be read.
    pub(super) fn refresh(
        &mut self,
        resolver: &mut Resolver,
        named: impl Iterator<Item = NetnsId>,
        now: Instant,
    ) -> io::Result<Gap> {
        let found = namespaces::discover(&mut self.listed)?;
        self.were_looked_for = true;
        let hidden: Vec<NetnsId> =
            named.chain(self.known.keys().copied()).filter(|netns| !found.namespaces.contains_key(netns)).collect();
        for netns in hidden {
            if let Some(handle) = self.hidden(netns) {
                let hint = self.hints.get(&netns).map(|hint| hint.pid);
                let known = self.known.entry(netns).or_default();
                known.namer = hint.and_then(|pid| Namer::of(pid, true)).or(known.namer.take());
                known.member = hint.map(|pid| Member::of(pid, resolver)).or(known.member.take());
                known.handles = vec![handle];
                known.missing_since = None;
            } else if netns != self.own {
                self.known.entry(netns).or_default().missing_since.get_or_insert(now);
            }
        }
        for (netns, found) in found.namespaces {
            self.take_found(netns, found, resolver);
        }
        self.hints.clear();
        self.settle();
        Ok(found.unread)
    }

    fn settle(&mut self) {
        let Self { known, settled, host, .. } = self;
        settled.clear();
        let those = known.iter().filter(|(netns, known)| known.is_settled(*host == Some(**netns)));
        settled.extend(those.map(|(netns, _)| *netns));
    }

    /// Looks for what the own one is called, where no other is watched.
    pub(super) fn refresh_own(&mut self, resolver: &mut Resolver) -> io::Result<()> {
        match namespaces::discover(&mut self.listed) {
            Ok(mut found) => {
                let found_own = found.namespaces.remove(&self.own);
                // A process that named it may have been closed since, when observer gave up rights.
                let is_worse = |found_own: &FoundNamespace| found.unread.count > 0 && self.would_lose(found_own);
                if let Some(found_own) = found_own.filter(|found_own| !is_worse(found_own)) {
                    self.take_found(self.own, found_own, resolver);
                }
                self.hints.clear();
                self.settle();
            }
            Err(error) if errno::is_scarce(&error) => return Err(error),
            // It is watched all the same, and its name is its number.
            Err(error) => tracing::debug!(%error, "the name of the namespace is not known"),
        }
        Ok(())
    }

    /// Whether the process is not among these that names the own namespace.
    fn would_lose(&self, found: &FoundNamespace) -> bool {
        let known = self.known.get(&self.own);
        let by = known.and_then(|known| {
            let member = known.member.as_ref().map(|member| member.pid);
            member.or_else(|| known.namer.as_ref().map(|namer| namer.pid))
        });
        by.is_some_and(|pid| !found.processes.contains(&pid) && proc::of(pid).exists())
    }

    fn take_found(&mut self, netns: NetnsId, found: FoundNamespace, resolver: &mut Resolver) {
        let is_host = self.host == Some(netns);
        let member = if is_host { None } else { self.choose_member(netns, &found.processes, resolver) };
        let FoundNamespace { handles, mount_name, processes } = found;
        let identity = self.known.get(&netns).map(|known| known.identity).unwrap_or_default();
        let mut known = Known { mount_name, member, namer: None, handles, missing_since: None, identity };
        if !is_host && !known.is_named() {
            known.namer = self.choose_namer(netns, &processes);
        }
        self.known.insert(netns, Box::new(known));
    }

    /// The process whose service names a namespace stays the same while it is there, and is read a few times at most.
    fn choose_member(&mut self, netns: NetnsId, processes: &[Pid], resolver: &mut Resolver) -> Option<Member> {
        let before = self.known.get_mut(&netns).and_then(|known| known.member.take());
        match before.filter(|member| processes.contains(&member.pid)) {
            Some(member) => Some(member.read_again(resolver)),
            None => processes.first().map(|pid| Member::of(*pid, resolver)),
        }
    }

    /// The process that names a namespace stays the same while it is there: to ask all of them their age each time would
    /// cost more than all else that is done on an idle host.
    fn choose_namer(&self, netns: NetnsId, processes: &[Pid]) -> Option<Namer> {
        let before = self.known.get(&netns).and_then(|known| known.namer.as_ref());
        let before = before.filter(|namer| processes.contains(&namer.pid));
        let kept = before.and_then(|namer| Namer::of(namer.pid, namer.holds_sockets));
        if kept.as_ref().is_some_and(|namer| namer.holds_sockets) {
            return kept;
        }
        let fd_owners: Vec<Pid> = self.fd_owners_among(netns, |pid| processes.contains(&pid));
        let fd_owner =
            namespaces::oldest_naming(&fd_owners).map(|(pid, comm)| Namer { pid, comm, holds_sockets: true });
        fd_owner.or(kept).or_else(|| {
            namespaces::oldest_naming(processes).map(|(pid, comm)| Namer { pid, comm, holds_sockets: false })
        })
    }

    fn fd_owners_among(&self, netns: NetnsId, is_candidate: impl Fn(Pid) -> bool) -> Vec<Pid> {
        let fd_owners = self.fd_owners.get(&netns).into_iter().flatten().copied();
        fd_owners.filter(|pid| is_candidate(*pid)).collect()
    }

    /// Names namespaces by processes that were seen to hold their sockets; returns those that have another name now.
    pub(super) fn name_by_fd_owners(&mut self) -> Vec<NetnsId> {
        let mut renamed = Vec::new();
        for netns in self.fd_owners.keys().copied().collect::<Vec<_>>() {
            let is_open = |known: &Known| known.missing_since.is_none() && known.wants_fd_owner();
            if !self.known.get(&netns).is_some_and(|known| is_open(known)) {
                continue;
            }
            let fd_owners = self.fd_owners_among(netns, |pid| namespaces::has_process(netns, pid));
            if let Some((pid, comm)) = namespaces::oldest_naming(&fd_owners)
                && let Some(known) = self.known.get_mut(&netns)
            {
                known.namer = Some(Namer { pid, comm, holds_sockets: true });
                renamed.push(netns);
            }
        }
        self.fd_owners.clear();
        if !renamed.is_empty() {
            self.settle();
        }
        renamed
    }

    /// A namespace without a process or mount of its own: held by a thread, or by nothing but a socket.
    fn hidden(&self, netns: NetnsId) -> Option<Handle> {
        if let Some(Hint { pid, fd }) = self.hints.get(&netns) {
            if let Some(handle) = namespaces::of_thread(netns, *pid) {
                return Some(handle);
            }
            if let Some(fd) = fd {
                return Some(Handle::Socket { pid: *pid, fd: *fd });
            }
        }
        // A handle that is refused says that the namespace is there: it stays one that could not be entered.
        let is_there = |handle: &&Handle| {
            let entered = handle::enter(netns, std::slice::from_ref(*handle), || ());
            entered.is_ok() || entered.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        self.known.get(&netns)?.handles.iter().find(is_there).cloned()
    }

    /// Runs `work` inside a namespace; fails if it is gone or may not be entered.
    pub(super) fn enter<T: Send>(&self, netns: NetnsId, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if netns == self.own {
            return Ok(work());
        }
        let handles = self.known.get(&netns).map_or(&[][..], |known| &known.handles);
        handle::enter(netns, handles, work)
    }

    /// Runs `work` inside each of these, several at a time, and returns each result with its namespace.
    fn enter_each<C, T: Send>(
        &self,
        namespaces: &[NetnsId],
        begin: impl Fn(usize) -> C + Sync,
        work: impl Fn(&C, NetnsId) -> T + Sync,
    ) -> Vec<(NetnsId, io::Result<T>)> {
        let handles = |netns| self.known.get(netns).map_or(&[][..], |known| &known.handles);
        let (own, others): (Vec<NetnsId>, Vec<NetnsId>) = namespaces.iter().partition(|netns| **netns == self.own);
        let targets: Vec<Target<'_>> = others.iter().map(|netns| (*netns, handles(netns))).collect();
        let of_own: Vec<_> = own.into_iter().map(|netns| (netns, Ok(work(&begin(1), netns)))).collect();
        let of_others = others.iter().copied().zip(handle::enter_each(&targets, begin, work));
        of_own.into_iter().chain(of_others).collect()
    }

    /// The kernel's counts of the sockets in each of these.
    pub(super) fn totals_of_each(&self, namespaces: &[NetnsId]) -> Vec<(NetnsId, io::Result<Totals>)> {
        let totals = self.enter_each(namespaces, drop, |&(), _| netns::totals());
        totals.into_iter().map(|(netns, totals)| (netns, totals.flatten())).collect()
    }

    /// The same of one.
    pub(super) fn totals(&self, netns: NetnsId) -> io::Result<Totals> {
        self.enter(netns, netns::totals).flatten()
    }

    /// What each of these is now, as [`Self::read`].
    pub(super) fn read_each(
        &self,
        namespaces: &[NetnsId],
        devices: &BTreeMap<NetnsId, BTreeSet<u32>>,
    ) -> Vec<(NetnsId, io::Result<Reading>)> {
        let none = BTreeSet::new();
        let procfs = |namespaces| if namespaces < WORTH_A_MOUNT { Procfs::SHARED } else { Procfs::own() };
        let read = |procfs: &Procfs, netns| netns::read_in(procfs, devices.get(&netns).unwrap_or(&none));
        let read = self.enter_each(namespaces, procfs, read);
        read.into_iter().map(|(netns, reading)| (netns, reading.map(|reading| self.named(netns, reading)))).collect()
    }

    /// What a namespace is now, with its name and the devices of these indexes.
    pub(super) fn read(&self, netns: NetnsId, devices: &BTreeSet<u32>) -> io::Result<Reading> {
        self.enter(netns, || netns::read(devices)).map(|reading| self.named(netns, reading))
    }

    fn named(&self, netns: NetnsId, reading: Reading) -> Reading {
        Reading { namespace: self.with_name(netns, reading.namespace), ..reading }
    }

    /// With the name that the namespace has now.
    pub(super) fn with_name(&self, netns: NetnsId, reading: NamespaceReading) -> NamespaceReading {
        let is_host = self.host == Some(netns) || reading.is_initial();
        let name = if is_host { NamespaceName::Other(HOST.into()) } else { self.name(netns) };
        NamespaceReading { name, ..reading }
    }

    /// Takes note of which namespace was entered under this number. Returns whether another one was known until now.
    pub(super) fn is_replaced(&mut self, netns: NetnsId, identity: Identity) -> bool {
        let Some(known) = self.known.get_mut(&netns) else { return false };
        let is_another = identity.is_another(known.identity);
        known.identity = if is_another { identity } else { identity.or(known.identity) };
        if is_another {
            (known.mount_name, known.member, known.namer) = (None, None, None);
            self.settled.remove(&netns);
        }
        is_another
    }

    /// Whether this was read of the namespace that is known under this number.
    pub(super) fn is_same(&self, netns: NetnsId, identity: Identity) -> bool {
        self.known.get(&netns).is_some_and(|known| !identity.is_another(known.identity))
    }

    /// What a namespace is called.
    pub(super) fn name(&self, netns: NetnsId) -> NamespaceName {
        if self.host == Some(netns) {
            return NamespaceName::Other(HOST.into());
        }
        match self.known.get(&netns).map(|known| known.name()) {
            None | Some(NamespaceName::Unknown) => NamespaceName::Unknown,
            Some(NamespaceName::Other(name)) => NamespaceName::Other(unlike_host(&name, netns)),
            Some(NamespaceName::Workload(name)) => NamespaceName::Workload(unlike_host(&name, netns)),
        }
    }

    /// Takes out and returns those that are gone: without a handle, and empty by `is_empty` or without a handle for long.
    pub(super) fn take_gone(&mut self, now: Instant, is_empty: impl Fn(NetnsId) -> bool) -> Vec<NetnsId> {
        let is_gone = |netns: &NetnsId, known: &Known| {
            known.missing_since.is_some_and(|since| is_empty(*netns) || now - since > KEPT_WITHOUT_HANDLE)
        };
        self.known.extract_if(|netns, known| is_gone(netns, known)).map(|(netns, _)| netns).collect()
    }
}

#[cfg(test)]
mod tests;
