//! Tracepoints are looked up in tracefs, which minimal hosts and containers leave unmounted. One short-lived thread then
//! mounts it in a mount namespace of its own: nothing on the host changes.

use std::{fs, path::Path, sync::Mutex, thread};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Runs `work` where tracefs is mounted, if possible.
pub(super) fn with_tracefs<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if PLACES.iter().any(|place| Path::new(place).join("events").exists()) {
        return work();
    }
    // Without a thread the work runs here. The attempt that needs tracefs then fails, and its reason is shown.
    let work = Mutex::new(Some(work));
    let take = || work.lock().ok().and_then(|mut work| work.take());
    let on_helper = thread::scope(|scope| {
        let helper = thread::Builder::new().name("tracefs".to_owned()).spawn_scoped(scope, || {
            if let Err(error) = mount_for_this_thread() {
                tracing::debug!(%error, "tracefs could not be mounted");
            }
            take().map(|work| work())
        });
        match helper {
            Ok(helper) => helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => {
                tracing::debug!(%error, "no thread to mount tracefs in");
                take().map(|work| work())
            }
        }
    });
    on_helper.expect("the work runs once, on the thread that removes it")
}

/// The errno that this user gets from a mounted tracefs; `None` where it is open, or not mounted.
pub(super) fn refusal() -> Option<i32> {
    let looked = PLACES.iter().map(|place| fs::metadata(Path::new(place).join("events")));
    let mut answers = looked.filter_map(|looked| looked.err().and_then(|error| error.raw_os_error()));
    answers.find(|errno| matches!(*errno, libc::EACCES | libc::EPERM))
}

fn mount_for_this_thread() -> rustix::io::Result<()> {
    // SAFETY: only this thread's view of mounts (and so its working directory) is split off; no file table is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tracefs", PLACES[0], "tracefs", MountFlags::RDONLY, None)
}
