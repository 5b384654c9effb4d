//! Chunks: as much of a recording as is written, packed and checked in one piece.

use std::io::{self, Read, Write};

use super::{MAX_CHUNK, ReadError};

/// Packed length, unpacked length, CRC-32 of these two and of the packed bytes: little-endian.
const HEAD: usize = 12;

fn check_sum(lengths: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lengths);
    hasher.update(packed);
    hasher.finalize()
}

/// Packs and writes `bytes`; returns how many were written. `packed` is room that is used again.
pub(super) fn write(sink: &mut impl Write, bytes: &[u8], packed: &mut Vec<u8>) -> io::Result<u64> {
    packed.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
    let length = lz4_flex::block::compress_into(bytes, packed).map_err(io::Error::other)?;
    let packed = &packed[..length];
    let mut head = [0; HEAD];
    for (to, length) in head.chunks_exact_mut(4).zip([packed.len(), bytes.len()]) {
        to.copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
    }
    let sum = check_sum(&head[..8], packed);
    head[8..].copy_from_slice(&sum.to_le_bytes());
    sink.write_all(&head)?;
    sink.write_all(packed)?;
    Ok((HEAD + length) as u64)
}

/// Chunks, read one after the other.
pub(super) struct Chunks<R> {
    source: R,
    packed: Vec<u8>,
    bytes: Vec<u8>,
    began: u64,
    ended: u64,
}

impl<R: Read> Chunks<R> {
    /// The chunks of `source`, which begin `at` so many bytes.
    pub(super) const fn new(source: R, at: u64) -> Self {
        Self { source, packed: Vec::new(), bytes: Vec::new(), began: at, ended: at }
    }

    /// What the chunk holds that was read last.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// That chunk is not what was written.
    pub(super) const fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { at: self.began, what }
    }

    /// Goes to the next chunk; false if there is no whole one any more.
    pub(super) fn advance(&mut self) -> Result<bool, ReadError> {
        self.bytes.clear();
        self.began = self.ended;
        let mut head = [0; HEAD];
        if !fill(&mut self.source, &mut head)? {
            return Ok(false);
        }
        let [packed, unpacked, sum] =
            [0, 4, 8].map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        let [packed, unpacked] = [packed as usize, unpacked as usize];
        if packed > MAX_CHUNK || unpacked > MAX_CHUNK || packed == 0 || unpacked == 0 {
            return Err(self.damaged("its length makes no sense"));
        }
        self.packed.resize(packed, 0);
        if !fill(&mut self.source, &mut self.packed)? {
            return Ok(false);
        }
        if check_sum(&head[..8], &self.packed) != sum {
            return Err(self.damaged("its check sum is wrong"));
        }
        self.bytes.resize(unpacked, 0);
        if lz4_flex::block::decompress_into(&self.packed, &mut self.bytes).ok() != Some(unpacked) {
            self.bytes.clear();
            return Err(self.damaged("it cannot be unpacked"));
        }
        self.ended += (HEAD + packed) as u64;
        Ok(true)
    }
}

/// Fills `bytes`; false if there are not as many.
pub(super) fn fill(source: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match source.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
