//! Chunks: as much of a recording as is written, packed and checked in one piece.

use std::{
    io::{self, Read, Write},
    os::unix::fs::FileExt,
};

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

/// Where the last whole chunk begins and ends among those that begin `at` so many bytes of a file with so many `bytes`. Nothing
/// but their lengths is read.
pub(super) fn last(file: &impl FileExt, mut at: u64, bytes: u64) -> io::Result<Option<(u64, u64)>> {
    let (mut head, mut last) = ([0; HEAD], None);
    while at + HEAD as u64 <= bytes {
        file.read_exact_at(&mut head, at)?;
        let packed = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
        let end = at + HEAD as u64 + packed;
        if packed == 0 || packed > MAX_CHUNK as u64 || end > bytes {
            break;
        }
        last = Some((at, end));
        at = end;
    }
    Ok(last)
}

/// Chunks, read one after the other. Where the source has no whole chunk yet, the next look goes on from there.
pub(super) struct Chunks<R> {
    source: R,
    /// The next chunk as it is stored, as far as it was read.
    stored: Vec<u8>,
    filled: usize,
    bytes: Vec<u8>,
    began: u64,
    ended: u64,
    /// The source said that it ends there.
    is_at_end: bool,
}

impl<R: Read> Chunks<R> {
    /// The chunks of `source`, which begin `at` so many bytes.
    pub(super) fn new(source: R, at: u64) -> Self {
        let (stored, bytes) = (Vec::new(), Vec::new());
        Self { source, stored, filled: 0, bytes, began: at, ended: at, is_at_end: false }
    }

    /// What the chunk holds that was read last.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the chunk ends that was read last.
    pub(super) const fn position(&self) -> u64 {
        self.ended
    }

    /// Whether the last look found the end of the source, and not only that nothing has come yet.
    pub(super) const fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// That chunk is not what was written.
    pub(super) const fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { at: self.began, what }
    }

    /// Goes to the next chunk; false if there is no whole one any more, or none yet.
    pub(super) fn advance(&mut self) -> Result<bool, ReadError> {
        self.bytes.clear();
        self.began = self.ended;
        if !self.fill(HEAD)? {
            return Ok(false);
        }
        let head = &self.stored;
        let [packed, unpacked, sum] =
            [0, 4, 8].map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        let [packed, unpacked] = [packed as usize, unpacked as usize];
        if packed > MAX_CHUNK || unpacked > MAX_CHUNK || packed == 0 || unpacked == 0 {
            return Err(self.damaged("its length makes no sense"));
        }
        let length = HEAD + packed;
        if !self.fill(length)? {
            return Ok(false);
        }
        if check_sum(&self.stored[..8], &self.stored[HEAD..length]) != sum {
            return Err(self.damaged("its check sum is wrong"));
        }
        self.bytes.resize(unpacked, 0);
        if lz4_flex::block::decompress_into(&self.stored[HEAD..length], &mut self.bytes).ok() != Some(unpacked) {
            self.bytes.clear();
            return Err(self.damaged("it cannot be unpacked"));
        }
        self.filled = 0;
        self.ended += length as u64;
        Ok(true)
    }

    /// Reads until there are so many bytes of the chunk; false if the source has not as many now.
    fn fill(&mut self, length: usize) -> io::Result<bool> {
        if self.stored.len() < length {
            self.stored.resize(length, 0);
        }
        while self.filled < length {
            match self.source.read(&mut self.stored[self.filled..length]) {
                Ok(0) => {
                    self.is_at_end = true;
                    return Ok(false);
                }
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_at_end = false;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.is_at_end = false;
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
