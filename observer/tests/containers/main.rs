//! Containers of real runtimes (runc, podman, systemd-nspawn) are known by their cgroups. The truth is what `ss --cgroup` and the inodes of
//! directories say. The files of packaging/systemd, too, are tried where systemd is the first process. Needs root, these runtimes and busybox; without them every test fails and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod machine;
mod namespaces;
mod places;
mod resolver;
mod runtimes;
mod services;
mod systemd;
#[path = "../screen/terminal.rs"]
#[expect(dead_code, reason = "the tests of the screen use more of it")]
mod terminal;
