//! What every output shows: a snapshot, what the reader requested beside it, and from where the reader looks at it.
//! Sources make frames; renderers (`export`) turn a frame into bytes, `tui` into a screen.
//!
//! The model knows neither labs nor replays: their state joins the snapshot here.
//!
//! A new source (a stream, a running service) implements [`FrameSource`]. A new output is a function of a [`Frame`].

mod exports;
mod live;
mod recorded;
pub mod timeline;
pub mod transcript;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

pub use self::{
    exports::{ExportCounts, ExportResult, SandboxParts},
    live::LiveSource,
    recorded::RecordedSource,
};
use self::{timeline::Timeline, transcript::Transcript};
use crate::{
    model::{
        query::Connections,
        snapshot::{ProcessFiles, Snapshot},
        units::NetnsId,
    },
    recording::RecorderStatus,
};

/// A snapshot with what a renderer or the screen has to know beside it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The state of the observed host.
    pub snapshot: Snapshot,
    /// The single connections that the screen requested.
    pub connections: Option<Connections>,
    /// Where the replay stands, if this is one on the screen.
    pub playback: Option<Playback>,
    /// Where that is in all that a recorder's directory has.
    pub timeline: Option<Timeline>,
    /// How the stream of a running service stands, if the screen shows one.
    pub attached: Option<Attached>,
    /// What the lab beside the screen has said, if one runs.
    pub transcript: Option<Arc<Transcript>>,
    /// The network namespace that texts mean by "here": the one that observer runs in. In a recording the host's own,
    /// or the only one. `None` where a recording has neither.
    pub own: Option<NetnsId>,
    /// Readings of the machine that runs this command. `None` for a recording, which does not contain them.
    pub local: Option<LocalReadings>,
    /// How often `observer serve` has replaced the process that speaks HTTP. `None` for every other command.
    pub http_restarts: Option<u64>,
    /// Parts of the sandbox of that process, and whether it does without them, once it serves. `None` for every other command.
    pub http_sandbox: Option<SandboxParts>,
    /// How exports of `observer serve --otlp` ended. `None` for every other command.
    pub otlp_exports: Option<ExportCounts>,
    /// How the recorder of `observer serve --recorder` stands. `None` for every other command.
    pub recorder: Option<RecorderStatus>,
}

/// Where a replay stands; its time is the snapshot's `uptime`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Playback {
    /// How much faster than it was recorded it goes on.
    pub speed: f64,
    /// It stands still, because somebody stopped it.
    pub is_stopped: bool,
    /// It stands still, because the recording is over.
    pub is_over: bool,
    /// It has shown all that has come of a recording that goes on.
    pub is_live: bool,
}

/// The stream of a service that observes the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The service has ended, or has ended the connection.
    pub is_over: bool,
    /// How long nothing has come. Something comes every second.
    pub silence: Duration,
}

/// A snapshot alone, with nothing known beside it.
impl From<Snapshot> for Frame {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            connections: None,
            playback: None,
            timeline: None,
            attached: None,
            transcript: None,
            own: None,
            local: None,
            http_restarts: None,
            http_sandbox: None,
            otlp_exports: None,
            recorder: None,
        }
    }
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
pub struct LocalReadings {
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
