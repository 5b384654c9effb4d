//! Records of the running kernel.

use super::scan::Pass;
use crate::{
    errno::Refusal,
    model::quality::{Hook, Losses},
    probe::attach::Attached,
};

/// The attached programs, as a source of records.
pub struct Live {
    attached: Attached,
    diagnostics: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

impl Live {
    /// Takes over attached programs. Their diagnostics go to `tracing` if `diagnostics` is set.
    pub fn new(mut attached: Attached, diagnostics: bool) -> Result<Self, aya_log::Error> {
        let diagnostics = diagnostics.then(|| attached.logger()).transpose()?;
        Ok(Self { attached, diagnostics })
    }

    /// Passes every record in the ring buffer to `sink`, in order.
    pub fn drain(&mut self, mut sink: impl FnMut(&[u8])) {
        while let Some(record) = self.attached.events.next() {
            sink(&record);
        }
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

    /// Missed runs of all hooks; `None` where the kernel does not count them.
    #[must_use]
    pub fn missed(&self) -> Option<u64> {
        self.attached.missed()
    }

    /// Starts a pass over the kernel's table, in the network namespace of the calling thread.
    pub fn start_pass(&mut self, hook: Hook) -> Result<Pass, Refusal> {
        self.attached.open_iterator(hook).map(Pass::new)
    }

    /// Whether this hook is attached.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.attached.hooks.iter().any(|status| status.hook == hook && status.method.is_some())
    }
}
