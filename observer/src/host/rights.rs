//! Whether this process may use BPF.

use std::{fs, os::unix::fs::MetadataExt as _};

/// Bits of include/uapi/linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The capabilities that `observer` needs and this process lacks; empty when it may start. `CAP_SYS_ADMIN` contains
/// the other two. An unreadable /proc leaves the verdict to the kernel.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse_effective(&status).map_or_else(Vec::new, lacking)
}

/// Whether this process is in a user namespace of its own: capabilities there do not reach BPF.
#[must_use]
pub fn in_user_namespace() -> bool {
    /// `PROC_USER_INIT_INO` of include/uapi/linux/nsfs.h: the same on every kernel.
    const INITIAL: u64 = 0xEFFF_FFFD;
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() != INITIAL)
}

fn parse_effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn lacking(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 != 0;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON)]
        .into_iter()
        .filter(|(_, bit)| !has(*bit))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_lacking() {
        assert_eq!(parse_effective("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x0000_01ff_feff_ffff));
        assert_eq!(lacking(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(lacking(1 << CAP_BPF), ["CAP_PERFMON"]);
        assert!(lacking(1 << CAP_SYS_ADMIN).is_empty());
        assert!(lacking(1 << CAP_BPF | 1 << CAP_PERFMON).is_empty());
    }
}
