//! Whether this process may use BPF.

use std::{env, ffi::OsString, fs, iter, os::unix::fs::MetadataExt as _};

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

/// What to do about missing capabilities: the same command as root, or for root the capabilities themselves.
#[must_use]
pub fn remedy(missing: &str) -> String {
    if rustix::process::geteuid().is_root() {
        return format!(
            "root lacks them in a container or a restricted unit: grant {missing} (--cap-add, CapabilityBoundingSet=)"
        );
    }
    let program = env::current_exe().unwrap_or_else(|_| "observer".into());
    format!("run it as root: sudo {}", command_line(program.into(), env::args_os().skip(1)))
}

/// A command as a shell takes it.
fn command_line(program: OsString, arguments: impl Iterator<Item = OsString>) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-=:,+@%".contains(letter);
    let quoted = |word: OsString| {
        let word = word.to_string_lossy().into_owned();
        let is_word = !word.is_empty() && word.chars().all(is_plain);
        if is_word { word } else { format!("'{}'", word.escape_debug().to_string().replace("\\'", "'\\''")) }
    };
    iter::once(program).chain(arguments).map(quoted).collect::<Vec<_>>().join(" ")
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
    fn a_command_line_has_quotes_where_a_shell_needs_them() {
        let arguments = ["--recording", "a b.obs", "it's", "", "--at=3"].map(OsString::from);
        let line = command_line("/opt/observer".into(), arguments.into_iter());
        assert_eq!(line, r"/opt/observer --recording 'a b.obs' 'it'\''s' '' --at=3");
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
