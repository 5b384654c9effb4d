//! Which process owns a socket: hooks that run in its context say so, and fd scans correct it.

use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use slab::Slab;

use super::{
    index::{NO_ROW, narrow},
    member::NOBODY,
    units::{NetnsId, Pid, Process, SocketId},
};

/// The owner of a socket, in the four bytes that a socket has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner(u32);

impl Owner {
    /// Not known, or not accepted yet.
    pub(super) const UNKNOWN: Self = Self(u32::MAX);
    /// Its last descriptor was closed; the kernel finishes it alone.
    pub(super) const ORPHAN: Self = Self(u32::MAX - 1);

    fn row(self) -> Option<usize> {
        (self != Self::UNKNOWN && self != Self::ORPHAN).then_some(self.0 as usize)
    }
}

#[derive(Clone)]
struct Entry {
    process: Process,
    sockets: u32,
    /// The row of members that the last socket it got counts with; [`NO_ROW`] for none.
    last_member: u32,
}

/// Owners, with how many sockets of each endpoint they own.
#[derive(Clone, Default)]
pub(super) struct OwnerTable {
    processes: Slab<Entry>,
    by_pid: FxHashMap<Pid, u32>,
    by_endpoint: FxHashMap<(u32, Owner), u32>,
}

impl OwnerTable {
    /// The owner that stands for `process`, and whether it was called otherwise until now: execve() changes the name and keeps
    /// the id.
    pub(super) fn owner(&mut self, process: Process) -> (Owner, bool) {
        let processes = &mut self.processes;
        let row = *self
            .by_pid
            .entry(process.pid)
            .or_insert_with(|| narrow(processes.insert(Entry { process, sockets: 0, last_member: NO_ROW })));
        let known = &mut self.processes[row as usize];
        if known.sockets == 0 {
            // As good as forgotten: another process may have its number by now.
            *known = Entry { process, sockets: 0, last_member: NO_ROW };
        }
        (Owner(row), std::mem::replace(&mut known.process, process) != process)
    }

    /// Takes note of what a process is called now; whether it was called otherwise.
    pub(super) fn rename(&mut self, process: Process) -> bool {
        let Some(row) = self.by_pid.get(&process.pid) else { return false };
        let known = &mut self.processes[*row as usize];
        known.sockets > 0 && std::mem::replace(&mut known.process, process) != process
    }

    /// One more socket of `endpoint` belongs to `owner`.
    pub(super) fn add(&mut self, endpoint: u32, owner: Owner, member: u32) {
        if owner == Owner::UNKNOWN {
            return;
        }
        *self.by_endpoint.entry((endpoint, owner)).or_default() += 1;
        if let Some(row) = owner.row() {
            let entry = &mut self.processes[row];
            entry.sockets += 1;
            if member != NO_ROW && member != NOBODY {
                entry.last_member = member;
            }
        }
    }

    /// A socket of `endpoint` belongs to `owner` no longer. Most get another soon: [`Self::tick`] forgets those that do not.
    pub(super) fn remove(&mut self, endpoint: u32, owner: Owner) {
        if owner == Owner::UNKNOWN {
            return;
        }
        if let Some(count) = self.by_endpoint.get_mut(&(endpoint, owner)) {
            *count -= 1;
        }
        if let Some(row) = owner.row() {
            self.processes[row].sockets -= 1;
        }
    }

    /// Once a second: forgets what has no sockets.
    pub(super) fn tick(&mut self) {
        self.by_endpoint.retain(|_, count| *count > 0);
        let by_pid = &mut self.by_pid;
        self.processes.retain(|_, entry| {
            if entry.sockets == 0 {
                by_pid.remove(&entry.process.pid);
            }
            entry.sockets > 0
        });
    }

    /// Takes all sockets from all owners.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        self.by_endpoint.clear();
        self.processes.iter_mut().for_each(|(_, entry)| entry.sockets = 0);
    }

    /// All counts as text.
    #[cfg(test)]
    pub(super) fn totals(&self) -> Vec<String> {
        let of_processes = self.processes().map(|(process, sockets)| format!("process {process:?}: {sockets}"));
        let by_endpoint = self.by_endpoint.iter().filter(|(_, count)| **count > 0).map(|it| format!("owner {it:?}"));
        of_processes.chain(by_endpoint).collect()
    }

    /// The process, if the owner is one.
    pub(super) fn process(&self, owner: Owner) -> Option<Process> {
        Some(self.processes.get(owner.row()?)?.process)
    }

    /// The row of members that the process's last socket counts with.
    pub(super) fn last_member(&self, pid: Pid) -> Option<u32> {
        let entry = self.processes.get(*self.by_pid.get(&pid)? as usize).filter(|entry| entry.sockets > 0)?;
        Some(entry.last_member).filter(|member| *member != NO_ROW)
    }

    /// These rows of members are gone.
    pub(super) fn forget_members(&mut self, gone: &[u32]) {
        let gone: FxHashSet<u32> = gone.iter().copied().collect();
        for (_, entry) in &mut self.processes {
            if gone.contains(&entry.last_member) {
                entry.last_member = NO_ROW;
            }
        }
    }

    /// Every process that owns sockets, and how many.
    pub(super) fn processes(&self) -> impl Iterator<Item = (Process, u32)> + '_ {
        self.processes.iter().map(|(_, entry)| (entry.process, entry.sockets)).filter(|(_, sockets)| *sockets > 0)
    }

    /// Every endpoint with an owner and how many of its sockets that owner has; `None` stands for orphans.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Option<Process>, u32)> + '_ {
        let known = self.by_endpoint.iter().filter(|(_, count)| **count > 0);
        known.map(|((endpoint, owner), count)| (*endpoint, self.process(*owner), *count))
    }
}

/// How the full sockets of a namespace, listeners apart, differ from what an fd scan has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unlike {
    /// It has shown one that is not known, or in another state.
    pub is_other: bool,
    /// It has not shown one that a process was known to own.
    pub is_missed: bool,
    /// So many that are known it has not shown.
    pub hidden: u32,
}

/// What a running fd scan has found so far.
#[derive(Default)]
pub(super) struct FdScan {
    /// Its number, wrapped: stamped on each socket and listener whose owner it has seen.
    pub(super) number: u8,
    /// When it began.
    pub(super) began_at: Duration,
    /// What it shows as the model has it, and what events touch meanwhile, has this generation or a later one.
    pub(super) generation: u32,
    /// How the model differs from what it shows, without an event meanwhile. Hidden sockets are counted when that is asked for.
    pub(super) unlike: FxHashMap<NetnsId, Unlike>,
    /// Owners other than the known owner, the first of each: they become the owner if that is not seen too.
    pub(super) candidates: FxHashMap<SocketId, Process>,
    /// The owners beside the owner and the first candidate, and all owners of listeners.
    pub(super) others: FxHashMap<SocketId, Vec<Process>>,
}

impl FdScan {
    /// As many owners of one socket are remembered.
    const MOST: usize = 64;

    /// One more owner of a socket.
    pub(super) fn add_other(&mut self, id: SocketId, by: Process) {
        let others = self.others.entry(id).or_default();
        // A process may have several descriptors of a socket.
        if others.len() < Self::MOST && others.iter().all(|known| known.pid != by.pid) {
            others.push(by);
        }
    }
}
