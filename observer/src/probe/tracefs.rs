//! Tracepoints are looked up in tracefs, which minimal hosts and containers leave unmounted. It is then mounted where
//! only one short-lived thread of ours sees it: nothing on the host changes.

use std::{path::Path, thread};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Runs `work` where tracefs is mounted, if that can be had.
pub(super) fn with_tracefs<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if PLACES.iter().any(|place| Path::new(place).join("events").exists()) {
        return work();
    }
    thread::scope(|scope| {
        let helper = scope.spawn(|| {
            if let Err(error) = mount_for_this_thread() {
                // The attempt that needs tracefs will fail and be shown with its reason.
                tracing::debug!(%error, "tracefs could not be mounted");
            }
            work()
        });
        helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mount_for_this_thread() -> rustix::io::Result<()> {
    // SAFETY: only this thread's view of mounts (and so its working directory) is split off; no file table is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tracefs", PLACES[0], "tracefs", MountFlags::RDONLY, None)
}
