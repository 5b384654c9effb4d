//! Whom a socket or a process belongs to: a systemd unit, a pod, a container, a machine. The path of its cgroup says it.

use serde::{Deserialize, Serialize};

use super::name::Name;

/// A cgroup, by its id in cgroup2 (`kernfs_node.id`): the inode number of its directory, and what `ss --cgroup` looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CgroupId(pub u64);

/// What the path of a cgroup says, with the names that files on this host give to its ids. Parts nest: a pod has
/// containers, a machine has units of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    /// The path below the root of cgroup2, `/system.slice/nginx.service`.
    pub path: Option<Name>,
    /// The systemd unit or the scope of a session, `nginx.service`, `session-3.scope`; inside a machine, that of the machine.
    pub unit: Option<Name>,
    /// The Kubernetes pod.
    pub pod: Option<Pod>,
    /// The container.
    pub container: Option<Container>,
    /// The machine of systemd-nspawn, LXC or libvirt.
    pub machine: Option<Name>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pod {
    /// Its uid, with `-` between its parts.
    pub uid: Name,
    /// Its Kubernetes namespace, where a file names it.
    pub namespace: Option<Name>,
    /// Its name, where a file names it.
    pub name: Option<Name>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Its id: 64 hex digits of most runtimes.
    pub id: Name,
    /// Its name, where a file names it.
    pub name: Option<Name>,
    /// Its runtime, as far as the path or the file shows it.
    pub runtime: Option<Runtime>,
}

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Runtime {
    /// Docker.
    Docker,
    /// containerd.
    Containerd,
    /// CRI-O.
    CriO,
    /// podman.
    Podman,
    /// runc or crun without an engine.
    Oci,
    /// LXC.
    Lxc,
}
