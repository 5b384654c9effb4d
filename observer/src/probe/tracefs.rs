//! Tracepoints are looked up in tracefs, which minimal hosts and containers leave unmounted. It is then mounted where
//! only one short-lived thread of ours sees it: nothing on the host changes.

use std::{fs, path::Path, sync::Mutex, thread};

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
    // What finds no thread is done here, where the attempt that needs tracefs will fail and be shown with its reason.
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
    on_helper.expect("the work is taken once, by the one who does it")
}

/// What this user is answered who looks into a tracefs that is mounted; `None` where it is open, or not there.
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
