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
        handle::{self, Handle},
        namespaces::{self, FoundNamespace},
        netns::{self, Reading},
    },
    model::{
        event::Event,
        gaps::Gap,
        name::Name,
        units::{NetnsId, Pid},
    },
};

/// How long a namespace that cannot be found any more is kept for the sake of the sockets that were seen in it: longer
/// than the kernel keeps an orphaned one.
const KEPT_WITHOUT_HANDLE: Duration = Duration::from_mins(5);
/// Processes with sockets that are remembered of a namespace, to name it by one of them.
const SOCKET_OWNERS: usize = 4;
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
    namer: Option<Namer>,
    handles: Vec<Handle>,
    missing_since: Option<Instant>,
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
        self.mount_name.is_none() && self.namer.as_ref().is_none_or(|namer| !namer.holds_sockets)
    }

    fn name(&self) -> Option<&Name> {
        self.mount_name.as_ref().or(self.namer.as_ref().map(|namer| &namer.comm))
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
    pub(super) fn refresh(&mut self, named: impl Iterator<Item = NetnsId>, now: Instant) -> io::Result<Gap> {
        let found = namespaces::discover()?;
        let hidden: Vec<NetnsId> =
            named.chain(self.known.keys().copied()).filter(|netns| !found.namespaces.contains_key(netns)).collect();
        for netns in hidden {
            if let Some(handle) = self.hidden(netns) {
                let of_hint = self.hints.get(&netns).and_then(|hint| Namer::of(hint.pid, true));
                let known = self.known.entry(netns).or_default();
                known.namer = of_hint.or(known.namer.take());
                known.handles = vec![handle];
                known.missing_since = None;
            } else if netns != self.own {
                self.known.entry(netns).or_default().missing_since.get_or_insert(now);
            }
        }
        for (netns, found) in found.namespaces {
            self.take_found(netns, found);
        }
        self.hints.clear();
        Ok(found.unread)
    }

    /// Looks for what the own one is called, where no other is watched.
    pub(super) fn refresh_own(&mut self) -> io::Result<()> {
        match namespaces::discover() {
            Ok(mut found) => {
                if let Some(found) = found.namespaces.remove(&self.own) {
                    self.take_found(self.own, found);
                }
                self.hints.clear();
            }
            Err(error) if errno::is_scarce(&error) => return Err(error),
            // It is watched all the same, and its name is its number.
            Err(error) => tracing::debug!(%error, "the name of the namespace is not known"),
        }
        Ok(())
    }

    fn take_found(&mut self, netns: NetnsId, found: FoundNamespace) {
        let needs_namer = found.mount_name.is_none() && self.host != Some(netns);
        let namer = if needs_namer { self.choose_namer(netns, &found.processes) } else { None };
        let FoundNamespace { handles, mount_name, .. } = found;
        self.known.insert(netns, Known { mount_name, namer, handles, missing_since: None });
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
        reading.namespace.name = if is_host { Some(HOST.into()) } else { self.name(netns) };
        Ok(reading)
    }

    /// What a namespace is called.
    pub(super) fn name(&self, netns: NetnsId) -> Option<Name> {
        if self.host == Some(netns) {
            return Some(HOST.into());
        }
        self.known.get(&netns)?.name().map(|name| unlike_host(name, netns))
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

    #[test]
    fn only_the_namespace_of_the_host_is_called_host() {
        let (host, other, own) = (NetnsId(1), NetnsId(4_026_532_248), NetnsId(3));
        let called = |name: &str| Known { mount_name: Some(name.into()), ..Known::default() };
        let mut namespaces = Namespaces::new(own);
        namespaces.host = Some(host);
        namespaces.known.extend([(host, called("blue")), (other, called("host"))]);
        let name = |netns| namespaces.name(netns).unwrap().shown().to_string();
        assert_eq!((name(host), name(other)), ("host".to_owned(), "host (4026532248)".to_owned()));
        assert_eq!(&*unlike_host(&"host ".into(), other), "host (4026532248)", "blanks do not distinguish them");
        assert_eq!(&*unlike_host(&"hosts".into(), other), "hosts");
    }
}
