//! Where the engine's thread rests between two polls: until its time has come, the ring fills, or somebody asks for something.

use std::{future::Future, io, os::fd::OwnedFd, pin::pin, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{Builder, Runtime},
    time::sleep,
};

use super::Engine;

/// A place to rest for one thread.
pub struct Rest {
    /// The ring buffer: its hooks wake who waits for it when a part of it is full.
    ring: Option<AsyncFd<OwnedFd>>,
    runtime: Runtime,
}

impl Rest {
    /// Opens it. `ring` is the descriptor of the ring buffer, if there is one. Fails where descriptors are short.
    pub(crate) fn new(ring: Option<OwnedFd>) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.context("open the event loop of the engine's thread")?;
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor changes; an OwnedFd's does not, and the successor is unsafe"
        )]
        let watch = |ring| AsyncFd::with_interest(ring, Interest::READABLE);
        let ring = runtime.block_on(async { ring.map(watch).transpose() }).context("wait for the ring buffer")?;
        Ok(Self { ring, runtime })
    }

    /// Waits for `asked`, and returns what it gave; `None` when `pause` is over before, or when the ring fills.
    pub fn wait<T>(&self, pause: Duration, asked: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                asked = asked => Some(asked),
                // Without a ring that can be waited for, time alone ends the rest.
                Ok(()) = self.ring_fills() => None,
                () = sleep(pause) => None,
            }
        })
    }

    async fn ring_fills(&self) -> io::Result<()> {
        match &self.ring {
            None => std::future::pending().await,
            Some(ring) => {
                // All of it is read next.
                ring.readable().await?.clear_ready();
                Ok(())
            }
        }
    }
}

impl Engine {
    /// Where the thread that polls can rest in between. Fails where descriptors are short.
    pub fn rest(&self) -> anyhow::Result<Rest> {
        let ring = self.live.ring().context("duplicate the descriptor of the ring buffer")?;
        Rest::new(Some(ring))
    }

    /// Polls until `over` is.
    pub fn poll_until(&mut self, rest: &Rest, over: impl Future) -> anyhow::Result<()> {
        let mut over = pin!(over);
        loop {
            self.poll()?;
            if rest.wait(self.pause(), &mut over).is_some() {
                return self.poll();
            }
        }
    }
}
