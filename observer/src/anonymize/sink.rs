//! Recordings on their way through: whole ones, and those that are being made.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Anonymizer;
use crate::recording::{Next, ReadError, Reader, Tally, Writer};

/// Why a recording could not be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The system gives no random bytes for a key.
    #[error("make a key: getrandom")]
    Key(#[source] io::Error),
    /// The original.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The result.
    #[error("write the recording")]
    Write(#[source] io::Error),
}

/// Writes the recording in `source` to `sink`, under the pseudonyms of `anonymizer`. What was cut off at its end is left out, as
/// a replay does. Time in the result is since the beginning of the recording.
pub fn rewrite(anonymizer: &mut Anonymizer, source: impl Read, sink: impl Write) -> Result<Tally, RewriteError> {
    // A recorder's segments follow each other on the clock of their engine.
    let mut reader = Reader::start(source)?.since_start_of_engine();
    let begins_at = reader.header().begins_at;
    let mut writer = Writer::start(sink, &anonymizer.header(reader.header().clone())).map_err(RewriteError::Write)?;
    while let Next::Input(at, input) = reader.next(Duration::MAX)? {
        writer.write(at, &anonymizer.input(input)).map_err(RewriteError::Write)?;
        // The readings with which a segment begins have chunks of their own.
        if reader.is_at_end_of_chunk() {
            writer.flush().map_err(RewriteError::Write)?;
        }
    }
    let tally = writer.finish().map_err(RewriteError::Write)?;
    Ok(Tally { last_at: tally.last_at.saturating_sub(begins_at), ..tally })
}

/// Bytes that came and were not read yet.
#[derive(Clone, Default)]
struct Arrived(Arc<Mutex<VecDeque<u8>>>);

impl Read for Arrived {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // More may come: this is no end.
        if arrived.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { arrived.read(bytes) }
    }
}

/// Takes in a recording that is being made, and writes it on under pseudonyms, with each chunk that comes. The stream's thread
/// does the work: the engine does not wait for it.
pub struct AnonymizedSink<W> {
    anonymizer: Anonymizer,
    arrived: Arrived,
    stage: Stage<W>,
    written: Written,
}

/// How many bytes went through, also when whatever they went through is gone.
pub type Written = Arc<AtomicU64>;

/// How far the recording is.
enum Stage<W> {
    /// Its header has not come.
    Beginning(W),
    Begun(Box<Reader<Arrived>>, Writer<W>),
    /// An error has come before.
    Failed,
}

impl<W: Write> AnonymizedSink<W> {
    /// Nothing is written yet. `written` will be how many bytes are.
    pub fn new(sink: W, written: Written) -> Result<Self, RewriteError> {
        let anonymizer = Anonymizer::new()?;
        Ok(Self { anonymizer, arrived: Arrived::default(), stage: Stage::Beginning(sink), written })
    }

    fn write_on(&mut self) -> Result<Stage<W>, RewriteError> {
        let (mut reader, mut writer) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Beginning(sink) => {
                let reader = Reader::start(self.arrived.clone())?.since_start_of_engine();
                let header = self.anonymizer.header(reader.header().clone());
                (Box::new(reader), Writer::start(sink, &header).map_err(RewriteError::Write)?)
            }
            Stage::Begun(reader, writer) => (reader, writer),
            Stage::Failed => return Err(RewriteError::Write(failed_before())),
        };
        while let Next::Input(at, input) = reader.next(Duration::MAX)? {
            writer.write(at, &self.anonymizer.input(input)).map_err(RewriteError::Write)?;
        }
        writer.flush().map_err(RewriteError::Write)?;
        self.written.store(writer.tally().bytes, Ordering::Relaxed);
        Ok(Stage::Begun(reader, writer))
    }
}

/// The first write brings the whole header, as that of a stream does.
impl<W: Write> Write for AnonymizedSink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arrived.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        match self.write_on() {
            Ok(stage) => self.stage = stage,
            // With its errno, by which a reader that left is known.
            Err(RewriteError::Write(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stage {
            Stage::Begun(_, writer) => writer.flush(),
            Stage::Beginning(sink) => sink.flush(),
            Stage::Failed => Err(failed_before()),
        }
    }
}

fn failed_before() -> io::Error {
    io::Error::other("the recording has failed before")
}
