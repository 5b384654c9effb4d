//! What identifies endpoints and connections: addresses with their namespace and device.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
};

use super::{
    device::Device,
    units::{FourTuple, NetnsId},
};

/// Which end called connect().
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The peer: this end is, or was, behind a listener.
    Inbound,
    /// This end.
    Outbound,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// Its name in exports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What a row of the endpoints table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Network namespace.
    pub netns: NetnsId,
    /// Which end called connect().
    pub direction: Direction,
    /// Local address; unspecified for a listener on every address.
    pub local_ip: IpAddr,
    /// Local port; `None` for outbound rows, where each connection has its own.
    pub local_port: Option<u16>,
    /// The device that its sockets are bound to.
    pub device: Device,
}

impl Hash for EndpointKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let port = self.local_port.map_or(1 << 16, u32::from);
        state.write_u64(u64::from(self.netns.0) << 32 | u64::from(self.device.index()));
        state.write_u64(hash_of_end(self.local_ip, port));
    }
}

impl EndpointKey {
    /// The row of clients of a local ip.
    pub(super) const fn outbound(netns: NetnsId, local_ip: IpAddr, device: Device) -> Self {
        Self { netns, direction: Direction::Outbound, local_ip, local_port: None, device }
    }

    /// The row of connections to a local address.
    pub(super) const fn inbound(netns: NetnsId, local_ip: IpAddr, local_port: u16, device: Device) -> Self {
        Self { netns, direction: Direction::Inbound, local_ip, local_port: Some(local_port), device }
    }
}

/// A local address, whose port may not have been chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Local {
    /// The ip address.
    pub ip: IpAddr,
    /// 0 where there is none.
    pub port: u16,
    /// The device that the socket was bound to.
    pub device: Device,
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => f.write_str(&self.device.scoped(self.ip)),
            port => f.write_str(&self.device.endpoint(self.ip, port)),
        }
    }
}

/// What identifies a connection within the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TupleKey {
    pub(super) netns: NetnsId,
    /// Index of the device that the socket is bound to, 0 for none.
    pub(super) device: u32,
    pub(super) tuple: FourTuple,
}

/// Alike for the two ends of a connection: one look-up finds both. Without the device, because these may be bound to different
/// ones.
impl Hash for TupleKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let FourTuple { local_ip, local_port, remote_ip, remote_port } = self.tuple;
        state.write_u32(self.netns.0);
        state.write_u64(
            hash_of_end(local_ip, local_port.into()).wrapping_add(hash_of_end(remote_ip, remote_port.into())),
        );
    }
}

/// The halves of a product, which is no linear function of the address: the same sum of two addresses is no sum of two hashes.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
pub(super) fn hash_of_end(ip: IpAddr, port: u32) -> u64 {
    /// Digits of pi: any odd number without a pattern.
    const MIX: u64 = 0x243f_6a88_85a3_08d3;
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let end = (bits as u64) ^ u64::from(port) << 44;
    let product = u128::from(end ^ MIX) * u128::from((bits >> 64) as u64 ^ MIX.rotate_left(32));
    product as u64 ^ (product >> 64) as u64
}

impl TupleKey {
    pub(super) fn reversed(self) -> Self {
        Self { tuple: self.tuple.reversed(), ..self }
    }

    /// The same four-tuple, on whatever device.
    pub(super) fn has_addresses_of(self, other: Self) -> bool {
        (self.netns, self.tuple) == (other.netns, other.tuple)
    }
}
