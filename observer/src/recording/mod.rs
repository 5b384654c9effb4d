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
//! written at least once a second. The rest is in docs/recording.md.
//!
//! **Invariant**: no bytes make the reader panic, or allocate more than [`MAX_CHUNK`] for a chunk.

mod chunk;
mod reader;
mod writer;

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    reader::{Next, Reader},
    writer::{Tally, Writer},
};
use crate::{
    input::Input,
    model::{Basis, quality::HookStatus},
};

const MAGIC: [u8; 8] = *b"observer";

/// The format that is written and read. Raised with every change of [`Input`], [`Header`] or the kernel side's records.
pub const FORMAT: u16 = 4;

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
    /// Wall-clock time of the entries' time 0, since the Unix epoch.
    pub started_at: Duration,
    /// Hooks that fed the model.
    pub hooks: Vec<HookStatus>,
    /// What the model had to know.
    pub basis: Basis,
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
    #[error("this recording has format {0}, this version of observer reads format {FORMAT}")]
    Format(u16),
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

#[cfg(test)]
mod tests;
