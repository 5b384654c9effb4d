//! Threads that work for another one, which waits for them.

use std::{io, panic, thread, time::Duration};

use super::clock;

/// A helper at work.
pub(crate) type Helper<'scope, T> = thread::ScopedJoinHandle<'scope, (T, Duration)>;

/// Starts a thread whose CPU time is work of the thread that joins it.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<Helper<'scope, T>> {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || (work(), clock::thread_cpu()))
}

/// Waits for its end.
pub(crate) fn join<T>(helper: Helper<'_, T>) -> T {
    let (done, cpu) = helper.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
    clock::add_helper(cpu);
    done
}
