//! A stream on its way into a replay: what has come is kept in a file without a name, so that a replay can go back in it.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::fs::{FallocateFlags, fallocate};

/// Bytes that are kept, at most: days of a quiet host. Beyond, the beginning is dropped once it was shown.
const MOST: u64 = 1 << 30;
/// Bytes that are read at once.
const AT_ONCE: usize = 64 << 10;

#[derive(Default)]
struct State {
    written: u64,
    /// What the replay has taken in.
    played: u64,
    /// What was dropped of the beginning.
    dropped: u64,
    /// How the stream ended.
    outcome: Option<Result<(), Arc<io::Error>>>,
}

struct Shared {
    file: File,
    most: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has come of a stream, and a thread that waits for more.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

impl Spool {
    /// Reads `source` to its end, as far as there is room.
    pub fn start(source: impl Read + Send + 'static) -> io::Result<Self> {
        Self::start_with(source, MOST)
    }

    fn start_with(mut source: impl Read + Send + 'static, most: u64) -> io::Result<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { file: tempfile::tempfile()?, most, state, changed });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("spool".to_owned()).spawn(move || {
            let outcome = fill(&of_thread, &mut source);
            of_thread.lock().outcome = Some(outcome.map_err(Arc::new));
            of_thread.changed.notify_all();
        })?;
        Ok(Self(shared))
    }

    /// From the beginning.
    #[must_use]
    pub fn reader(&self) -> SpoolReader {
        SpoolReader { spool: self.clone(), at: 0 }
    }

    /// Waits until there is more than `known` bytes, or the stream has ended; returns how many there are.
    #[must_use]
    pub fn wait_for_more(&self, known: u64) -> u64 {
        let mut state = self.0.lock();
        while state.written <= known && state.outcome.is_none() {
            state = self.0.wait(state);
        }
        state.written
    }

    /// Whether the stream has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.lock().outcome.is_some()
    }

    /// Whether the beginning is still there.
    #[must_use]
    pub fn has_beginning(&self) -> bool {
        self.0.lock().dropped == 0
    }

    /// The replay has taken in so many bytes.
    pub fn set_played(&self, played: u64) {
        self.0.lock().played = played;
        self.0.changed.notify_all();
    }
}

/// Reads what has come. Where the stream has not ended, and nothing more has come, that is [`ErrorKind::WouldBlock`].
pub struct SpoolReader {
    spool: Spool,
    at: u64,
}

impl Read for SpoolReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let shared = &self.spool.0;
        let state = shared.lock();
        let there = usize::try_from(state.written.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if there == 0 && !bytes.is_empty() {
            return match &state.outcome {
                None => Err(ErrorKind::WouldBlock.into()),
                Some(Ok(())) => Ok(0),
                Some(Err(error)) => Err(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error)),
            };
        }
        drop(state);
        let length = bytes.len().min(there);
        let read = shared.file.read_at(&mut bytes[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn fill(shared: &Shared, source: &mut impl Read) -> io::Result<()> {
    let mut bytes = vec![0; AT_ONCE];
    loop {
        let read = match source.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let written = wait_for_room(shared)?;
        shared.file.write_all_at(&bytes[..read], written)?;
        shared.lock().written = written + read as u64;
        shared.changed.notify_all();
    }
}

/// Waits until what is not shown yet leaves room, and drops of the beginning what was shown. Returns how much there is.
fn wait_for_room(shared: &Shared) -> io::Result<u64> {
    let mut state = shared.lock();
    while state.written - state.played >= shared.most {
        state = shared.wait(state);
    }
    let (from, to) = (state.dropped, state.played);
    // Not for every few bytes.
    if state.written - from >= shared.most && to - from >= shared.most / 4 {
        state.dropped = to;
        drop(state);
        fallocate(&shared.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, to - from)?;
        state = shared.lock();
    }
    Ok(state.written)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn what_has_come_can_be_read_twice_and_the_rest_when_it_comes() {
        let (source, mut sink) = io::pipe().unwrap();
        let spool = Spool::start(source).unwrap();
        sink.write_all(b"abc").unwrap();
        assert_eq!(spool.wait_for_more(2), 3);
        let mut bytes = [0; 8];
        let mut reader = spool.reader();
        assert_eq!((reader.read(&mut bytes).unwrap(), &bytes[..3]), (3, &b"abc"[..]));
        assert_eq!(reader.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(spool.reader().read(&mut bytes).unwrap(), 3);
        sink.write_all(b"d").unwrap();
        drop(sink);
        assert_eq!(spool.wait_for_more(3), 4);
        assert_eq!((reader.read(&mut bytes).unwrap(), bytes[0]), (1, b'd'));
        assert_eq!(spool.wait_for_more(4), 4);
        assert!(spool.has_ended() && reader.read(&mut bytes).unwrap() == 0);
    }

    #[test]
    fn a_stream_without_end_takes_bounded_room_and_waits_for_its_replay() {
        const MOST: u64 = 1 << 20;
        let spool = Spool::start_with(io::repeat(7), MOST).unwrap();
        assert!(spool.wait_for_more(MOST - 1) >= MOST);
        let (mut reader, mut bytes, mut played) = (spool.reader(), vec![0; 1 << 16], 0);
        for _ in 0..200 {
            let there = spool.wait_for_more(played);
            assert!(there - played <= MOST + AT_ONCE as u64, "{there} of {played}");
            let read = reader.read(&mut bytes).unwrap();
            assert!(bytes[..read].iter().all(|byte| *byte == 7));
            played += read as u64;
            spool.set_played(played);
        }
        let room = spool.0.file.metadata().unwrap().blocks() * 512;
        assert!(played > 8 * MOST && room <= 3 * MOST && !spool.has_beginning(), "{room} bytes for {played}");
    }
}
