//! How an engine runs.

use std::time::Duration;

use super::{AfterAttach, Scans};
use crate::{
    model::cost::CpuShare,
    probe::{kernel, plan::ForcedMethods},
    recording::MAX_WAITING,
};

/// What an engine scans before it shows anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLook {
    /// Everything.
    All,
    /// Its own namespace; the others follow with each poll, while a screen shows the first frames.
    Own,
}

/// What an engine runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Many frames, or a recording.
    Session,
    /// One frame. In so short a time hooks of system calls report next to nothing. To detach them takes longer than all else
    /// where each event of a system call has a hook of its own, and begins before the first scan.
    OneFrame,
}

/// Which network namespaces the engine watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// All of the host.
    All,
    /// The one in which the engine starts.
    Own,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// What it runs for.
    pub purpose: Purpose,
    /// When to scan.
    pub scans: Scans,
    /// What to scan before anything is shown.
    pub first_look: FirstLook,
    /// Which network namespaces to watch.
    pub watched: Watched,
    /// After few missed runs, a namespace whose last walk took as long (CPU time) is walked soon only if the kernel counts another
    /// number of sockets there than the model.
    pub long_walk: Duration,
    /// In a namespace with more connected sockets, an fd scan and the kernel's counts may stand in for a regular walk.
    pub many_sockets: u32,
    /// The counts of a namespace are compared with an fd scan if it was neither scanned nor counted for so long.
    pub count_after: Duration,
    /// Bytes of the ring buffer: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Whether the BPF programs send diagnostics.
    pub diagnostics: bool,
    /// Attach methods to use instead of the preferred ones.
    pub methods: ForcedMethods,
    /// Whether to report EMFILE and ENFILE of every call that makes descriptors, not only of socket() and accept().
    pub trace_all_fd_syscalls: bool,
    /// Beyond this share of all CPUs for ten seconds, hooks are suspended until the load has gone; `None` for no limit.
    pub max_cost: Option<CpuShare>,
    /// Bytes that wait for a slow reader of its inputs, at most: see [`crate::recording::Streams`].
    pub max_waiting: usize,
    /// What happens to the rights of the calling thread.
    pub after_attach: AfterAttach,
}

impl EngineOptions {
    /// Of the ring buffer, on hosts with few CPUs. Room for 100,000 records of 80 bytes: 120 ms at the 70 MB/s of a
    /// loopback that two CPUs saturate, on the fastest machine that was measured (docs/cost.md).
    pub const LEAST_RING_BYTES: u32 = 8 << 20;

    /// A look at the counts takes some 0.1 ms. Where walks are longer and namespaces few, the next regular one comes within a second
    /// anyhow.
    pub const LONG_WALK: Duration = Duration::from_millis(1);

    /// Fewer are walked in a few milliseconds: nothing is to be saved.
    pub const MANY_SOCKETS: u32 = 10_000;

    /// A walk may come much later.
    pub const COUNT_AFTER: Duration = Duration::from_secs(30);

    /// Bytes of the ring buffer on a host with so many CPUs: more CPUs write more records until the engine that was woken runs.
    #[must_use]
    pub fn ring_bytes(cpus: usize) -> u32 {
        /// Half of the largest power of two that the option takes.
        const MOST: u32 = 1 << 30;
        let by_cpus = u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(1 << 20);
        by_cpus.clamp(Self::LEAST_RING_BYTES, MOST).next_power_of_two()
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            purpose: Purpose::Session,
            scans: Scans::Regularly,
            first_look: FirstLook::All,
            watched: Watched::All,
            long_walk: Self::LONG_WALK,
            many_sockets: Self::MANY_SOCKETS,
            count_after: Self::COUNT_AFTER,
            ring_bytes: Self::ring_bytes(kernel::cpus()),
            diagnostics: false,
            methods: ForcedMethods::default(),
            trace_all_fd_syscalls: false,
            max_cost: None,
            max_waiting: MAX_WAITING,
            after_attach: AfterAttach::KeepRights,
        }
    }
}
