//! Records of the running kernel.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    thread,
    time::Duration,
};

use super::{records::Records, scan::Pass};
use crate::{
    errno::Refusal,
    model::quality::{Hook, Losses},
    probe::attach::Attached,
};

/// The attached programs, as a source of records.
pub struct Live {
    attached: Attached,
    /// Empty between two calls.
    records: Records,
    diagnostics: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

impl Live {
    /// Takes over attached programs. Their diagnostics go to `tracing` if `diagnostics` is set.
    pub fn new(mut attached: Attached, diagnostics: bool) -> Result<Self, aya_log::Error> {
        let diagnostics = diagnostics.then(|| attached.logger()).transpose()?;
        Ok(Self { attached, records: Records::default(), diagnostics })
    }

    /// Passes every record in the ring buffer to `sink`, in order, some at a time.
    pub fn drain(&mut self, mut sink: impl FnMut(&Records)) {
        loop {
            self.records.clear();
            while !self.records.is_full()
                && let Some(record) = self.attached.events.next()
            {
                self.records.push(&record);
            }
            if self.records.is_empty() {
                return;
            }
            sink(&self.records);
        }
    }

    /// The ring buffer, to wait for: it becomes readable when a part of it is full.
    pub fn ring(&self) -> io::Result<OwnedFd> {
        self.attached.events.as_fd().try_clone_to_owned()
    }

    /// Sends the diagnostics of the BPF programs to `tracing`.
    pub fn flush_diagnostics(&mut self) {
        if let Some(logger) = &mut self.diagnostics {
            logger.flush();
        }
    }

    /// Records that the BPF programs lost since load.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.attached.losses()
    }

    /// Whether the kernel lets this thread scan and read the counters of losses.
    #[must_use]
    pub fn serves_scans(&self) -> bool {
        self.attached.serves_scans()
    }

    /// Missed runs of all hooks; `None` where the kernel does not count them.
    #[must_use]
    pub fn missed(&self) -> Option<u64> {
        self.attached.missed()
    }

    /// CPU time of all hooks while the kernel timed them, since load.
    #[must_use]
    pub fn hook_time(&self) -> Duration {
        self.attached.hook_time()
    }

    /// Lets the kernel time all BPF programs of the host until the descriptor is closed. Fails without CAP_SYS_ADMIN.
    pub fn time_programs(&self) -> Result<OwnedFd, Refusal> {
        self.attached.time_programs()
    }

    /// Begins to detach a hook from events of system calls, and waits for no end of it.
    pub fn detach_from_calls(&mut self, hook: Hook) {
        let links = self.attached.take_call_links(hook);
        // Without a thread they are dropped here.
        let _ = thread::Builder::new().name("detach".to_owned()).spawn(move || drop(links));
    }

    /// Suspends the hooks that follow sockets, or resumes them.
    pub fn set_suspended(&mut self, is_suspended: bool) -> Result<(), Refusal> {
        self.attached.set_suspended(is_suspended)
    }

    /// Records that suspended hooks did not write, since load.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.attached.skipped()
    }

    /// Starts a pass over the kernel's table, in the network namespace of the calling thread.
    pub fn start_pass(&self, hook: Hook) -> Result<Pass, Refusal> {
        self.attached.start_pass(hook).map(Pass::new)
    }

    /// Whether this hook is attached.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.attached.hooks.iter().any(|status| status.hook == hook && status.method.is_some())
    }
}
