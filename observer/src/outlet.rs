//! Writes that end: a terminal whose output is stopped (Ctrl-S, a pty that is full and nobody reads) takes nothing, and a
//! program that waits for it in write(2) hears no signal that it handles itself.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    termios::{Action, QueueSelector, tcflow, tcflush},
};

/// How long a message may wait for its terminal, and each attempt to give a terminal back.
const MESSAGE: Duration = Duration::from_secs(1);
const PARTING: Duration = Duration::from_millis(250);

/// Ends an escape sequence of which the terminal has got the beginning only.
const CANCEL: &[u8] = b"\x18";

/// Where bytes go that may not be taken.
#[derive(Debug)]
pub(crate) struct Outlet {
    file: File,
    /// So many bytes at once do not make write(2) wait once poll(2) says that there is room.
    at_once: usize,
    /// The file is ours alone, and write(2) never waits.
    is_nonblocking: bool,
}

impl Outlet {
    pub(crate) fn new(stream: impl AsFd) -> io::Result<Self> {
        let fd = stream.as_fd();
        if fd.is_terminal() {
            // O_NONBLOCK belongs to the open file description, which we share with the shell: this is one of our own.
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            if let Ok(file) = OpenOptions::new().write(true).custom_flags(flags).open(path) {
                return Ok(Self { file, at_once: usize::MAX, is_nonblocking: true });
            }
        }
        Ok(Self { file: fd.try_clone_to_owned()?.into(), at_once: room(fd), is_nonblocking: false })
    }

    /// Writes until all is taken or the time is over; returns how many bytes were taken.
    pub(crate) fn write_within(&self, bytes: &[u8], time: Duration) -> io::Result<usize> {
        write_within(self.file.as_fd(), bytes, time, self.at_once, self.is_nonblocking)
    }

    /// Writes the rest of a frame, and then what gives the terminal back. Output that is stopped is started again; where
    /// even then nobody reads, what waits in the terminal is discarded, so that there is room for the farewell.
    pub(crate) fn part(&self, rest: &[u8], farewell: &[u8]) -> io::Result<()> {
        let all = [rest, farewell].concat();
        let mut written = self.write_within(&all, PARTING)?;
        if written < all.len() {
            // TCOON alone starts only what TCOOFF has stopped (n_tty_ioctl_helper), and not what Ctrl-S has.
            tcflow(&self.file, Action::OOff)?;
            tcflow(&self.file, Action::OOn)?;
            written += self.write_within(&all[written..], PARTING)?;
        }
        if written < all.len() {
            tcflush(&self.file, QueueSelector::OFlush)?;
            self.write_within(&[CANCEL, farewell].concat(), PARTING)?;
        }
        Ok(())
    }
}

/// What a blocking write(2) takes without waiting, once poll(2) says that there is room.
fn room(fd: BorrowedFd<'_>) -> usize {
    // A terminal of another user (`su`) cannot be opened again: it says only that there is room for something. A pipe has
    // room for PIPE_BUF bytes.
    if fd.is_terminal() { 1 } else { 4096 }
}

fn write_within(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    time: Duration,
    at_once: usize,
    is_nonblocking: bool,
) -> io::Result<usize> {
    let deadline = Instant::now() + time;
    let mut written = 0;
    while written < bytes.len() {
        let end = written.saturating_add(at_once).min(bytes.len());
        if !is_nonblocking && !has_room_by(fd, deadline)? {
            break;
        }
        match rustix::io::write(fd, &bytes[written..end]) {
            Ok(0) => break,
            Ok(taken) => written += taken,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if !has_room_by(fd, deadline)? {
                    break;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn has_room_by(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.min(Duration::from_millis(999)).subsec_nanos()) };
        match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&left)) {
            Ok(0) if Instant::now() < deadline => {}
            // An error or a hang-up is for write(2) to report.
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            // poll() asks about no more descriptors than RLIMIT_NOFILE, which has become zero: tried again later.
            Err(Errno::INVAL) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A message for whoever started us; it is dropped where nobody takes it.
pub fn to_stderr(message: &str) {
    let (stderr, bytes) = (io::stderr(), message.as_bytes());
    // Nothing is left to be done where even standard error is gone.
    let _ = match Outlet::new(&stderr) {
        Ok(outlet) => outlet.write_within(bytes, MESSAGE),
        // No descriptor is left for one of our own: this may be the very message.
        Err(_) => write_within(stderr.as_fd(), bytes, MESSAGE, room(stderr.as_fd()), false),
    };
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_takes_what_it_has_room_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::new(&writer).unwrap();
        let much = vec![b'x'; 1 << 20];
        let taken = outlet.write_within(&much, Duration::from_millis(10)).unwrap();
        assert!(taken > 0 && taken < much.len(), "{taken}");
        drop((outlet, writer));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), taken);
    }

    /// Both ends of a pseudo-terminal.
    fn terminal() -> (Box<dyn portable_pty::MasterPty + Send>, File) {
        let pty = portable_pty::native_pty_system().openpty(portable_pty::PtySize::default()).unwrap();
        let path = pty.master.tty_name().unwrap();
        let flags = libc::O_NOCTTY;
        let slave = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap();
        (pty.master, slave)
    }

    #[test]
    fn a_terminal_that_nobody_reads_takes_what_it_has_room_for() {
        for reopens in [true, false] {
            let (master, slave) = terminal();
            let outlet = if reopens {
                Outlet::new(&slave).unwrap()
            } else {
                // As where it cannot be opened again.
                Outlet { file: slave.try_clone().unwrap(), at_once: 1, is_nonblocking: false }
            };
            let taken = outlet.write_within(&vec![b'x'; 1 << 16], Duration::from_millis(10)).unwrap();
            assert!(taken > 0 && taken < 1 << 16, "{taken}");
            // The farewell arrives all the same, at the cost of what was not read.
            outlet.part(&vec![b'y'; 1 << 16], b"farewell").unwrap();
            let mut reader = master.try_clone_reader().unwrap();
            let mut read = Vec::new();
            let mut bytes = [0; 4096];
            while !read.ends_with(b"\x18farewell") {
                let count = reader.read(&mut bytes).unwrap();
                read.extend_from_slice(&bytes[..count]);
            }
            let flags = rustix::fs::fcntl_getfl(&slave).unwrap();
            assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "the shell's own descriptor was changed");
        }
    }

    #[test]
    fn output_that_was_stopped_is_started_again() {
        let (master, slave) = terminal();
        let outlet = Outlet::new(&slave).unwrap();
        tcflow(&slave, Action::OOff).unwrap();
        assert_eq!(outlet.write_within(b"frame", Duration::from_millis(10)).unwrap(), 0);
        outlet.part(b"frame", b"farewell").unwrap();
        let mut read = [0; b"framefarewell".len()];
        master.try_clone_reader().unwrap().read_exact(&mut read).unwrap();
        assert_eq!(&read, b"framefarewell");
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = Outlet::new(&writer).unwrap().write_within(b"x", Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
