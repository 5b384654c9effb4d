//! What user space chooses once, before the programs are loaded.

/// Read-only global `SETTINGS` of the BPF object.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Settings {
    /// Only sockets of the network namespace with this inode number (`net->ns.inum`) are reported; 0 reports all.
    pub netns: u32,
    /// Other than 0 where `bpf_get_current_task_btf` and `bpf_sock_from_file` exist (since 5.11): what tasks and files lead
    /// to is read by plain loads.
    pub typed_files: u32,
    /// Inode number of the pid namespace in which processes are numbered (`pid_namespace->ns.inum`); 0 for the initial one.
    pub pidns: u32,
    /// Other than 0 where user space looks for the owners of sockets in /proc, and so needs their inodes.
    pub inodes: u32,
    /// Bytes that wait in the ring from which on a record wakes user space,
    pub wake_from: u32,
    /// and so many more from which on records do not any more: a wake-up costs more than a record.
    pub wake_within: u32,
}

impl Settings {
    /// Report every network namespace.
    pub const DEFAULT: Self = Self { netns: 0, typed_files: 0, pidns: 0, inodes: 0, wake_from: 0, wake_within: 0 };
}

const _: () = assert!(size_of::<Settings>() == 24);
