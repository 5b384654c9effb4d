//! The clocks that the kernel keeps: that of its records, and that of our own work.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` tells it.
#[must_use]
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// `CLOCK_PROCESS_CPUTIME_ID`: what all threads of this process have taken of CPUs.
#[must_use]
pub fn own_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
