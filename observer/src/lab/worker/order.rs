//! What the lab tells its worker processes to do, what they answer, and the line between them: a Unix socket that keeps
//! messages apart, on which descriptors can travel.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddrV4,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longer than any message.
const MESSAGE: usize = 4096;

/// What a worker is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Open connections until there are `most` more, or one is refused. Answered by [`Answer::Connected`].
    Connect(Connect),
    /// Accept from the listener that comes with this order, as connections come, until `most` are held. Answered by
    /// [`Answer::Done`] at once.
    Accept {
        /// At most so many.
        most: u32,
    },
    /// Tell what was accepted so far, and look again at a listener that was refused. Answered by [`Answer::Accepted`].
    Tell,
    /// Close all that is held, at the other end's leave or not. Answered by [`Answer::Done`].
    Close(Goodbye),
    /// Set the soft limit of descriptors (`ulimit -n`). Answered by [`Answer::Files`].
    LimitFiles {
        /// The limit.
        soft: u64,
    },
}

/// Connections to be opened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Connect {
    /// Where to.
    pub(crate) to: SocketAddrV4,
    /// How many at most.
    pub(crate) most: u32,
    /// What comes before connect().
    pub(crate) bind: Bind,
}

/// What a client binds before it connects.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Bind {
    /// Nothing: the kernel chooses the source address and the port.
    Nothing,
    /// The address alone: `IP_BIND_ADDRESS_NO_PORT` leaves the port to connect().
    Address(std::net::Ipv4Addr),
    /// The address, and a port that bind() chooses without knowing the destination.
    AddressAndPort(std::net::Ipv4Addr),
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Goodbye {
    /// By the orderly exchange of FINs: the end that closes first keeps a TIME_WAIT.
    Fin,
    /// By a reset: nothing is left at either end.
    Reset,
}

/// What a worker answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// How many connections were opened, what ended that if it was not the number, and how long connect() took in the
    /// median, in nanoseconds.
    Connected { opened: u32, refused: Option<Refusal>, median_nanos: u64 },
    /// How many connections were accepted and are held, their local addresses (all of them, without repetition), and
    /// what accept() was refused with.
    Accepted { held: u32, locals: Vec<SocketAddrV4>, refused: Option<Refusal> },
    /// How many descriptors the process has open.
    Files { open: u64 },
    /// What went wrong that should not have.
    Failed(String),
}

/// A system call that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// The call.
    pub(crate) call: String,
    /// The number of the error.
    pub(crate) errno: i32,
}

/// One end of the line between the lab and a worker.
#[derive(Debug)]
pub(crate) struct Line(OwnedFd);

impl Line {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)?;
        Ok((Self(ours), theirs))
    }

    /// The end that a worker was given.
    pub(crate) const fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a message, with a descriptor.
    pub(crate) fn send(&self, message: &impl Serialize, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = with.into_iter().collect();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the next message, and the descriptor with it; `None` when the other end has gone away.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut bytes = [0; MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got.bytes,
            // It was killed with a message of ours unread.
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        if got == 0 {
            return Ok(None);
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(Some((serde_json::from_slice(&bytes[..got])?, fd)))
    }

    /// Waits until there is something to receive; `false` if there was nothing for so long.
    pub(crate) fn is_ready_within(&self, time: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_travel_with_a_descriptor() {
        let (ours, theirs) = Line::pair().unwrap();
        let theirs = Line::new(theirs);
        let file = std::fs::OpenOptions::new().read(true).open("/dev/null").unwrap();
        ours.send(&Order::Accept { most: 7 }, Some(file.as_fd())).unwrap();
        let (order, fd) = theirs.receive().unwrap().unwrap();
        assert!(matches!(order, Order::Accept { most: 7 }) && fd.is_some());
        drop(ours);
        assert!(theirs.receive::<Order>().unwrap().is_none());
    }
}
