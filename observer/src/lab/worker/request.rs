//! Requests of the lab to its worker processes, their responses, and the channel between them: a Unix socket that keeps
//! message boundaries and can carry fds.

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

/// What the lab requests of a worker.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Open `most` more connections, or stop at the first refusal. The response is [`Response::Connected`].
    Connect(Connect),
    /// Accept connections from the listener that comes with this request, until `most` are open. The response is
    /// [`Response::Done`] at once.
    Accept {
        /// At most this many.
        most: u32,
    },
    /// Report what this worker has accepted, and call accept() again if it was refused. The response is
    /// [`Response::Accepted`].
    ReportAccepted,
    /// Close all connections. The response is [`Response::Done`].
    Close(CloseWith),
    /// Set the soft fd limit (`ulimit -n`). The response is [`Response::Files`].
    LimitFiles {
        /// The limit.
        soft: u64,
    },
}

/// Connections for a client to open.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Connect {
    /// The destination.
    pub(crate) to: SocketAddrV4,
    /// How many at most.
    pub(crate) most: u32,
    /// What to bind before connect().
    pub(crate) bind: ClientBind,
}

/// What a client binds before it connects.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum ClientBind {
    /// Nothing: the kernel chooses the source address and the port.
    Nothing,
    /// The address alone: `IP_BIND_ADDRESS_NO_PORT` leaves the port to connect().
    Address(std::net::Ipv4Addr),
    /// The address, and a port that bind() chooses without knowing the destination.
    AddressAndPort(std::net::Ipv4Addr),
}

/// How to close connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CloseWith {
    /// With FINs: the end that closes first stays in TIME_WAIT.
    Fin,
    /// With a reset: neither end stays.
    Reset,
}

/// A worker's response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// The worker has served the request.
    Done,
    /// How many connections the client opened, the refusal that ended it (if the number did not), and the median
    /// duration of connect() in nanoseconds.
    Connected { opened: u32, refused: Option<Refusal>, connect_median_ns: u64 },
    /// How many accepted connections are open, their distinct local addresses, and the refusal of accept() (if there
    /// was one).
    Accepted { count: u32, locals: Vec<SocketAddrV4>, refused: Option<Refusal> },
    /// How many fds the process has open.
    Files { open: u64 },
    /// An unexpected error.
    Failed(String),
}

/// A system call that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// The call.
    pub(crate) call: String,
    /// Its errno.
    pub(crate) errno: i32,
}

/// One end of the channel between the lab and a worker.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)?;
        Ok((Self(ours), theirs))
    }

    /// The worker's end.
    pub(crate) const fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a message, with an fd if there is one.
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

    /// Waits for the next message and its fd; `None` when the other end has closed.
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

    /// Waits until a message has arrived; `false` if none does within this time.
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

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_an_fd() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs);
        let file = std::fs::OpenOptions::new().read(true).open("/dev/null").unwrap();
        ours.send(&Request::Accept { most: 7 }, Some(file.as_fd())).unwrap();
        let (request, fd) = theirs.receive().unwrap().unwrap();
        assert!(matches!(request, Request::Accept { most: 7 }) && fd.is_some());
        drop(ours);
        assert!(theirs.receive::<Request>().unwrap().is_none());
    }
}
