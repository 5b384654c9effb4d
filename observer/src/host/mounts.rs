//! Mounts of network namespaces, by /proc/self/mountinfo.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use super::text;
use crate::model::{name::Name, units::NetnsId};

/// A file on which a network namespace was mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) netns: NetnsId,
    pub(super) path: PathBuf,
}

impl Mount {
    /// The name that `ip netns` shows. Those of the container network interface (`cni-<uuid>`) name nothing that
    /// anybody knows.
    pub(super) fn netns_name(&self) -> Option<Name> {
        let parent = self.path.parent()?;
        let is_of_ip = parent == "/run/netns" || parent == "/var/run/netns";
        let name = self.path.file_name().filter(|_| is_of_ip)?.as_bytes();
        (!name.starts_with(b"cni-")).then(|| Name::new(name))
    }
}

/// The network namespaces that are mounted in this process's mount namespace.
pub(super) fn of_namespaces() -> io::Result<Vec<Mount>> {
    Ok(parse(&text::bytes("/proc/self/mountinfo")?))
}

/// "… net:[4026532567] /run/netns/blue … - nsfs nsfs rw": the root of the mount, and where it is.
fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b' ').skip(3);
        let root = std::str::from_utf8(words.next()?).ok()?;
        let netns = root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
        Some(Mount { netns: NetnsId(netns), path: OsString::from_vec(unescaped(words.next()?)).into() })
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// Undoes `mangle_path`, which writes bytes that separate fields as a backslash and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| matches!(digit, b'0'..=b'7')));
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(byte) = value.filter(|_| *first == b'\\') {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> PathBuf {
        OsString::from_vec(bytes.to_vec()).into()
    }

    #[test]
    fn finds_mounted_network_namespaces_and_no_others() {
        let mountinfo = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
            512 30 0:4 net:[4026532567] /run/netns/blue rw shared:262 - nsfs nsfs rw\n\
            513 30 0:4 mnt:[4026532568] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw\n\
            514 30 0:4 net:[4026532569] /run/a\\040b\\011c\\012d\\134e\\043 rw - nsfs nsfs rw\n\
            515 30 98:0 / /mnt/caf\xe9 rw - ext3 /dev/root rw\n\
            516 30 0:4 net:[4026532570] /run/netns/caf\xe9 rw - nsfs nsfs rw\n";
        let expected = [
            (4_026_532_567, path(b"/run/netns/blue")),
            (4_026_532_569, path(b"/run/a b\tc\nd\\e#")),
            (4_026_532_570, path(b"/run/netns/caf\xe9")),
        ];
        assert_eq!(parse(mountinfo), expected.map(|(netns, path)| Mount { netns: NetnsId(netns), path }));
    }

    #[test]
    fn what_is_no_escape_stays() {
        for text in [&b"a\\"[..], b"a\\9", b"\\08", b"\\777", b"\\", b""] {
            assert_eq!(unescaped(text), text, "{}", text.escape_ascii());
        }
        assert_eq!(unescaped(b"\\134134"), b"\\134");
    }

    #[test]
    fn only_the_names_of_ip_netns_are_names() {
        let name = |at: &[u8]| Mount { netns: NetnsId(1), path: path(at) }.netns_name();
        assert_eq!(name(b"/run/netns/blue"), Some("blue".into()));
        assert_eq!(name(b"/var/run/netns/blue"), Some("blue".into()));
        assert_eq!(name(b"/run/netns/cni-5a0c"), None);
        assert_eq!(name(b"/run/docker/netns/0a1b2c"), None);
    }
}
