//! Sentences of observer and of the kernel: why a method did not work, which operation was refused. Their words are fixed, except
//! for files, addresses and what is quoted.

use std::net::{IpAddr, SocketAddr};

/// Files that are the same on every host.
const COMMON: [&str; 5] = ["/proc/net/", "/proc/sys/", "/proc/self/ns/", "/sys/kernel/", "/sys/bus/event_source/"];

/// The sentence without names of files, and with the pseudonyms of addresses.
pub(super) fn without_names(text: &str, mut pseudonym: impl FnMut(IpAddr) -> IpAddr) -> String {
    let is_edge = |letter: char| ",;()[]\"'`".contains(letter);
    let words = text.split(' ').map(|word| {
        // A colon at the end may be that of the sentence, or of an address.
        let bare = word.trim_matches(is_edge);
        let without_colon = bare.strip_suffix(':').unwrap_or(bare).trim_matches(is_edge);
        let with_brackets = word.trim_end_matches([':', ',']);
        let parse = |text: &str| text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok();
        let mut candidates = [bare, without_colon, with_brackets].into_iter();
        let address = candidates.find_map(|text| parse(text).map(|ip| (text, ip)));
        if let Some((address, ip)) = address {
            return word.replace(address, &pseudonym(ip).to_string());
        }
        let is_common = !bare.contains("..") && COMMON.iter().any(|common| bare.starts_with(common));
        if bare.contains('/') && !is_common { word.replace(without_colon, "FILE") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_addresses_are_replaced_and_words_stay() {
        let other = |_| [192, 0, 2, 1].into();
        for (text, expected) in [
            ("BPF_ITER_CREATE", "BPF_ITER_CREATE"),
            ("EMFILE (Too many open files)", "EMFILE (Too many open files)"),
            ("read /proc/net/sockstat: EACCES", "read /proc/net/sockstat: EACCES"),
            ("`/sys/bus/event_source/x`: ENOENT", "`/sys/bus/event_source/x`: ENOENT"),
            ("open `/run/netns/blue`: ENOENT", "open `FILE`: ENOENT"),
            ("open /run/netns/blue: ENOENT", "open FILE: ENOENT"),
            ("read /proc/sys/../../run/netns/blue", "read FILE"),
            ("connect to 10.1.2.3, [fe80::1]", "connect to 192.0.2.1, [192.0.2.1]"),
            ("on 10.1.2.3:80: EADDRINUSE, 2001:db8::, [fd00::1]:80", "on 192.0.2.1: EADDRINUSE, 192.0.2.1, 192.0.2.1"),
            ("", ""),
        ] {
            assert_eq!(without_names(text, other), expected);
        }
    }
}
