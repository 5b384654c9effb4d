//! Which capabilities this process has, and what to do where it lacks them.

use std::{env, ffi::OsString, fs, iter, os::unix::fs::MetadataExt as _, path::Path};

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::{proc, text};
use crate::{
    errno,
    model::capability::{BPF, CAPABILITIES, Capability, PERFMON, SYS_ADMIN},
};

/// The capabilities that the calling thread may use, as capget(2) has them; none where it does not say.
#[must_use]
pub fn held() -> u64 {
    capabilities(None).map_or(0, |sets| sets.permitted.bits())
}

/// The capabilities that `observer` needs and this thread lacks; empty when it may start. `CAP_SYS_ADMIN` contains the other
/// two.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    // Where that cannot be asked, the kernel's own answer to bpf() decides.
    capabilities(None).map_or_else(|_| Vec::new(), |sets| lacking(sets.permitted.bits()))
}

/// Makes the calling thread's capabilities of the table ineffective until [`raise`]. A program with file or ambient
/// capabilities reads files that its user names: with CAP_DAC_READ_SEARCH it would read what that user may not. Root may.
pub fn lower() {
    if !rustix::process::geteuid().is_root() {
        change_effective(|sets| sets.effective & !table());
    }
}

/// Makes what the calling thread may use effective.
pub fn raise() {
    change_effective(|sets| sets.effective | (sets.permitted & table()));
}

fn table() -> CapabilitySet {
    CapabilitySet::from_bits_retain(CAPABILITIES.iter().fold(0, |set, capability| set | capability.mask()))
}

/// A subset of what is permitted is never refused.
fn change_effective(effective: impl FnOnce(CapabilitySets) -> CapabilitySet) {
    if let Ok(sets) = capabilities(None) {
        let _ = set_capabilities(None, CapabilitySets { effective: effective(sets), ..sets });
    }
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

/// The command that gives this program the capabilities of the table for whoever may execute it.
#[must_use]
pub fn setcap() -> String {
    let names: Vec<String> = CAPABILITIES.iter().map(|capability| capability.name.to_lowercase()).collect();
    let program = env::current_exe().unwrap_or_else(|_| proc::THIS_PROGRAM.into());
    let arguments = [format!("{}+ep", names.join(",")).into(), program.into()];
    format!("sudo {}", command_line("setcap".into(), arguments.into_iter()))
}

/// What keeps this thread from attaching to tracepoints of system calls although it has CAP_PERFMON: Debian's and Ubuntu's
/// kernels have a level of `kernel.perf_event_paranoid` that only CAP_SYS_ADMIN passes.
#[must_use]
pub fn perf_obstacle() -> Option<String> {
    let level = text::string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse::<i32>().ok()?;
    let is_refused = level >= 3 && !SYS_ADMIN.is_in(held());
    is_refused.then(|| format!("kernel.perf_event_paranoid is {level}: set it to 2, or grant {}", SYS_ADMIN.name))
}

/// Why capabilities of this program's file would have no effect, if they would have none.
#[must_use]
pub fn setcap_obstacle() -> Option<String> {
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return Some("this process may gain no privileges (PR_SET_NO_NEW_PRIVS)".to_owned());
    }
    let mount = rustix::fs::statvfs(proc::THIS_PROGRAM).ok()?;
    mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID).then(|| {
        let program = env::current_exe().unwrap_or_default();
        let folder = program.parent().unwrap_or(Path::new("/"));
        format!("the file system of {} is mounted with nosuid", errno::printable(folder))
    })
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
pub(super) fn parse_lockdown(text: &str) -> Option<&str> {
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then_some(mode)
}

fn lacking(held: u64) -> Vec<&'static str> {
    let needed: &[Capability] = if SYS_ADMIN.is_in(held) { &[] } else { &[BPF, PERFMON] };
    needed.iter().filter(|capability| !capability.is_in(held)).map(|capability| capability.name).collect()
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
        assert_eq!(lacking(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(lacking(BPF.mask()), ["CAP_PERFMON"]);
        assert!(lacking(SYS_ADMIN.mask()).is_empty());
        assert!(lacking(BPF.mask() | PERFMON.mask()).is_empty());
    }
}
