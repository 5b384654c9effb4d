//! Sockets that are bound, and neither connected nor listening. Their ports are kept from every connect().

use rustc_hash::FxHashMap;

use super::{
    Model,
    device::Device,
    units::{NetnsId, SocketId},
};

/// A bound socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) netns: NetnsId,
    pub(super) port: u16,
    pub(super) device: Device,
    /// The last pass over open files that saw it held.
    held_in_pass: u8,
}

/// All of them: found by passes over open files, for bind() is not watched, and left behind by connections and listeners
/// whose port was bound by name.
#[derive(Default)]
pub(super) struct BoundTable(FxHashMap<SocketId, Bound>);

impl BoundTable {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Bound> {
        self.0.values()
    }
}

impl Model {
    /// The socket is bound to `port` and nothing more.
    pub(super) fn bind(&mut self, id: SocketId, netns: NetnsId, device: Device, port: u16) {
        let bound = Bound { netns, port, device, held_in_pass: self.holder_pass.number };
        self.note_device(netns, device);
        match self.bound.0.insert(id, bound) {
            Some(before) if (before.netns, before.port, before.device) == (netns, port, device) => {}
            before => {
                self.hold_port(netns, device, port);
                if let Some(before) = before {
                    self.release_port(before.netns, before.device, before.port);
                }
            }
        }
    }

    /// The socket is not bound any more, or more than that.
    pub(super) fn unbind(&mut self, id: SocketId) {
        if let Some(bound) = self.bound.0.remove(&id) {
            self.release_port(bound.netns, bound.device, bound.port);
        }
    }

    /// A pass over all open files has shown every bound socket.
    pub(super) fn sweep_bound(&mut self) {
        let pass = self.holder_pass.number;
        self.unbind_all(|bound| bound.held_in_pass != pass);
    }

    pub(super) fn unbind_all(&mut self, is_gone: impl Fn(&Bound) -> bool) {
        let gone: Vec<SocketId> = self.bound.0.iter().filter(|(_, bound)| is_gone(bound)).map(|(id, _)| *id).collect();
        for id in gone {
            self.unbind(id);
        }
    }
}
