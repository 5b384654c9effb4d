//! The network namespaces that are watched: found, entered, read, and forgotten.

use std::{
    io,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::{
    host::{
        namespaces::{self, Door, Namespace},
        netns,
    },
    model::{
        event::Event,
        namespace::NamespaceReading,
        units::{NetnsId, Pid},
    },
};

/// How long a namespace that cannot be found any more is kept for the sake of the sockets that were seen in it: longer
/// than the kernel keeps an orphaned one.
const KEPT_WITHOUT_DOOR: Duration = Duration::from_mins(5);

/// The namespaces that are known.
pub(super) struct Namespaces {
    own: NetnsId,
    known: FxHashMap<NetnsId, Known>,
    /// Processes that hold a socket in a namespace or acted on one: where to look for its door.
    hints: FxHashMap<NetnsId, Hint>,
}

struct Known {
    name: Option<String>,
    door: Option<Door>,
    missing_since: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Hint {
    pid: Pid,
    fd: Option<u32>,
}

impl Namespaces {
    /// Knows the namespace of the calling thread.
    pub(super) fn new(own: NetnsId) -> Self {
        let here = Known { name: None, door: None, missing_since: None };
        Self { own, known: [(own, here)].into_iter().collect(), hints: FxHashMap::default() }
    }

    /// All of them, the own one first.
    pub(super) fn ids(&self) -> Vec<NetnsId> {
        let others = self.known.keys().copied().filter(|netns| *netns != self.own);
        [self.own].into_iter().chain(others).collect()
    }

    /// Remembers where a namespace can be looked for.
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
        let is_open = self.known.get(&netns).is_some_and(|known| known.missing_since.is_none());
        if !is_open && (hint.fd.is_some() || !self.hints.contains_key(&netns)) {
            self.hints.insert(netns, hint);
        }
    }

    /// Looks for all namespaces anew, and for those that were `named` without being found so far.
    pub(super) fn refresh(&mut self, named: impl Iterator<Item = NetnsId>, now: Instant) -> io::Result<()> {
        let doors = self.known.iter().filter_map(|(netns, known)| Some((*netns, known.door.as_ref()?)));
        let mut found = namespaces::discover(doors)?;
        let hidden: Vec<NetnsId> =
            named.chain(self.known.keys().copied()).filter(|netns| !found.contains_key(netns)).collect();
        for netns in hidden {
            if let Some(namespace) = self.hidden(netns) {
                found.insert(netns, namespace);
            } else if netns != self.own {
                let known = self.known.entry(netns).or_insert(Known { name: None, door: None, missing_since: None });
                known.missing_since.get_or_insert(now);
            }
        }
        for (netns, Namespace { name, door }) in found {
            self.known.insert(netns, Known { name, door: Some(door), missing_since: None });
        }
        self.hints.clear();
        Ok(())
    }

    /// A namespace without a process or mount of its own: held by a thread, or by nothing but a socket.
    fn hidden(&self, netns: NetnsId) -> Option<Namespace> {
        if let Some(Hint { pid, fd }) = self.hints.get(&netns) {
            if let Some(namespace) = namespaces::of_thread(netns, *pid) {
                return Some(namespace);
            }
            if let Some(fd) = fd {
                return Some(namespaces::of_socket(*pid, *fd));
            }
        }
        let known = self.known.get(&netns)?;
        let door = known.door.clone()?;
        namespaces::enter(netns, &door, || ()).ok()?;
        Some(Namespace { name: known.name.clone(), door })
    }

    /// Runs `work` inside a namespace; fails if it is gone.
    pub(super) fn enter<T: Send>(&self, netns: NetnsId, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if netns == self.own {
            return Ok(work());
        }
        let door = self.known.get(&netns).and_then(|known| known.door.as_ref());
        namespaces::enter(netns, door.ok_or(io::ErrorKind::NotFound)?, work)
    }

    /// What a namespace is now; of one that cannot be entered only its name.
    pub(super) fn read(&self, netns: NetnsId) -> NamespaceReading {
        let name = self.known.get(&netns).and_then(|known| known.name.clone());
        let reading = self.enter(netns, netns::read).unwrap_or_default();
        // A process names itself: what it is called must not reach into a terminal.
        let safe = |name: String| name.replace(char::is_control, "?").into();
        NamespaceReading { name: name.map(safe), ..reading }
    }

    /// Takes out and returns those that are gone: without a door, and empty by `is_empty` or without a door for long.
    pub(super) fn take_gone(&mut self, now: Instant, is_empty: impl Fn(NetnsId) -> bool) -> Vec<NetnsId> {
        let is_gone = |netns: &NetnsId, known: &Known| {
            known.missing_since.is_some_and(|since| is_empty(*netns) || now - since > KEPT_WITHOUT_DOOR)
        };
        let gone: Vec<NetnsId> =
            self.known.iter().filter(|(netns, known)| is_gone(netns, known)).map(|(netns, _)| *netns).collect();
        for netns in &gone {
            self.known.remove(netns);
        }
        gone
    }
}
