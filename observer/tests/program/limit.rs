//! The limit of descriptors of a running observer.

use std::{fs, process::Command};

/// Sets its soft limit, and returns the one before. Its user does: observer is not root any more, and to limit another
/// user's process takes CAP_SYS_RESOURCE.
pub(crate) fn limit_descriptors(pid: u32, soft: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let id = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()).unwrap();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let before =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()).unwrap();
    let prlimit = Command::new("setpriv")
        .args([format!("--reuid={}", id("Uid:")), format!("--regid={}", id("Gid:")), "--clear-groups".to_owned()])
        .args(["prlimit", &format!("--pid={pid}"), &format!("--nofile={soft}:")])
        .status();
    assert!(prlimit.unwrap().success(), "{status}");
    before.parse().unwrap()
}
