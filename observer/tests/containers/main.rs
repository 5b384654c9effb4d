//! Containers of real runtimes (runc, podman, systemd-nspawn) are known by their cgroups. The truth is what `ss --cgroup` and the inodes of
//! directories say. Needs root, these runtimes and busybox; without them every test fails and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod namespaces;
mod places;
mod resolver;
mod runtimes;
mod services;
