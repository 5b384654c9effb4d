//! Owners of sockets by /proc: in a pid namespace of its own, an iterator over open files shows only the processes of that.
//! Where the host's /proc is at hand, the others are found there, by the inodes that a scan has shown.

use rustc_hash::FxHashMap;

use crate::{
    host::open_sockets,
    model::{
        event::Event,
        units::{NetnsId, Process, SocketId},
    },
};

/// The sockets that the last scan of each namespace found, with their inodes.
#[derive(Default)]
pub(super) struct Walk {
    scanned: FxHashMap<NetnsId, Vec<(u64, SocketId)>>,
}

impl Walk {
    /// A scan of a namespace begins.
    pub(super) fn begin(&mut self, netns: NetnsId) {
        self.scanned.remove(&netns);
    }

    /// Remembers the inode of a socket.
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Inode { id, netns, inode } = *event {
            self.scanned.entry(netns).or_default().push((inode, id));
        }
    }

    /// Forgets the namespaces that are gone.
    pub(super) fn keep(&mut self, is_known: impl Fn(NetnsId) -> bool) {
        self.scanned.retain(|netns, _| is_known(*netns));
    }

    /// Everybody who holds one of the sockets.
    pub(super) fn fd_owners(&self) -> Vec<(SocketId, NetnsId, Process, u32)> {
        // Subflows of one MPTCP socket share its inode.
        let mut by_inode = FxHashMap::<u64, Vec<(SocketId, NetnsId)>>::default();
        for (netns, sockets) in &self.scanned {
            for (inode, id) in sockets {
                by_inode.entry(*inode).or_default().push((*id, *netns));
            }
        }
        let mut found = Vec::new();
        open_sockets::sockets(|open| {
            let sockets = by_inode.get(&open.inode).into_iter().flatten();
            found.extend(sockets.map(|(id, netns)| (*id, *netns, open.by, open.fd)));
        });
        found
    }
}
