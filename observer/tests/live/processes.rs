//! Other processes. None of them ever has a copy of this process's fds, not even until its exec: the tests run in
//! parallel, and close() does not close a socket while another process has a copy of its fd.

use std::{
    io,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// Runs a program to its end, in the calling thread's network namespace.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    without_descriptors(|| command.output())
}

/// Starts a program in the calling thread's network namespace. Its standard input is the line's other end.
pub(crate) fn start_program(command: &mut Command) -> io::Result<(Child, UnixStream)> {
    static LINES: AtomicU32 = AtomicU32::new(0);
    let name = format!("observer-test-{}-{}", std::process::id(), LINES.fetch_add(1, Ordering::Relaxed));
    let address = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address)?;
    let child = without_descriptors(|| {
        let theirs = OwnedFd::from(UnixStream::connect_addr(&address)?);
        // bash takes a socket for the input of rshd, and reads ~/.bashrc first, unless a shell has started it.
        let child = command.env("SHLVL", "1").stdin(theirs).spawn();
        // The command stays, but its fd must not: the same number is another file on other threads.
        command.stdin(Stdio::null());
        child
    })?;
    Ok((child, listener.accept()?.0))
}

/// Calls `f` on a thread whose own table of descriptors has the standard ones and no other.
fn without_descriptors<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let on_thread = || {
        // SAFETY: what is closed is closed in a table that this call makes for this thread, which owns none of it.
        match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) } {
            0 => f(),
            _ => Err(io::Error::last_os_error()),
        }
    };
    thread::scope(|scope| scope.spawn(on_thread).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
