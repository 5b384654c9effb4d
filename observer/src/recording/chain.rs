//! Segments of a recorder that follow each other, read as one recording.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Entry, Header, ReadError, Reader, chunk};
use crate::input;

/// What a recording holds, found without reading all of it.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Its file.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// Time from its beginning to its last entry.
    pub length: Duration,
    /// Where it goes on if what comes before it is known: behind the header, and behind the last readings where none was lost.
    body: u64,
    /// Where the last whole chunk ends.
    end: u64,
}

impl Extent {
    /// Reads the header and the last whole chunk.
    pub fn of(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path)?;
        let reader = Reader::start(&file)?;
        let (header, header_end) = (reader.header().clone(), reader.position());
        let body = end_of_readings(&file, header_end)?;
        let mut extent = Self { path: path.to_owned(), header, length: Duration::ZERO, body, end: header_end };
        if let Some((at, end)) = chunk::last(&file, header_end, file.metadata()?.len())? {
            (&file).seek(SeekFrom::Start(at))?;
            let mut chunks = chunk::Chunks::new(&file, at);
            if chunks.advance()? {
                let mut rest = chunks.bytes();
                while !rest.is_empty() {
                    let (Entry { at_ns, .. }, more) =
                        postcard::take_from_bytes(rest).map_err(|_| chunks.damaged("an entry makes no sense"))?;
                    extent.length = Duration::from_nanos(at_ns).saturating_sub(extent.header.begins_at);
                    rest = more;
                }
            }
            extent.end = end;
        }
        extent.body = extent.body.min(extent.end);
        Ok(extent)
    }

    /// Whether the same engine went on with the next recording without a gap in its clock.
    #[must_use]
    pub fn is_of_same_engine(&self, next: &Self) -> bool {
        let start = |header: &Header| {
            let of_kernel = header.basis.started_at.map(|at| at.saturating_sub(header.begins_at));
            (of_kernel, header.started_at.saturating_sub(header.begins_at))
        };
        match (start(&self.header), start(&next.header)) {
            ((Some(one), _), (Some(other), _)) => one == other,
            // The wall clock is not as steady.
            ((None, one), (None, other)) => one.abs_diff(other) < Duration::from_secs(1),
            _ => false,
        }
    }
}

/// Where the chunks end that have nothing but readings which a model has that took in what comes before them. A second time they
/// would say that since then nothing was dropped. After a loss they are needed.
fn end_of_readings(mut file: &File, header_end: u64) -> Result<u64, ReadError> {
    file.seek(SeekFrom::Start(header_end))?;
    let (mut chunks, mut end) = (chunk::Chunks::new(BufReader::new(file), header_end), header_end);
    while chunks.advance()? {
        let mut rest = chunks.bytes();
        while !rest.is_empty() {
            let (Entry { input, .. }, more) =
                postcard::take_from_bytes(rest).map_err(|_| chunks.damaged("an entry makes no sense"))?;
            if !input::is_reading(&input) {
                return Ok(end);
            }
            rest = more;
        }
        end = chunks.position();
    }
    Ok(end)
}

/// The bytes of the first recording, and of each following one what comes after its beginning.
pub struct Chain {
    current: io::Take<BufReader<File>>,
    /// Each with where to begin, and how many bytes there are.
    following: VecDeque<(PathBuf, u64, u64)>,
}

impl Chain {
    /// At least one recording, and those that follow it without a gap.
    pub fn open(first: &Extent, following: &[Extent]) -> io::Result<Self> {
        let following = following.iter().map(|it| (it.path.clone(), it.body, it.end - it.body)).collect();
        Ok(Self { current: part(&first.path, 0, first.end)?, following })
    }
}

fn part(path: &Path, from: u64, bytes: u64) -> io::Result<io::Take<BufReader<File>>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    Ok(BufReader::new(file).take(bytes))
}

impl Read for Chain {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(bytes)?;
            if read > 0 || bytes.is_empty() {
                return Ok(read);
            }
            let Some((path, from, length)) = self.following.pop_front() else { return Ok(0) };
            self.current = part(&path, from, length)?;
        }
    }
}
