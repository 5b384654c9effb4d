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

/// The sockets of a round of scans by their inodes. Subflows of one MPTCP socket share its inode.
#[derive(Default)]
pub(super) struct Walk {
    by_inode: FxHashMap<u64, Vec<(SocketId, NetnsId)>>,
}

impl Walk {
    /// A round of scans begins.
    pub(super) fn begin(&mut self) {
        self.by_inode.clear();
    }

    /// Remembers the inode of a socket.
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Inode { id, netns, inode } = *event {
            self.by_inode.entry(inode).or_default().push((id, netns));
        }
    }

    /// Everybody who holds one of the sockets.
    pub(super) fn fd_owners(&self) -> Vec<(SocketId, NetnsId, Process, u32)> {
        let mut found = Vec::new();
        open_sockets::sockets(|open| {
            let sockets = self.by_inode.get(&open.inode).into_iter().flatten();
            found.extend(sockets.map(|(id, netns)| (*id, *netns, open.by, open.fd)));
        });
        found
    }
}
