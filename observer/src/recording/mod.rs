//! Recordings: every [`Input`](crate::input::Input) of a live engine, with its time, in a file.
//!
//! ```text
//! file    = magic "observer" ‖ format: u16 ‖ chunk(header) ‖ chunk(entry*)*
//! chunk   = packed length: u32 ‖ unpacked length: u32 ‖ CRC-32 of both and of the block: u32 ‖ LZ4 block
//! header  = postcard(Header)
//! entry   = postcard(Entry)
//! ```
//!
//! Integers outside of postcard are little-endian; raw records are as the recording machine's kernel wrote them.
//! A chunk is complete or it is not read: a file that was cut off replays up to its last whole chunk, and a chunk is
//! written about four times a second. The rest is in docs/recording.md.
//!
//! **Invariant**: no bytes make the reader panic, or allocate more than [`MAX_CHUNK`] for a chunk.

mod chain;
mod chunk;
mod gathered;
pub mod greeting;
mod incident;
mod queue;
mod reader;
pub mod recorder;
mod spool;
mod stream_reader;
mod streams;
mod writer;

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    chain::{Chain, Extent},
    queue::MAX_WAITING,
    reader::{Next, Reader},
    recorder::{Recorder, RecorderBounds, RecorderStatus},
    spool::{Spool, SpoolReader},
    stream_reader::Sink,
    streams::Streams,
    writer::{Tally, Writer},
};
use crate::{
    input::Input,
    model::{
        Basis,
        quality::{HookStatus, Losses},
    },
};

const MAGIC: [u8; 8] = *b"observer";

/// The format that is written. Raised with every change of [`Input`], [`Header`] or the kernel side's records.
pub const FORMAT: u16 = 6;
/// The oldest format that is read.
pub const OLDEST_FORMAT: u16 = 4;

/// Entries are gathered up to here, or for a second.
const CHUNK: usize = 256 << 10;
/// No chunk is larger than this, packed or not: the longest entry is a reading of the host, a few thousand bytes.
const MAX_CHUNK: usize = 4 << 20;

/// What a replay has to know before the first entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the program that recorded.
    pub observer: String,
    /// Architecture of the machine, as Rust names it: its byte order and its system calls' numbers are the records'.
    pub arch: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Wall-clock time of the beginning, since the Unix epoch.
    pub started_at: Duration,
    /// Hooks that fed the model.
    pub hooks: Vec<HookStatus>,
    /// What the model has to know.
    pub basis: Basis,
    /// The time of the beginning on the clock of the entries. Not 0 where the engine had run before: a stream can begin at any
    /// round of scans.
    pub begins_at: Duration,
    /// Losses that the engine had counted before.
    pub losses_before: Losses,
}

/// What format 4 had: it began with the engine.
#[derive(Deserialize)]
struct HeaderOfFormat4 {
    observer: String,
    arch: String,
    kernel: String,
    started_at: Duration,
    hooks: Vec<HookStatus>,
    basis: Basis,
}

impl From<HeaderOfFormat4> for Header {
    fn from(header: HeaderOfFormat4) -> Self {
        let HeaderOfFormat4 { observer, arch, kernel, started_at, hooks, basis } = header;
        let (begins_at, losses_before) = (Duration::ZERO, Losses::default());
        Self { observer, arch, kernel, started_at, hooks, basis, begins_at, losses_before }
    }
}

/// An input and its time.
#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    /// Nanoseconds since start: they never go back.
    at_ns: u64,
    #[serde(borrow)]
    input: Input<'a>,
}

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It does not begin as one.
    #[error("this is not a recording of observer")]
    NotARecording,
    /// Written by another version.
    #[error("this recording has format {format}: {} reads it, and this one ({}) reads formats {OLDEST_FORMAT} to {FORMAT}", reads(writer.as_deref()), env!("CARGO_PKG_VERSION"))]
    Format {
        /// Its format.
        format: u16,
        /// The version that wrote it, if it says so where all formats did.
        writer: Option<String>,
    },
    /// Raw records of another architecture.
    #[error("this was recorded on {0}, and can be replayed there only")]
    Arch(String),
    /// It ends before its header is complete.
    #[error("this recording was cut off before it had begun")]
    NoHeader,
    /// The bytes are not those that were written.
    #[error("this recording is damaged in the chunk at byte {at}: {what}")]
    Damaged {
        /// Where the chunk begins.
        at: u64,
        /// In which way.
        what: &'static str,
    },
    /// The file could not be read.
    #[error("read the recording")]
    Io(#[from] io::Error),
}

/// Which version reads a recording that this one does not.
fn reads(writer: Option<&str>) -> String {
    writer.map_or_else(|| "the version that wrote it".to_owned(), |version| format!("observer {version}"))
}

/// A file of this format with chunks of any content, their check sums right.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn sealed(chunks: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut bytes = [&MAGIC[..], &FORMAT.to_le_bytes()].concat();
    for content in chunks {
        chunk::write(&mut bytes, content, &mut Vec::new())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
