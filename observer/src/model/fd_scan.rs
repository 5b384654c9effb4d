//! Owners of sockets and listeners. Hooks that run in the owner's context set them; fd scans correct what fork(), passed
//! descriptors, io_uring and close() have changed.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{
    Model,
    gaps::ProcessScope,
    member::NOBODY,
    owner::{Owner, Unlike},
    socket::{Acceptance, Socket},
    units::{NetnsId, Process, SocketId, TcpState},
};

/// Whether what has this generation was seen since the other one began.
pub(super) const fn is_since(generation: u32, begin: u32) -> bool {
    generation.wrapping_sub(begin) <= u32::MAX / 2
}

impl Model {
    /// An fd scan begins.
    pub fn begin_fd_scan(&mut self, now: Duration) {
        self.fd_scan.began_at = now;
        self.fd_scan.number = self.fd_scan.number.wrapping_add(1);
        self.generation = self.generation.wrapping_add(1);
        self.fd_scan.generation = self.generation;
        self.fd_scan.unlike.clear();
        self.fd_scan.candidates.clear();
        self.fd_scan.others.clear();
    }

    /// The fd scan has shown every open socket. An owner that does not have its socket any more is replaced by the first
    /// process that does, or by nobody. Of processes outside the pid namespace that observer sees nothing is shown:
    /// they keep what events gave them.
    pub fn end_fd_scan(&mut self, now: Duration) {
        self.now = now;
        self.quality.last_fd_scan_at = Some(now);
        if self.basis.processes == ProcessScope::All {
            self.sweep_bound();
        }
        let candidates = std::mem::take(&mut self.fd_scan.candidates);
        let mut others = std::mem::take(&mut self.fd_scan.others);
        let fd_scan = self.fd_scan.number;
        for (_, listener) in self.listeners.iter_mut().filter(|(_, listener)| listener.seen_in_fd_scan != fd_scan) {
            listener.process = listener.process.filter(|process| process.pid.is_outside());
        }
        for (id, listener) in self.listeners.iter_mut() {
            listener.fd_owners = others.remove(&id).unwrap_or_default();
            // It began to listen during the scan, or its process is outside of what the scan shows.
            if let Some(process) = listener.process.filter(|it| listener.fd_owners.iter().all(|known| known != it)) {
                listener.fd_owners.insert(0, process);
            }
            listener.process = listener.process.or_else(|| listener.fd_owners.first().copied());
        }
        self.settle_listener_members(|_| false);
        for (id, process) in candidates {
            let Some(index) = self.sockets.find(id) else { continue };
            let socket = self.sockets.get(index);
            if socket.seen_in_fd_scan == fd_scan && socket.owner != Owner::UNKNOWN {
                others.entry(id).or_default().push(process);
                continue;
            }
            self.set_owner(index, process);
            let socket = self.sockets.get_mut(index);
            if socket.acceptance == Acceptance::Awaited {
                socket.acceptance = Acceptance::Unseen;
                self.quality.unseen_accepts += 1;
            }
        }
        self.co_owners = others;
        let Self { sockets, ledger, fd_scan: scan, .. } = self;
        for socket in sockets.iter_mut().filter(|socket| socket.seen_in_fd_scan != fd_scan) {
            if ledger.owners().process(socket.owner).is_some_and(|process| !process.pid.is_outside()) {
                if !is_since(socket.generation, scan.generation) {
                    let netns = ledger.endpoints().get(socket.endpoint).key.netns;
                    scan.unlike.entry(netns).or_default().is_missed = true;
                }
                let before = socket.contribution();
                socket.owner = Owner::UNKNOWN;
                if !ledger.members().is_cgroup(socket.member) {
                    socket.member = NOBODY;
                }
                ledger.apply(before, socket.contribution(), self.now);
            }
        }
        self.settle_waiting_members();
    }

    /// Returns the socket, if it is known and no listener.
    pub(super) fn on_fd_owner(&mut self, id: SocketId, by: Process) -> Option<u32> {
        let fd_scan = self.fd_scan.number;
        if let Some(listener) = self.listeners.get_mut(id) {
            if listener.process.is_some_and(|known| known.pid == by.pid) {
                listener.process = Some(by);
                listener.seen_in_fd_scan = fd_scan;
            }
            self.fd_scan.add_other(id, by);
            return None;
        }
        let index = self.sockets.find(id)?;
        let socket = self.sockets.get_mut(index);
        match self.ledger.owners().process(socket.owner) {
            Some(known) if known.pid == by.pid => {
                socket.seen_in_fd_scan = fd_scan;
                if known != by {
                    self.learn_name(by);
                }
            }
            // Nobody else is known to own it, and no accept hook will say: it need not wait for the end of the scan. At start that is
            // so for every socket.
            None if socket.owner == Owner::UNKNOWN
                && socket.acceptance == Acceptance::Settled
                && !self.fd_scan.candidates.contains_key(&id) =>
            {
                self.set_owner(index, by);
            }
            _ => match self.fd_scan.candidates.get(&id) {
                None => drop(self.fd_scan.candidates.insert(id, by)),
                Some(first) if first.pid == by.pid => {}
                Some(_) => self.fd_scan.add_other(id, by),
            },
        }
        Some(index)
    }

    /// Compares a socket that the fd scan has shown in this state, connected or connecting, with what is known of it.
    pub(super) fn compare_shown(&mut self, netns: NetnsId, index: Option<u32>, state: TcpState) {
        let generation = self.fd_scan.generation;
        let is_alike = index.is_some_and(|index| {
            let socket = self.sockets.get_mut(index);
            let is_there = self.ledger.endpoints().get(socket.endpoint).key.netns == netns;
            let is_known = is_there && socket.state == state;
            if is_known {
                socket.generation = self.generation;
            }
            // Else an event may have come between the look at the socket and its record.
            is_known || is_since(socket.generation, generation)
        });
        if !is_alike {
            self.fd_scan.unlike.entry(netns).or_default().is_other = true;
        }
    }

    /// How the model differs from what the last fd scan has shown, by namespace; one without a difference is absent. What events
    /// have touched since it began is left out.
    #[must_use]
    pub fn unlike_shown(&self) -> FxHashMap<NetnsId, Unlike> {
        let mut all = self.fd_scan.unlike.clone();
        for socket in self.sockets.iter().filter(|socket| !is_since(socket.generation, self.fd_scan.generation)) {
            let netns = self.ledger.endpoints().get(socket.endpoint).key.netns;
            all.entry(netns).or_default().hidden += 1;
        }
        all
    }

    /// What a process is called now: the same everywhere.
    pub(super) fn learn_name(&mut self, process: Process) {
        if self.ledger.rename(process) {
            self.spread_name(process);
        }
    }

    /// Owners of sockets have the new name already.
    fn spread_name(&mut self, process: Process) {
        for files in self.readings.host.processes.iter_mut().filter(|files| files.process.pid == process.pid) {
            files.process = process;
        }
        for (_, listener) in self.listeners.iter_mut() {
            for known in listener.process.iter_mut().chain(&mut listener.fd_owners) {
                if known.pid == process.pid {
                    *known = process;
                }
            }
        }
    }

    /// The owners of a socket beside its first one, as the last fd scan has found them.
    pub(super) fn co_fd_owners(&self, id: SocketId, owner: Owner) -> impl Iterator<Item = Process> + '_ {
        let owner = self.ledger.owners().process(owner).map(|owner| owner.pid);
        let all = self.co_owners.get(&id).map_or(&[][..], Vec::as_slice);
        all.iter().copied().filter(move |process| Some(process.pid) != owner)
    }

    /// A hook has shown that `process` has the socket from connect() or accept().
    pub(super) fn accepted(&mut self, index: u32, process: Process) {
        let acceptance = std::mem::replace(&mut self.sockets.get_mut(index).acceptance, Acceptance::Settled);
        // At the exit of the system call the descriptor is already there for an fd scan to find: the accept was not missed.
        self.quality.unseen_accepts -= u64::from(acceptance == Acceptance::Unseen);
        self.set_owner(index, process);
    }

    /// The socket belongs to `process` from now on.
    pub(super) fn set_owner(&mut self, index: u32, process: Process) {
        let (Socket { endpoint, member: known, .. }, fd_scan) = (*self.sockets.get(index), self.fd_scan.number);
        let owner = self.owner_of(endpoint, process);
        let member = if self.ledger.members().is_cgroup(known) { known } else { self.member_of_process(Some(process)) };
        self.change_socket(index, |socket| {
            (socket.owner, socket.seen_in_fd_scan, socket.member) = (owner, fd_scan, member);
        });
    }

    /// The owner that stands for a process, for the next socket of an endpoint.
    pub(super) fn owner_of(&mut self, endpoint: u32, process: Process) -> Owner {
        let (owner, is_renamed) = self.ledger.owner(process);
        if is_renamed {
            self.spread_name(process);
        }
        self.ledger.set_last_process(endpoint, process, self.now);
        owner
    }

    /// The socket's last descriptor was closed.
    pub(super) fn set_orphan(&mut self, id: SocketId) {
        let Some(index) = self.sockets.find(id) else { return };
        self.change_socket(index, |socket| socket.owner = Owner::ORPHAN);
    }
}
