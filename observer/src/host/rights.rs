//! Whether this process may use BPF.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::text;

/// Bits of include/uapi/linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The capabilities that `observer` needs and this process lacks; empty when it may start. `CAP_SYS_ADMIN` contains
/// the other two. An unreadable /proc leaves the verdict to the kernel.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let status = text::string("/proc/self/status").unwrap_or_default();
    parse_effective(&status).map_or_else(Vec::new, lacking)
}

/// Whether this process is in a user namespace of its own: capabilities there do not reach BPF.
#[must_use]
pub fn in_user_namespace() -> bool {
    /// `PROC_USER_INIT_INO` of include/uapi/linux/nsfs.h: the same on every kernel.
    const INITIAL: u64 = 0xEFFF_FFFD;
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() != INITIAL)
}

/// The effective capabilities of this process; none where they cannot be read.
#[must_use]
pub fn effective() -> u64 {
    parse_effective(&text::string("/proc/self/status").unwrap_or_default()).unwrap_or(0)
}

/// What on this host can refuse BPF to a process that has the capabilities.
#[must_use]
pub fn obstacles() -> Vec<String> {
    let lockdown = text::string("/sys/kernel/security/lockdown").unwrap_or_default();
    let lockdown = parse_lockdown(&lockdown).map(|mode| format!("kernel lockdown is on ({mode})"));
    let status = text::string("/proc/self/status").unwrap_or_default();
    let is_filtered = status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"));
    let filter =
        is_filtered.then(|| "a seccomp filter is active (a container's profile has to allow bpf())".to_owned());
    lockdown.into_iter().chain(filter).collect()
}

/// The mode in brackets of "none [integrity] confidentiality", if it restricts anything.
fn parse_lockdown(text: &str) -> Option<&str> {
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then_some(mode)
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
    fn lockdown_restricts_by_its_mode() {
        assert_eq!(parse_lockdown("none integrity [confidentiality]\n"), Some("confidentiality"));
        assert_eq!(parse_lockdown("[none] integrity confidentiality\n"), None);
    }

    #[test]
    fn names_what_is_lacking() {
        assert_eq!(parse_effective("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x0000_01ff_feff_ffff));
        assert_eq!(lacking(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(lacking(1 << CAP_BPF), ["CAP_PERFMON"]);
        assert!(lacking(1 << CAP_SYS_ADMIN).is_empty());
        assert!(lacking(1 << CAP_BPF | 1 << CAP_PERFMON).is_empty());
    }
}
