//! Addresses under pseudonyms that share as many of their first bits as the addresses do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipcrypt_rs::IpcryptPfx;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;

/// Pseudonyms that are kept, at most: one of IPv6 takes 256 blocks of AES.
const MOST: usize = 1 << 16;

/// Addresses of which a reader has to recognize what they are. A pseudonym is of the same range.
struct Range {
    net: IpNet,
    /// Of each address in it, as many of the first bits stay.
    stay: u8,
}

const fn v4(a: u8, b: u8, length: u8, stay: u8) -> Range {
    Range { net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length)), stay }
}

const fn v6(first: u16, last: u16, length: u8, stay: u8) -> Range {
    Range { net: IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last), length)), stay }
}

/// The first that contains an address is its range. Ranges of IPv4 consist of whole /16: addresses outside of them that share
/// these bits share as many afterwards, whatever [`Addresses::pseudonym`] has to avoid.
const RANGES: [Range; 18] = [
    // Unspecified, loopback, link-local, multicast: the same on every host.
    v4(0, 0, 8, 32),
    v4(127, 0, 8, 32),
    v4(169, 254, 16, 32),
    v4(224, 0, 4, 32),
    // Private (RFC 1918) and shared by a carrier's customers (RFC 6598): which one stays, the rest does not.
    v4(10, 0, 8, 8),
    v4(172, 16, 12, 12),
    v4(192, 168, 16, 16),
    v4(100, 64, 10, 10),
    // Broadcast, and what is reserved.
    v4(240, 0, 4, 32),
    v4(0, 0, 0, 0),
    // Unspecified, loopback.
    v6(0, 0, 128, 128),
    v6(0, 1, 128, 128),
    // Link-local: the last 64 bits may be the address of a network card.
    v6(0xfe80, 0, 64, 64),
    v6(0xfe80, 0, 10, 10),
    // Multicast: flags and scope stay; a group may contain part of an address.
    v6(0xff00, 0, 8, 16),
    // Private (RFC 4193).
    v6(0xfc00, 0, 7, 8),
    // Global unicast.
    v6(0x2000, 0, 3, 3),
    v6(0, 0, 0, 0),
];

fn range_of(ip: IpAddr) -> usize {
    RANGES.iter().position(|range| range.net.contains(&ip)).unwrap_or(RANGES.len())
}

/// Gives addresses their pseudonyms.
pub(super) struct Addresses {
    cipher: IpcryptPfx,
    known: FxHashMap<IpAddr, IpAddr>,
}

impl Addresses {
    pub(super) fn new(key: [u8; IpcryptPfx::KEY_BYTES]) -> Self {
        Self { cipher: IpcryptPfx::new(key), known: FxHashMap::default() }
    }

    /// The pseudonym of an address. IPv4 is never given v4-mapped.
    pub(super) fn pseudonym(&mut self, ip: IpAddr) -> IpAddr {
        if let Some(known) = self.known.get(&ip) {
            return *known;
        }
        let found = self.find(ip);
        // What is forgotten is found again.
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(ip, found);
        found
    }

    /// Encrypts all but the bits that stay until the result is of the same range: a permutation of the range, as each
    /// encryption is one of all addresses with these bits.
    fn find(&self, ip: IpAddr) -> IpAddr {
        let range = range_of(ip);
        let stay = RANGES.get(range).map_or(0, |range| range.stay);
        let mut found = ip;
        loop {
            found = with_first_bits(ip, self.cipher.encrypt_ipaddr(found), stay);
            if range_of(found) == range && !is_mapped(found) {
                return found;
            }
        }
    }
}

/// IPv4 within IPv6: one address must not become another of the other family.
fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

/// `ip` with as many of its first bits as `stay` says from `first`.
fn with_first_bits(first: IpAddr, ip: IpAddr, stay: u8) -> IpAddr {
    match (first, ip) {
        (IpAddr::V4(first), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(stay)).unwrap_or(0);
            Ipv4Addr::from_bits(first.to_bits() & mask | ip.to_bits() & !mask).into()
        }
        (IpAddr::V6(first), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(stay)).unwrap_or(0);
            Ipv6Addr::from_bits(first.to_bits() & mask | ip.to_bits() & !mask).into()
        }
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addresses() -> Addresses {
        Addresses::new(super::super::random().unwrap())
    }

    /// Bits that two addresses share at their beginning.
    fn shared(one: IpAddr, other: IpAddr) -> u32 {
        match (one, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => 0,
        }
    }

    #[test]
    fn what_is_the_same_on_every_host_stays() {
        let mut addresses = addresses();
        for text in
            ["0.0.0.0", "127.0.0.1", "127.5.6.7", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::", "::1"]
        {
            assert_eq!(addresses.pseudonym(ip(text)), ip(text));
        }
    }

    #[test]
    fn ranges_are_recognized_and_what_is_in_them_is_not() {
        let mut addresses = addresses();
        for (text, net) in [
            ("10.20.30.40", "10.0.0.0/8"),
            ("172.20.30.40", "172.16.0.0/12"),
            ("100.80.30.40", "100.64.0.0/10"),
            ("fe80::1234:56ff:fe78:9abc", "fe80::/64"),
            ("fe91::1234:56ff:fe78:9abc", "fe80::/10"),
            ("fd12:3456:789a::1", "fd00::/8"),
            ("ff02::1:ff12:3456", "ff02::/16"),
            ("2001:db8::1", "2000::/3"),
        ] {
            let (net, found): (IpNet, _) = (net.parse().unwrap(), addresses.pseudonym(ip(text)));
            // By chance one of 2^20 is its own pseudonym.
            assert!(net.contains(&found) && found != ip(text), "{text}: {found}");
        }
    }

    /// The vectors of draft-denis-ipcrypt: what does the work is what its name says.
    #[test]
    fn the_cipher_is_ipcrypt_pfx() {
        let key = "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301";
        let key: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap()).collect();
        let addresses = Addresses::new(key.try_into().unwrap());
        assert_eq!(addresses.cipher.encrypt_ipaddr(ip("192.0.2.1")), ip("100.115.72.131"));
        let expected = ip("c180:5dd4:2587:3524:30ab:fa65:6ab6:f88");
        assert_eq!(addresses.cipher.encrypt_ipaddr(ip("2001:db8::1")), expected);
    }

    /// An address, and another that shares some of its bits.
    fn pair(bits: u32) -> impl Strategy<Value = (u128, u128)> {
        (any::<u128>(), any::<u128>(), 0..bits)
            .prop_map(|(one, other, shared)| (one, one ^ other.checked_shr(shared).unwrap_or(0)))
    }

    proptest! {
        #[test]
        fn addresses_of_a_range_share_as_many_bits_afterwards((one, other) in pair(32)) {
            let [one, other] = [one, other].map(|bits| IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32)));
            let mut addresses = addresses();
            let found = [one, other].map(|ip| addresses.pseudonym(ip));
            prop_assert_eq!([one, other].map(range_of), found.map(range_of));
            let (before, after) = (shared(one, other), shared(found[0], found[1]));
            // Fewer bits than a /16 may be other ones, and still fewer than those.
            prop_assert!(before == after || (before < 16 && after < 16), "{before} {after}");
        }

        #[test]
        fn those_of_ipv6_do_too((one, other) in pair(128), first in prop::sample::select(vec![0x2001_u16, 0xfd00, 0xfe80])) {
            let global = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits >> 16 | u128::from(first) << 112));
            let [one, other] = [one, other].map(global);
            let mut addresses = addresses();
            let found = [one, other].map(|ip| addresses.pseudonym(ip));
            prop_assert_eq!([one, other].map(range_of), found.map(range_of));
            if range_of(one) == range_of(other) {
                prop_assert_eq!(shared(one, other), shared(found[0], found[1]));
            }
        }

        #[test]
        fn a_pseudonym_stays_the_same_and_in_its_family(bits in any::<u128>()) {
            let ip = IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical();
            let mut addresses = addresses();
            let found = addresses.pseudonym(ip);
            addresses.known.clear();
            prop_assert_eq!(found, addresses.pseudonym(ip));
            prop_assert_eq!((ip.is_ipv4(), range_of(ip)), (found.is_ipv4(), range_of(found)));
            prop_assert_eq!(found.to_canonical(), found);
        }
    }
}
