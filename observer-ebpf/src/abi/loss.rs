//! Where the kernel side can lose a record.

/// Index into the per-CPU array `LOSSES`; each slot counts records lost on that CPU since load.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The ring buffer had no room for the record (`bpf_ringbuf_reserve` returned NULL).
    RingFull = 0,
    /// A kernel field that the record needs could not be read (`bpf_probe_read_kernel` failed).
    ReadFailed = 1,
    /// As `RingFull`, of a scan's record: a socket that the scan did not show may still exist.
    ScanRingFull = 2,
    /// User space has suspended the hooks: the state hook would have written a record.
    Suspended = 3,
}

impl Loss {
    /// Slots in `LOSSES`.
    pub const COUNT: u32 = Self::Suspended as u32 + 1;
}
