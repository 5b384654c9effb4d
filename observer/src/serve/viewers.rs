//! Viewers of the live screen, on a Unix socket of their own. The engine process sends each the stream of its inputs, and reads
//! nothing from them.

use std::{
    io::{self, Write},
    net::Shutdown,
    os::unix::{fs::chown, net::UnixStream},
    path::Path,
    sync::Arc,
};

use tokio::{net::UnixListener, time::sleep};

use super::{
    bounds,
    listen::{self, SocketFile},
};
use crate::{
    host::text,
    recording::{Sink, greeting},
};

/// The group whose users may attach, where there is one of this name.
const GROUP: &str = "observer";

/// The socket that viewers connect to.
#[derive(Debug)]
pub(super) struct AttachSocket {
    listener: UnixListener,
    #[expect(dead_code, reason = "it is removed when this is dropped")]
    file: SocketFile,
    /// One more for each viewer.
    viewers: Arc<()>,
}

/// A connected viewer, while it is there.
struct Viewer {
    stream: UnixStream,
    #[expect(dead_code, reason = "it is counted")]
    seat: Arc<()>,
}

impl Write for Viewer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl AttachSocket {
    /// Makes it: mode 0660, of the group `observer` if there is one, and else of that of this process.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let (listener, file) = listen::bind_unix_socket(path)?;
        if let Some(group) = group_id(GROUP)
            && let Err(error) = chown(path, None, Some(group))
        {
            tracing::warn!(%error, "the socket for viewers keeps the group of this process");
        }
        Ok(Self { listener: UnixListener::from_std(listener)?, file, viewers: Arc::default() })
    }

    /// Waits for a viewer; `None` for one that gets nothing. It can be dropped at any time.
    pub(super) async fn accept(&self) -> Option<Sink> {
        match self.listener.accept().await {
            Ok((stream, _)) => {
                self.greet(stream).inspect_err(|error| tracing::debug!(%error, "greet a viewer")).ok()?
            }
            Err(error) => {
                tracing::warn!(%error, "accept a viewer");
                sleep(bounds::ACCEPT_PAUSE).await;
                None
            }
        }
    }

    /// What is sent here fits into the buffer of a new connection: nothing waits.
    fn greet(&self, stream: tokio::net::UnixStream) -> io::Result<Option<Sink>> {
        let mut stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(bounds::VIEWER_STALL))?;
        stream.shutdown(Shutdown::Read)?;
        if Arc::strong_count(&self.viewers) > bounds::VIEWERS {
            let sentence = format!("{} viewers are attached, which is the most: end one of them", bounds::VIEWERS);
            stream.write_all(greeting::refusal(&sentence).as_bytes())?;
            return Ok(None);
        }
        stream.write_all(greeting::stream().as_bytes())?;
        Ok(Some(Sink::Viewer(Box::new(Viewer { stream, seat: Arc::clone(&self.viewers) }))))
    }
}

/// The number of a group of this host.
fn group_id(name: &str) -> Option<u32> {
    // Through the file alone: the libraries that getgrnam(3) loads have no place in a process with these rights.
    let groups = text::string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_etc_group() {
        // Every Linux host has it.
        assert_eq!((group_id("root"), group_id("no such group")), (Some(0), None));
    }
}
