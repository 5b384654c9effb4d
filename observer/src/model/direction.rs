//! Which end called connect(): known from the first event. Where that was missed or came before the start, the binding
//! shows it.

use super::{
    Model,
    address::Direction,
    device::Device,
    event::{Binding, Identity},
    key_of,
};

impl Model {
    /// Which end called connect(), for a socket whose first event was missed.
    pub(super) fn direction_of(&self, socket: &Identity, binding: Binding) -> Direction {
        let local_port = socket.tuple.local_port;
        // An accepted socket never has a port lock of its own, and its bucket is its listener's: explicit.
        if binding.port_locked || binding.connect_bound || binding.explicit_bucket == Some(false) {
            return Direction::Outbound;
        }
        if self.is_covered(socket) {
            return Direction::Inbound;
        }
        // The listener may be gone, or the client may have called bind() with port 0: the range distinguishes them.
        let ephemeral = self.ledger.ports(socket.netns).is_none_or(|it| it.is_usable(local_port));
        if binding.explicit_bucket == Some(true) && !ephemeral { Direction::Inbound } else { Direction::Outbound }
    }

    /// A scan has shown what a guess has to be: the socket goes to the row where it belongs.
    pub(super) fn set_direction(&mut self, index: u32, direction: Direction) {
        let device = self.ledger.endpoints().get(self.sockets.get(index).endpoint).key.device;
        self.move_to_row(index, device, direction);
        self.sockets.get_mut(index).is_guess = false;
    }

    /// The socket was bound to another device, or to none: its port is in the space of that one.
    pub(super) fn set_device(&mut self, index: u32, device: Device) {
        let direction = self.ledger.endpoints().get(self.sockets.get(index).endpoint).key.direction;
        self.move_to_row(index, device, direction);
    }

    fn move_to_row(&mut self, index: u32, device: Device, direction: Direction) {
        let socket = *self.sockets.get(index);
        let key = key_of(self.ledger.endpoints(), &socket);
        let (endpoint, destination) = self.place(key.netns, device, &key.tuple, direction);
        if endpoint == socket.endpoint {
            return;
        }
        let endpoints = self.ledger.endpoints();
        self.sockets.set_place(index, (endpoint, destination), |socket| key_of(endpoints, socket));
        let moved = self.sockets.get_mut(index);
        moved.port_class = None;
        self.ledger.apply(socket.contribution(), moved.contribution(), self.now);
        self.find_port_class(index);
    }
}
