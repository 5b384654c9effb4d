//! A stop of the whole process group by a process that is not root any more. A shell waits for the script or the `cargo run`
//! above us to stop too, and these are still root's.
//!
//! fcntl(2): the kernel checks a signal of F_SETSIG with the user that called F_SETOWN, and not with the one that is there when
//! it is sent. What was opened as root sends one signal to one group, and can do nothing else.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Signal, getpgrp},
};

/// Opened before the user changes.
pub(super) struct GroupStop {
    signalled: UnixStream,
    signals: UnixStream,
}

impl GroupStop {
    pub(super) fn open() -> io::Result<Self> {
        /// Of include/uapi/asm-generic/fcntl.h; libc has it for few targets.
        const SET_SIGNAL: libc::c_int = 10;
        let (signalled, signals) = UnixStream::pair()?;
        signalled.set_nonblocking(true)?;
        fcntl(signalled.as_fd(), libc::F_SETOWN, -getpgrp().as_raw_nonzero().get())?;
        fcntl(signalled.as_fd(), SET_SIGNAL, Signal::STOP.as_raw())?;
        Ok(Self { signalled, signals })
    }

    /// Whether what arrives sends the signal. The end of the other side arrives too: it must not when observer ends.
    fn arm(&self, is_armed: bool) -> io::Result<()> {
        let mut flags = fcntl_getfl(&self.signalled)?;
        flags.set(OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned()), is_armed);
        Ok(fcntl_setfl(&self.signalled, flags)?)
    }

    /// Stops the group, this process too.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.arm(true)?;
        let sent = (&self.signals).write_all(&[0]);
        // Here it goes on.
        self.arm(false)?;
        sent?;
        (&self.signalled).read(&mut [0; 8]).map(drop)
    }
}

fn fcntl(fd: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: these commands take an int, and reach no memory of ours.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
