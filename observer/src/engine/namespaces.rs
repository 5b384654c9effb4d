//! The network namespaces that are watched: found, named, entered, read, and forgotten.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::{
    errno,
    host::{
        cgroup::Resolver,
        handle::{self, Handle},
        namespaces::{self, FoundNamespace},
        netns::{self, Reading},
    },
    model::{
        event::Event,
        gaps::Gap,
        name::Name,
        namespace::NamespaceName,
        service::Service,
        units::{NetnsId, Pid},
    },
};

/// How long a namespace that cannot be found any more is kept for the sake of the sockets that were seen in it: longer
/// than the kernel keeps an orphaned one.
const KEPT_WITHOUT_HANDLE: Duration = Duration::from_mins(5);
/// Processes with sockets that are remembered of a namespace, to name it by one of them.
const SOCKET_OWNERS: usize = 4;
/// How often the service of a namespace's process is read: files that name it come a moment after the process.
const MOST_READS: u8 = 4;
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
    known: FxHashMap<NetnsId, Known>,
    /// Processes that hold a socket in a namespace or acted on one: where to look for a handle.
    hints: FxHashMap<NetnsId, Hint>,
    /// Processes that hold sockets of namespaces that are not named by such a process yet.
    fd_owners: FxHashMap<NetnsId, Vec<Pid>>,
}

#[derive(Default)]
struct Known {
    mount_name: Option<Name>,
    member: Option<Member>,
    namer: Option<Namer>,
    handles: Vec<Handle>,
    missing_since: Option<Instant>,
}

/// A process whose service may name the namespace.
struct Member {
    pid: Pid,
    service: Option<Service>,
    reads: u8,
}

impl Member {
    fn of(pid: Pid, resolver: &mut Resolver) -> Self {
        Self { pid, service: resolver.of_process(pid), reads: 1 }
    }

    /// Reads the service again where a better name may have come.
    fn read_again(mut self, resolver: &mut Resolver) -> Self {
        let has_name = self.service.as_ref().is_some_and(|service| match service {
            Service { pod: Some(pod), .. } => pod.name.is_some(),
            Service { container: Some(container), .. } => container.name.is_some(),
            Service { machine, .. } => machine.is_some(),
        });
        if !has_name && self.reads < MOST_READS {
            self.service = resolver.of_process(self.pid).or(self.service);
            self.reads += 1;
        }
        self
    }
}

/// The process that a namespace is named by.
struct Namer {
    pid: Pid,
    comm: Name,
    holds_sockets: bool,
}

impl Namer {
    fn of(pid: Pid, holds_sockets: bool) -> Option<Self> {
        Some(Self { pid, comm: namespaces::naming_comm(pid)?, holds_sockets })
    }
}

#[derive(Clone, Copy)]
struct Hint {
    pid: Pid,
    fd: Option<u32>,
}

impl Known {
    /// A process that holds sockets of it would give it a better name.
    fn wants_fd_owner(&self) -> bool {
        !self.is_named() && self.namer.as_ref().is_none_or(|namer| !namer.holds_sockets)
    }

    fn by_service(&self) -> Option<(Name, bool)> {
        self.member.as_ref()?.service.as_ref()?.namespace_name()
    }

    /// Whether it has a name without that of a process.
    fn is_named(&self) -> bool {
        self.mount_name.is_some() || self.by_service().is_some()
    }

    fn name(&self) -> NamespaceName {
        match (self.by_service(), &self.mount_name) {
            (Some((name, true)), _) => NamespaceName::Workload(name),
            (_, Some(name)) => NamespaceName::Other(name.clone()),
            (Some((name, false)), None) => NamespaceName::Other(name),
            (None, None) => {
                self.namer.as_ref().map_or(NamespaceName::Unknown, |namer| NamespaceName::Other(namer.comm.clone()))
            }
        }
    }
}

impl Namespaces {
    /// Knows the namespace of the calling thread.
    pub(super) fn new(own: NetnsId) -> Self {
        Self {
            own,
            host: namespaces::of_host(),
            known: [(own, Known::default())].into_iter().collect(),
            hints: FxHashMap::default(),
            fd_owners: FxHashMap::default(),
        }
    }

    /// All of them, the own one first.
    pub(super) fn ids(&self) -> Vec<NetnsId> {
        let others = self.known.keys().copied().filter(|netns| *netns != self.own);
        [self.own].into_iter().chain(others).collect()
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
        // The table has no such process, or another of that number.
        if hint.pid.is_outside() {
            return;
        }
        let known = self.known.get(&netns);
        let is_open = known.is_some_and(|known| known.missing_since.is_none());
        if !is_open && (hint.fd.is_some() || !self.hints.contains_key(&netns)) {
            self.hints.insert(netns, hint);
        }
        if hint.fd.is_some() && self.host != Some(netns) && known.is_none_or(Known::wants_fd_owner) {
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
        let found = namespaces::discover()?;
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
        Ok(found.unread)
    }

    /// Looks for what the own one is called, where no other is watched.
    pub(super) fn refresh_own(&mut self, resolver: &mut Resolver) -> io::Result<()> {
        match namespaces::discover() {
            Ok(mut found) => {
                if let Some(found) = found.namespaces.remove(&self.own) {
                    self.take_found(self.own, found, resolver);
                }
                self.hints.clear();
            }
            Err(error) if errno::is_scarce(&error) => return Err(error),
            // It is watched all the same, and its name is its number.
            Err(error) => tracing::debug!(%error, "the name of the namespace is not known"),
        }
        Ok(())
    }

    fn take_found(&mut self, netns: NetnsId, found: FoundNamespace, resolver: &mut Resolver) {
        let is_host = self.host == Some(netns);
        let member = if is_host { None } else { self.choose_member(netns, &found.processes, resolver) };
        let FoundNamespace { handles, mount_name, processes } = found;
        let mut known = Known { mount_name, member, namer: None, handles, missing_since: None };
        if !is_host && !known.is_named() {
            known.namer = self.choose_namer(netns, &processes);
        }
        self.known.insert(netns, known);
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
            if !self.known.get(&netns).is_some_and(is_open) {
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
        let mut handles = self.known.get(&netns)?.handles.iter();
        handles.find(|handle| handle::enter(netns, std::slice::from_ref(*handle), || ()).is_ok()).cloned()
    }

    /// Runs `work` inside a namespace; fails if it is gone or may not be entered.
    pub(super) fn enter<T: Send>(&self, netns: NetnsId, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if netns == self.own {
            return Ok(work());
        }
        let handles = self.known.get(&netns).map_or(&[][..], |known| &known.handles);
        handle::enter(netns, handles, work)
    }

    /// What a namespace is now, with its name and the devices of these indexes.
    pub(super) fn read(&self, netns: NetnsId, devices: &BTreeSet<u32>) -> io::Result<Reading> {
        let mut reading = self.enter(netns, || netns::read(devices))?;
        let is_host = self.host == Some(netns) || reading.namespace.is_initial();
        reading.namespace.name = if is_host { NamespaceName::Other(HOST.into()) } else { self.name(netns) };
        Ok(reading)
    }

    /// What a namespace is called.
    pub(super) fn name(&self, netns: NetnsId) -> NamespaceName {
        if self.host == Some(netns) {
            return NamespaceName::Other(HOST.into());
        }
        match self.known.get(&netns).map(Known::name) {
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
        let gone: Vec<NetnsId> =
            self.known.iter().filter(|(netns, known)| is_gone(netns, known)).map(|(netns, _)| *netns).collect();
        for netns in &gone {
            self.known.remove(netns);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::Container;

    #[test]
    fn a_container_names_its_namespace_before_ip_netns_does_and_a_unit_after_it() {
        let member = |service| Some(Member { pid: Pid(1), service: Some(service), reads: 1 });
        let unit = Service { unit: Some("nginx.service".into()), ..Service::default() };
        let container = Container { id: "front".into(), name: None, runtime: None };
        let container = Service { container: Some(container), ..Service::default() };
        let namer = || Some(Namer { pid: Pid(1), comm: "nginx".into(), holds_sockets: true });
        for (service, mount_name, expected) in [
            (Some(&container), Some("blue"), "front"),
            (Some(&unit), Some("blue"), "blue"),
            (Some(&unit), None, "nginx.service"),
            (None, Some("blue"), "blue"),
            (None, None, "nginx"),
        ] {
            let member = service.and_then(|service| member(service.clone()));
            let known = Known { mount_name: mount_name.map(Name::from), member, namer: namer(), ..Known::default() };
            assert_eq!(known.name().name().map(|name| &**name), Some(expected));
        }
    }

    #[test]
    fn a_service_is_read_a_few_times_and_not_each_second() {
        let own = Pid(std::process::id());
        let (mut namespaces, mut resolver) = (Namespaces::new(NetnsId(1)), Resolver::new());
        let mut reads = || {
            let member = namespaces.choose_member(NetnsId(2), &[own, Pid(1)], &mut resolver).unwrap();
            assert_eq!(member.pid, own);
            let reads = member.reads;
            namespaces.known.entry(NetnsId(2)).or_default().member = Some(member);
            reads
        };
        assert_eq!((0..9).map(|_| reads()).max(), Some(MOST_READS));
        let gone = namespaces.choose_member(NetnsId(2), &[Pid(1)], &mut resolver).unwrap();
        assert_eq!((gone.pid, gone.reads), (Pid(1), 1));
    }

    #[test]
    fn only_the_namespace_of_the_host_is_called_host() {
        let (host, other, own) = (NetnsId(1), NetnsId(4_026_532_248), NetnsId(3));
        let called = |name: &str| Known { mount_name: Some(name.into()), ..Known::default() };
        let mut namespaces = Namespaces::new(own);
        namespaces.host = Some(host);
        namespaces.known.extend([(host, called("blue")), (other, called("host"))]);
        let name = |netns| namespaces.name(netns).name().unwrap().shown().to_string();
        assert_eq!((name(host), name(other)), ("host".to_owned(), "host (4026532248)".to_owned()));
        assert_eq!(&*unlike_host(&"host ".into(), other), "host (4026532248)", "blanks do not distinguish them");
        assert_eq!(&*unlike_host(&"hosts".into(), other), "hosts");
    }
}
