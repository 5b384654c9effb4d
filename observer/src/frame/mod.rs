//! What every output shows: a snapshot, and the place from which the reader looks at it. Sources make frames; renderers
//! (`export`) turn a frame into bytes.
//!
//! A new source (a stream, a running service) implements [`FrameSource`]. A new output is a function of a [`Frame`].

mod live;
mod recorded;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

pub use self::{live::LiveSource, recorded::RecordedSource};
use crate::model::{
    snapshot::{ProcessFiles, Snapshot},
    units::NetnsId,
};

/// A snapshot, and what else a renderer needs.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The state of the observed host.
    pub snapshot: Snapshot,
    /// The network namespace that texts mean by "here": the one that observer runs in. In a recording the host's own,
    /// or the only one. `None` where a recording has neither.
    pub own: Option<NetnsId>,
    /// Readings of the machine that runs this command. `None` for a recording, which does not contain them.
    pub local: Option<Local>,
}

impl Frame {
    /// The namespace that needs no name in a text. No namespace has the number 0, so that where none is known every
    /// text names its namespace.
    pub(crate) fn unnamed(&self) -> NetnsId {
        self.own.unwrap_or(NetnsId(0))
    }
}

/// Readings that only the running host can give.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// Addresses of the own network namespace, without those of lo (`getifaddrs`).
    pub addresses: BTreeSet<IpAddr>,
    /// Open files and RLIMIT_NOFILE of this process.
    pub files: Option<ProcessFiles>,
}

/// How much a frame contains.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    /// Destinations of each endpoint, at most.
    pub destinations: usize,
    /// Whether [`Frame::local`] is read.
    pub local: bool,
}

impl Detail {
    /// For JSON: every destination.
    pub const ALL: Self = Self { destinations: usize::MAX, local: false };
    /// For a table: the most used destination.
    pub const TABLE: Self = Self { destinations: 1, local: false };
    /// For limits alone.
    pub const LIMITS: Self = Self { destinations: 0, local: false };
}

/// Where frames come from.
pub trait FrameSource {
    /// Reads up to `at`, in time since the source's start. False if the source ends there.
    fn advance_to(&mut self, at: Duration) -> anyhow::Result<bool>;

    /// Time since the source's start.
    fn now(&self) -> Duration;

    /// Everything as it is now.
    fn frame(&mut self, detail: Detail) -> anyhow::Result<Frame>;
}
