//! Chunks on their way to a reader that may be slow. A thread of its own waits for the reader, so that the engine never does.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::incident::Incident;

/// Bytes that wait for a reader, at most, unless its user chooses another bound: what a saturated loopback writes in two seconds.
/// Readers share them, as long as they read the same.
pub const MAX_WAITING: usize = 16 << 20;

/// Where chunks go.
pub(super) type Destination = Box<dyn Write + Send>;

/// What goes to a reader, in this order.
#[derive(Clone)]
pub(super) enum Item {
    /// What a recording begins with.
    Beginning {
        /// Its bytes.
        bytes: Arc<[u8]>,
        /// Wall-clock time, since the Unix epoch.
        at: Duration,
        /// Lost inputs that these bytes report: where they cannot be written, the next beginning does.
        lost: u64,
    },
    /// A chunk.
    Chunk {
        /// Its bytes.
        bytes: Arc<[u8]>,
        /// How many inputs it holds.
        inputs: u64,
    },
    /// Something happened that a recorder keeps.
    Incident(Incident),
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Beginning { bytes, .. } | Self::Chunk { bytes, .. } => bytes.len(),
            Self::Incident(_) => 0,
        }
    }
}

/// What takes items in.
pub(super) trait Consumer: Send {
    /// Takes the next one. An error ends the stream.
    fn take(&mut self, item: &Item) -> io::Result<()>;

    /// There is no further one.
    fn finish(&mut self) -> io::Result<()>;
}

/// One recording after its beginning.
impl Consumer for Destination {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Beginning { bytes, .. } | Item::Chunk { bytes, .. } => self.write_all(bytes),
            Item::Incident(_) => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It will be written.
    Taken,
    /// There was no room for it.
    Full,
    /// The reader is gone.
    Gone,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Of these, with the one that is being written.
    bytes: usize,
    is_closed: bool,
    /// How the thread ended.
    outcome: Option<io::Result<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chunks that wait for one reader.
pub(super) struct Queue {
    shared: Arc<Shared>,
    most: usize,
    /// Where they go, until the thread has it.
    unstarted: Option<Box<dyn Consumer>>,
}

impl Queue {
    /// Nothing is written yet. At most so many bytes will wait.
    pub(super) fn new(consumer: Box<dyn Consumer>, most: usize) -> Self {
        Self { shared: Arc::default(), most, unstarted: Some(consumer) }
    }

    /// Writes before the start, and waits for it: a full disk fails here.
    pub(super) fn write_now(&mut self, item: &Item) -> io::Result<()> {
        self.unstarted.as_mut().map_or(Ok(()), |consumer| consumer.take(item))
    }

    /// Starts the thread that writes, with the rights of the calling one.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let Some(mut consumer) = self.unstarted.take() else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let outcome = write_all(&shared, &mut *consumer);
            // Whoever reads a socket sees its end before this queue says so.
            drop(consumer);
            let mut state = shared.lock();
            state.items.clear();
            state.outcome = Some(outcome);
            shared.changed.notify_all();
        };
        thread::Builder::new().name("stream".to_owned()).spawn(work).map(drop)
    }

    /// Adds an item, if there is room.
    pub(super) fn push(&self, item: Item) -> Pushed {
        // Before its start it takes all of the first scan.
        self.push_with(item, |state, length| {
            self.unstarted.is_some() || state.items.is_empty() || state.bytes + length <= self.most
        })
    }

    /// The same where there must be room.
    pub(super) fn push_always(&self, item: Item) -> Pushed {
        self.push_with(item, |_, _| true)
    }

    fn push_with(&self, item: Item, has_room: impl FnOnce(&State, usize) -> bool) -> Pushed {
        let mut state = self.shared.lock();
        if state.outcome.is_some() {
            return Pushed::Gone;
        }
        if !has_room(&state, item.len()) {
            return Pushed::Full;
        }
        state.bytes += item.len();
        state.items.push_back(item);
        self.shared.changed.notify_all();
        Pushed::Taken
    }

    /// Lets so many bytes wait.
    #[cfg(test)]
    pub(super) const fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Whether the reader has caught up with most of what was there: one that fell behind gets nothing before.
    pub(super) fn has_room(&self) -> bool {
        self.shared.lock().bytes <= self.most / 4
    }

    /// How the reader ended, once; `None` while it reads.
    pub(super) fn outcome(&self) -> Option<io::Result<()>> {
        let mut state = self.shared.lock();
        let outcome = state.outcome.take()?;
        // It stays known that it has ended.
        state.outcome = Some(Ok(()));
        Some(outcome)
    }

    /// Waits until all is written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.start()?;
        let mut state = self.shared.lock();
        state.is_closed = true;
        self.shared.changed.notify_all();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What waits is still written, and nobody waits for that.
impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

fn write_all(shared: &Shared, consumer: &mut dyn Consumer) -> io::Result<()> {
    while let Some(item) = next(shared) {
        consumer.take(&item)?;
        let mut state = shared.lock();
        state.items.pop_front();
        state.bytes -= item.len();
    }
    consumer.finish()
}

/// The oldest item, which stays in the queue until it is written; `None` at the end.
fn next(shared: &Shared) -> Option<Item> {
    let mut state = shared.lock();
    loop {
        if let Some(item) = state.items.front() {
            return Some(item.clone());
        }
        if state.is_closed {
            return None;
        }
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}
