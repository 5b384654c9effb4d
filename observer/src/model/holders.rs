//! Owners of sockets and listeners: set by hooks that run in the owner's context, kept true by passes over all open
//! files, which see what fork(), passed descriptors, io_uring and close() have changed.

use super::{
    Model,
    owner::Owner,
    socket::Acceptance,
    units::{Process, SocketId},
};

impl Model {
    /// A pass over all open files begins.
    pub fn begin_holders(&mut self) {
        self.holder_pass.number = self.holder_pass.number.wrapping_add(1);
        self.holder_pass.candidates.clear();
    }

    /// The pass has shown every open socket. An owner that does not hold its socket any more is replaced by the first
    /// process that does, or by nobody.
    pub fn end_holders(&mut self) {
        let candidates = std::mem::take(&mut self.holder_pass.candidates);
        let pass = self.holder_pass.number;
        for (id, process) in candidates {
            if let Some(listener) = self.listeners.get_mut(id) {
                if listener.held_in_pass != pass || listener.process.is_none() {
                    listener.process = Some(process);
                    listener.held_in_pass = pass;
                }
            } else if let Some(index) = self.sockets.find(id) {
                let socket = self.sockets.get(index);
                if socket.held_in_pass != pass || socket.owner == Owner::UNKNOWN {
                    self.set_owner(index, process);
                    let socket = self.sockets.get_mut(index);
                    if socket.acceptance == Acceptance::Awaited {
                        socket.acceptance = Acceptance::Unseen;
                        self.trust.unseen_accepts += 1;
                    }
                }
            }
        }
        for listener in self.listeners.iter_mut().filter(|listener| listener.held_in_pass != pass) {
            listener.process = None;
        }
        let Self { sockets, owners, .. } = self;
        for socket in sockets.iter_mut().filter(|socket| socket.held_in_pass != pass) {
            if owners.process(socket.owner).is_some() {
                owners.release(socket.endpoint, socket.owner);
                socket.owner = Owner::UNKNOWN;
            }
        }
    }

    pub(super) fn on_held(&mut self, id: SocketId, by: Process) {
        let pass = self.holder_pass.number;
        if let Some(listener) = self.listeners.get_mut(id) {
            if listener.process.is_some_and(|known| known.pid == by.pid) {
                listener.held_in_pass = pass;
                return;
            }
        } else if let Some(index) = self.sockets.find(id) {
            let socket = self.sockets.get_mut(index);
            if self.owners.process(socket.owner).is_some_and(|known| known.pid == by.pid) {
                socket.held_in_pass = pass;
                return;
            }
        } else {
            return;
        }
        self.holder_pass.candidates.entry(id).or_insert(by);
    }

    /// A hook has told that `process` has the socket from connect() or accept().
    pub(super) fn accepted(&mut self, index: u32, process: Process) {
        let acceptance = std::mem::replace(&mut self.sockets.get_mut(index).acceptance, Acceptance::Settled);
        // At the exit of the system call the descriptor is already there for a pass to find: it was not unseen.
        self.trust.unseen_accepts -= u64::from(acceptance == Acceptance::Unseen);
        self.set_owner(index, process);
    }

    /// The socket belongs to `process` from now on.
    pub(super) fn set_owner(&mut self, index: u32, process: Process) {
        let socket = self.sockets.get_mut(index);
        socket.held_in_pass = self.holder_pass.number;
        let before = socket.owner;
        let owner = self.owners.take(socket.endpoint, process);
        self.owners.release(socket.endpoint, before);
        socket.owner = owner;
        let endpoint = socket.endpoint;
        self.endpoints.touch(endpoint, self.now).process = Some(process);
    }

    /// The socket's last descriptor was closed.
    pub(super) fn set_orphan(&mut self, id: SocketId) {
        let Some(index) = self.sockets.find(id) else { return };
        let socket = self.sockets.get_mut(index);
        if socket.owner != Owner::ORPHAN {
            let before = std::mem::replace(&mut socket.owner, self.owners.take_orphan(socket.endpoint));
            self.owners.release(socket.endpoint, before);
        }
    }
}
