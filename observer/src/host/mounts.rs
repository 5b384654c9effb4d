//! Mounts of network namespaces and of cgroup2, by /proc/self/mountinfo.

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
pub(super) fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b' ').skip(3);
        let root = std::str::from_utf8(words.next()?).ok()?;
        let netns = root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
        Some(Mount { netns: NetnsId(netns), path: OsString::from_vec(unescaped(words.next()?)).into() })
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// Where cgroup2 is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupMount {
    /// The cgroup that is the mount's root: `/`, another one of a bind mount, `/..` for one above that of this cgroup
    /// namespace.
    pub(super) root: Vec<u8>,
    pub(super) path: PathBuf,
}

/// The mounts of cgroup2 in this process's mount namespace.
pub(super) fn of_cgroup2() -> io::Result<Vec<CgroupMount>> {
    Ok(parse_cgroup2(&text::bytes("/proc/self/mountinfo")?))
}

/// "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw": the file system's type follows the
/// optional fields, of which there may be any number.
pub(super) fn parse_cgroup2(mountinfo: &[u8]) -> Vec<CgroupMount> {
    let mount = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b' ').skip(3);
        let (root, path) = (words.next()?, words.next()?);
        let kind = words.skip_while(|word| *word != b"-").nth(1)?;
        let path = OsString::from_vec(unescaped(path)).into();
        (kind == b"cgroup2").then(|| CgroupMount { root: unescaped(root), path })
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
    fn finds_cgroup2_wherever_it_is_mounted() {
        let mountinfo = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:10 master:2 - cgroup2 cgroup2 rw\n\
            42 31 0:38 /a\\040b /mnt/cgroup2\\011x rw,relatime - cgroup2 none rw\n\
            43 31 0:38 /../.. /host rw - cgroup2 - rw\n\
            44 31 98:0 / /cgroup2 rw - ext4 cgroup2 rw\n";
        let mount = |root: &[u8], at: &[u8]| CgroupMount { root: root.to_vec(), path: path(at) };
        let expected =
            [mount(b"/", b"/sys/fs/cgroup/unified"), mount(b"/a b", b"/mnt/cgroup2\tx"), mount(b"/../..", b"/host")];
        assert_eq!(parse_cgroup2(mountinfo), expected);
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
