//! What user space chooses once, before the programs are loaded.

/// Read-only global `SETTINGS` of the BPF object.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Settings {
    /// Only sockets of the network namespace with this inode number (`net->ns.inum`) are reported; 0 reports all.
    pub netns: u32,
}

impl Settings {
    /// Report every network namespace.
    pub const DEFAULT: Self = Self { netns: 0 };
}

const _: () = assert!(size_of::<Settings>() == 4);
