//! Names of network devices and the VRFs that they belong to, of the calling thread's network namespace, by rtnetlink:
//! /sys/class/net shows those of the namespace in which sysfs was mounted.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd};

use netlink_packet_core::NlasIterator;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::model::{device::DeviceReading, units::Comm};

/// `struct nlmsghdr` and `struct ifinfomsg` take so much each.
const HEADER: usize = 16;
const REQUEST: usize = 2 * HEADER;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// An answer about one link takes about 2 KiB; more where it has virtual functions.
const LONGEST: usize = 64 << 10;

/// What is known of the devices with these indexes. Those that are gone are left out.
#[must_use]
pub fn read(indexes: impl IntoIterator<Item = u32>) -> Vec<DeviceReading> {
    let mut indexes = indexes.into_iter().peekable();
    if indexes.peek().is_none() {
        return Vec::new();
    }
    let links = Links::open();
    indexes
        .filter_map(|index| {
            match links.as_ref().map_err(|error| io::Error::from(error.kind())).and_then(|it| it.device(index)) {
                Ok(device) => Some(device),
                Err(error) => {
                    tracing::debug!(index, %error, "a network device cannot be read");
                    None
                }
            }
        })
        .collect()
}

/// A socket of rtnetlink.
struct Links(OwnedFd);

/// What the kernel answers about a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    name: Comm,
    master: u32,
    is_vrf: bool,
}

impl Links {
    fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is 0, the protocol that a socket has by itself.
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?))
    }

    /// `l3mdev_master_ifindex_by_index`: a VRF is its own, and otherwise only the direct master counts.
    fn device(&self, index: u32) -> io::Result<DeviceReading> {
        let Link { name, master, is_vrf } = self.ask(index)?;
        let vrf = match master {
            _ if is_vrf => index,
            0 => 0,
            master if self.ask(master)?.is_vrf => master,
            _ => 0,
        };
        Ok(DeviceReading { index, name, vrf })
    }

    fn ask(&self, index: u32) -> io::Result<Link> {
        let mut request = [0; REQUEST];
        request[0..4].copy_from_slice(&u32::try_from(REQUEST).map_err(io::Error::other)?.to_ne_bytes());
        request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        // `ifi_index`, behind the family and the type of the device.
        request[HEADER + 4..HEADER + 8].copy_from_slice(&index.to_ne_bytes());
        send(&self.0, &request, SendFlags::empty())?;
        let mut answer = vec![MaybeUninit::uninit(); LONGEST];
        let ((answer, _), _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        parse(answer)
    }
}

pub(super) fn parse(answer: &[u8]) -> io::Result<Link> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    if kind != Some(RTM_NEWLINK) || answer.len() < 2 * HEADER {
        // NLMSG_ERROR: a negative errno follows the header.
        let errno = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(errno.map_or(libc::EBADMSG, i32::wrapping_neg)));
    }
    let mut link = Link { name: Comm::default(), master: 0, is_vrf: false };
    for attribute in NlasIterator::new(&answer[2 * HEADER..]) {
        let attribute = attribute.map_err(io::Error::other)?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => {
                let mut name = [0; 16];
                name.iter_mut().zip(value).take(15).for_each(|(to, from)| *to = *from);
                link.name = Comm::new(name);
            }
            IFLA_MASTER => link.master = value.try_into().map(u32::from_ne_bytes).unwrap_or_default(),
            IFLA_LINKINFO => {
                let is_vrf = |kind: &[u8]| kind.split(|byte| *byte == 0).next() == Some(b"vrf");
                link.is_vrf = NlasIterator::new(value)
                    .flatten()
                    .any(|info| info.kind() == IFLA_INFO_KIND && is_vrf(info.value()));
            }
            _ => {}
        }
    }
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_known_and_one_that_is_gone_is_left_out() {
        let read = read([1, u32::MAX >> 1]);
        assert_eq!(read, [DeviceReading { index: 1, name: Comm::from("lo"), vrf: 0 }]);
        assert_eq!(super::read([]), []);
    }

    #[test]
    fn a_vrf_is_found_by_its_kind_and_bytes_of_a_name_are_kept() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let mut answer = vec![0; 2 * HEADER];
        answer[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        answer.extend(attribute(IFLA_IFNAME, b"r\xe4d\0"));
        answer.extend(attribute(IFLA_MASTER, &7_u32.to_ne_bytes()));
        answer.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"vrf\0")));
        let name = Comm::new(*b"r\xe4d\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(parse(&answer).unwrap(), Link { name, master: 7, is_vrf: true });
        assert_eq!(parse(&[]).unwrap_err().raw_os_error(), Some(libc::EBADMSG));
    }
}
