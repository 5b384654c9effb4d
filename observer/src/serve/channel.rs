//! What the engine process and the HTTP process send each other, and the socket between them.
//!
//! Every message has 16 bytes: a kind, an argument and a number. Descriptors go to the HTTP process only. What it sends is
//! not trusted: the kernel drops descriptors that come from it, and a message that is none ends it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixDatagram as StdUnixDatagram,
    },
};

use rustix::{
    io::{Errno, ioctl_fionbio},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
    },
};
use tokio::{io::Interest, net::UnixDatagram};

use super::{
    bounds,
    sandbox::{Confinement, Step},
};
use crate::frame::ExportResult;

const BYTES: usize = 16;

/// What can be asked for over HTTP. Each is made by the engine process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DocumentKind {
    /// Series in OpenMetrics 1.0.
    OpenMetrics,
    /// Series in the text format 0.0.4.
    MetricsText,
    /// The JSON of `observer snapshot --json`.
    Snapshot,
    /// The page about observer itself.
    State,
    /// Series for an OTLP receiver. No path has it.
    Otlp,
}

impl DocumentKind {
    pub(super) const ALL: [Self; 5] = [Self::OpenMetrics, Self::MetricsText, Self::Snapshot, Self::State, Self::Otlp];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// Why there is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// It is larger than [`bounds::DOCUMENT_BYTES`].
    TooLarge,
    /// It could not be made.
    Failed,
    /// The engine attaches and scans: no frame came in time. The HTTP process says so itself, and the next too.
    NotYet,
    /// The engine did not answer.
    Silent,
}

impl Unavailable {
    const SENT: [Self; 2] = [Self::TooLarge, Self::Failed];
}

/// To the HTTP process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToHttp {
    /// The listening sockets, as descriptors.
    Listeners(u8),
    /// The engine runs; whether it has a frame.
    Ping { is_ready: bool },
    /// A document, as the descriptor of a sealed memory file with so many bytes.
    Document(DocumentKind, u64),
    /// There is none.
    None(DocumentKind, Unavailable),
    /// End.
    End,
    /// A connection to the OTLP receiver, as its descriptor.
    Connection,
    /// Why there is none: an errno.
    NoConnection(u32),
}

/// From the HTTP process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromHttp {
    /// It is confined and accepts connections.
    Ready(Confinement),
    /// It could not confine itself: which step failed, and an errno.
    Refused { step: Step, errno: u32 },
    /// Somebody wants a document.
    Want(DocumentKind),
    /// The answer to a ping.
    Pong,
    /// It needs a connection to the OTLP receiver.
    Connect,
    /// How an export ended, and the points, the HTTP status or the errno that explain it.
    Exported(ExportResult, u64),
}

/// A message as it is sent.
pub(super) type Wire = (u8, u8, u64);

pub(super) fn encode((kind, argument, number): Wire) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    (bytes[0], bytes[1]) = (kind, argument);
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Option<Wire> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let number = u64::from_le_bytes(bytes[8..].try_into().ok()?);
    bytes[2..8].iter().all(|byte| *byte == 0).then_some((bytes[0], bytes[1], number))
}

impl ToHttp {
    pub(super) fn wire(self) -> Wire {
        match self {
            Self::Listeners(count) => (0, count, 0),
            Self::Ping { is_ready } => (1, u8::from(is_ready), 0),
            Self::Document(kind, length) => (2, kind as u8, length),
            Self::None(kind, why) => (3, kind as u8, why as u64),
            Self::End => (4, 0, 0),
            Self::Connection => (5, 0, 0),
            Self::NoConnection(errno) => (6, 0, errno.into()),
        }
    }

    pub(super) fn from_wire(wire: Wire) -> Option<Self> {
        Some(match wire {
            (0, count, _) => Self::Listeners(count),
            (1, ready, _) => Self::Ping { is_ready: ready != 0 },
            (2, kind, length) => Self::Document(DocumentKind::from_byte(kind)?, length),
            (3, kind, why) => {
                Self::None(DocumentKind::from_byte(kind)?, *Unavailable::SENT.get(usize::try_from(why).ok()?)?)
            }
            (4, ..) => Self::End,
            (5, ..) => Self::Connection,
            (6, _, errno) => Self::NoConnection(u32::try_from(errno).ok()?),
            _ => return None,
        })
    }
}

impl FromHttp {
    pub(super) fn wire(self) -> Wire {
        match self {
            Self::Ready(confinement) => (0, confinement.bits(), 0),
            Self::Refused { step, errno } => (1, step as u8, errno.into()),
            Self::Want(kind) => (2, kind as u8, 0),
            Self::Pong => (3, 0, 0),
            Self::Connect => (4, 0, 0),
            Self::Exported(result, detail) => (5, result as u8, detail),
        }
    }

    pub(super) fn from_wire(wire: Wire) -> Option<Self> {
        Some(match wire {
            (0, bits, 0) => Self::Ready(Confinement::from_bits(bits)?),
            (1, step, errno) => Self::Refused { step: Step::from_byte(step)?, errno: u32::try_from(errno).ok()? },
            (2, kind, 0) => Self::Want(DocumentKind::from_byte(kind)?),
            (3, 0, 0) => Self::Pong,
            (4, 0, 0) => Self::Connect,
            (5, result, detail) => Self::Exported(*ExportResult::ALL.get(usize::from(result))?, detail),
            _ => return None,
        })
    }
}

/// An end of the channel in the event loop, which does not care that the socket also reports its end (SOCK_SEQPACKET).
fn in_event_loop(fd: OwnedFd) -> io::Result<UnixDatagram> {
    ioctl_fionbio(&fd, true)?;
    UnixDatagram::from_std(StdUnixDatagram::from(fd))
}

/// The engine process's end.
#[derive(Debug)]
pub(super) struct EngineEnd(UnixDatagram);

impl EngineEnd {
    /// Both ends. The other one waits in its calls, until it is an [`HttpEnd`].
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(in_event_loop(ours)?), theirs))
    }

    /// Sends without waiting. Fails with EAGAIN where the HTTP process reads nothing.
    pub(super) fn send(&self, message: ToHttp, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = encode(message.wire());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(bounds::LISTENERS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !with.is_empty() && !control.push(SendAncillaryMessage::ScmRights(with)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the next message; `None` when the HTTP process has ended, or has sent what is no message.
    pub(super) async fn receive(&self) -> Option<FromHttp> {
        let mut bytes = [0_u8; BYTES + 1];
        // No room for descriptors: the kernel closes those that come.
        let got =
            self.0.async_io(Interest::READABLE, || Ok(recv(&self.0, &mut bytes[..], RecvFlags::empty())?.0)).await;
        FromHttp::from_wire(decode(&bytes[..got.ok()?])?)
    }
}

/// The HTTP process's end.
#[derive(Debug)]
pub(super) struct HttpEnd(UnixDatagram);

impl HttpEnd {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        in_event_loop(fd).map(Self)
    }

    /// Sends without waiting.
    pub(super) fn send(&self, message: FromHttp) -> io::Result<()> {
        send(self.0.as_fd(), message)
    }

    /// Waits for the next message and its descriptors; `None` when the engine process has ended.
    pub(super) async fn receive(&self) -> Option<(ToHttp, Vec<OwnedFd>)> {
        self.0.async_io(Interest::READABLE, || receive(self.0.as_fd())).await.ok().flatten()
    }
}

/// Sends a message of the HTTP process.
pub(super) fn send(fd: BorrowedFd<'_>, message: FromHttp) -> io::Result<()> {
    let bytes = encode(message.wire());
    sendmsg(fd, &[IoSlice::new(&bytes)], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message of the engine process, with its descriptors.
pub(super) fn receive(fd: BorrowedFd<'_>) -> io::Result<Option<(ToHttp, Vec<OwnedFd>)>> {
    let mut bytes = [0; BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(bounds::LISTENERS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = match recvmsg(fd, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(got) => got.bytes,
        Err(Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    Ok(decode(&bytes[..got]).and_then(ToHttp::from_wire).map(|message| (message, fds)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::sandbox::Lack, *};

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        for kind in DocumentKind::ALL {
            for message in [
                ToHttp::Listeners(3),
                ToHttp::Ping { is_ready: true },
                ToHttp::Document(kind, u64::MAX),
                ToHttp::None(kind, Unavailable::TooLarge),
                ToHttp::None(kind, Unavailable::Failed),
                ToHttp::End,
                ToHttp::Connection,
                ToHttp::NoConnection(111),
            ] {
                assert_eq!(decode(&encode(message.wire())).and_then(ToHttp::from_wire), Some(message));
            }
            let confinement = Confinement::without([Lack::OtherUser]);
            for message in [
                FromHttp::Ready(confinement),
                FromHttp::Refused { step: Step::Landlock, errno: 1 },
                FromHttp::Want(kind),
                FromHttp::Pong,
                FromHttp::Connect,
                FromHttp::Exported(ExportResult::Failed, 111),
            ] {
                assert_eq!(decode(&encode(message.wire())).and_then(FromHttp::from_wire), Some(message));
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_of_the_http_process_are_a_message_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(message) = decode(&bytes).and_then(FromHttp::from_wire) {
                prop_assert_eq!(encode(message.wire()).to_vec(), bytes);
            }
        }
    }
}
