//! Network devices that sockets are bound to: by `SO_BINDTODEVICE`, by the scope of a link-local address, as the child of a
//! listener that is bound, or by a VRF. They distinguish sockets that have the same addresses and ports.

use std::{fmt, hash, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::units::Comm;

/// The device that a socket is bound to (`skc_bound_dev_if`), or none. The interface index is its identity; the name goes
/// along in snapshots, for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device {
    index: u32,
    /// Its name, chosen by somebody else; empty where that is not known.
    name: Comm,
}

/// What was read of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReading {
    /// Its interface index.
    pub index: u32,
    /// Its name: at most 15 bytes (`IFNAMSIZ` less its zero), as a command name.
    pub name: Comm,
    /// The VRF (`l3mdev`) that it belongs to; a VRF's device belongs to itself. 0 for none.
    pub vrf: u32,
}

impl Device {
    /// Bound to no device.
    pub const NONE: Self = Self { index: 0, name: Comm::new([0; 16]) };
    /// `LOOPBACK_IFINDEX` of include/net/flow.h: `lo` of every namespace.
    pub(super) const LOOPBACK: u32 = 1;

    /// The device with this interface index, 0 for none.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self { index, name: Comm::new([0; 16]) }
    }

    /// The same, with its name.
    #[must_use]
    pub const fn named(self, name: Comm) -> Self {
        Self { index: self.index, name }
    }

    /// Its interface index; 0 for none.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.index == 0
    }

    /// Its name, else its index; `None` where there is no device.
    #[must_use]
    pub fn label(self) -> Option<String> {
        let name = self.name.to_string();
        (!self.is_none()).then(|| if name.is_empty() { self.index.to_string() } else { name })
    }

    /// An address on this device: `fe80::1%eth0`.
    #[must_use]
    pub fn scoped(self, ip: IpAddr) -> String {
        format!("{ip}{self}")
    }

    /// An address and a port on this device: `[fe80::1%eth0]:80`, `10.0.0.5%eth0:80`.
    #[must_use]
    pub fn endpoint(self, ip: IpAddr, port: impl fmt::Display) -> String {
        match ip {
            IpAddr::V4(ip) => format!("{ip}{self}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}{self}]:{port}"),
        }
    }
}

/// `%eth0`, or `%7` where the name is not known; nothing where there is no device.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.label().map_or(Ok(()), |label| write!(f, "%{label}"))
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Device {}

impl PartialOrd for Device {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Device {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.index.cmp(&other.index)
    }
}

impl hash::Hash for Device {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

/// How the devices of a namespace share four-tuples and ports.
///
/// A new socket finds its four-tuple in use by one that is bound to the same device or to the VRF of that device, and, unless
/// it is in a VRF, by one that is bound to none (`inet_match` and `inet_bound_dev_eq` as `__inet_check_established` asks
/// them). The ports of bind buckets are one space for each VRF, and one for all devices outside of any
/// (`inet_sk_bound_l3mdev`). `net.ipv4.tcp_l3mdev_accept` makes these one, and lets a new socket of a VRF conflict with
/// those that are bound to no device, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceRules {
    devices: Vec<DeviceReading>,
    /// `net.ipv4.tcp_l3mdev_accept`
    l3mdev_accept: bool,
}

impl DeviceRules {
    pub(super) fn new(devices: &[DeviceReading], l3mdev_accept: bool) -> Self {
        Self { devices: devices.to_vec(), l3mdev_accept }
    }

    fn reading(&self, index: u32) -> Option<&DeviceReading> {
        self.devices.iter().find(|reading| reading.index == index)
    }

    /// Whether anything is known of this device.
    pub(super) fn knows(&self, index: u32) -> bool {
        index == 0 || self.reading(index).is_some()
    }

    /// The device with its name, as far as that is known.
    pub(super) fn named(&self, device: Device) -> Device {
        self.reading(device.index).map_or(device, |reading| device.named(reading.name))
    }

    /// The VRF of a device, 0 for none (`l3mdev_master_ifindex_by_index`).
    pub(super) fn vrf(&self, index: u32) -> u32 {
        if index == 0 { 0 } else { self.reading(index).map_or(0, |reading| reading.vrf) }
    }

    /// The space of bind buckets that a socket of this device is in.
    pub(super) fn space(&self, index: u32) -> u32 {
        if self.l3mdev_accept { 0 } else { self.vrf(index) }
    }

    /// The devices whose sockets a new socket of this device conflicts with: its own first.
    pub(super) fn conflicts(&self, index: u32) -> impl Iterator<Item = u32> + use<> {
        let vrf = self.vrf(index);
        let unbound = (index != 0 && (vrf == 0 || self.l3mdev_accept)).then_some(0);
        let of_vrf = (vrf != 0 && vrf != index).then_some(vrf);
        [Some(index), of_vrf, unbound].into_iter().flatten()
    }

    /// Whether bind() finds sockets of these two devices in each other's way (`inet_bind_conflict`, within a bind bucket).
    pub(super) fn share_ports(&self, one: u32, other: u32) -> bool {
        self.space(one) == self.space(other) && (one == 0 || other == 0 || one == other)
    }

    /// Sockets share ports and four-tuples by the same rules.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let vrfs = |rules: &Self| {
            let mut vrfs: Vec<_> = rules.devices.iter().filter(|it| it.vrf != 0).map(|it| (it.index, it.vrf)).collect();
            vrfs.sort_unstable();
            vrfs
        };
        self.l3mdev_accept == other.l3mdev_accept && vrfs(self) == vrfs(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(l3mdev_accept: bool) -> DeviceRules {
        let reading = |index, name: &str, vrf| DeviceReading { index, name: name.into(), vrf };
        DeviceRules::new(&[reading(2, "eth0", 0), reading(3, "eth1", 9), reading(9, "red", 9)], l3mdev_accept)
    }

    fn conflicts(rules: &DeviceRules, index: u32) -> Vec<u32> {
        rules.conflicts(index).collect()
    }

    #[test]
    fn a_four_tuple_is_in_use_by_the_same_device_its_vrf_and_the_unbound() {
        let apart = rules(false);
        assert_eq!(conflicts(&apart, 0), [0]);
        assert_eq!(conflicts(&apart, 2), [2, 0]);
        assert_eq!(conflicts(&apart, 3), [3, 9]);
        assert_eq!(conflicts(&apart, 9), [9]);
        let joined = rules(true);
        assert_eq!(conflicts(&joined, 0), [0]);
        assert_eq!(conflicts(&joined, 3), [3, 9, 0]);
        assert_eq!(conflicts(&joined, 9), [9, 0]);
    }

    #[test]
    fn each_vrf_has_ports_of_its_own_unless_they_are_joined() {
        assert_eq!([0, 2, 3, 9, 77].map(|index| rules(false).space(index)), [0, 0, 9, 9, 0]);
        assert_eq!([0, 2, 3, 9].map(|index| rules(true).space(index)), [0; 4]);
    }

    #[test]
    fn bind_is_refused_by_the_same_device_and_by_none_within_a_vrf() {
        let share = |l3mdev_accept, one, other| rules(l3mdev_accept).share_ports(one, other);
        assert!(share(false, 0, 0) && share(false, 2, 2) && share(false, 0, 2) && share(false, 2, 0));
        assert!(!share(false, 2, 77), "two devices");
        assert!(!share(false, 0, 9) && !share(false, 0, 3) && !share(false, 3, 9), "of a VRF");
        assert!(share(true, 0, 9) && !share(true, 3, 9));
    }

    #[test]
    fn addresses_carry_the_name_else_the_number() {
        let ip = "fe80::1".parse().unwrap();
        let named = |index| rules(false).named(Device::new(index));
        assert_eq!(named(2).scoped(ip), "fe80::1%eth0");
        assert_eq!(named(77).scoped(ip), "fe80::1%77");
        assert_eq!(named(0).scoped(ip), "fe80::1");
        assert_eq!(named(3).endpoint(ip, 80), "[fe80::1%eth1]:80");
        assert_eq!(named(9).endpoint([10, 0, 0, 5].into(), 80), "10.0.0.5%red:80");
        assert_eq!(named(2), Device::new(2));
        assert_eq!(Device::new(4).named(Comm::new(*b"a\x1bb\0\0\0\0\0\0\0\0\0\0\0\0\0")).to_string(), "%a?b");
    }
}
