//! Documents in the HTTP process: the newest of each kind. Requests that come while one is under way share it.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use hyper::body::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    bounds,
    channel::{DocumentKind, FromHttp, HttpEnd, ToHttp, Unavailable},
};

/// A document as the engine process made it.
#[derive(Debug)]
pub(super) struct Document {
    plain: Bytes,
    gzip: OnceLock<Option<Bytes>>,
}

impl Document {
    pub(super) fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    /// Compressed once, for all who want it so.
    pub(super) fn gzip(&self) -> Option<Bytes> {
        self.gzip.get_or_init(|| compressed(&self.plain).ok().map(Bytes::from)).clone()
    }
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// What the engine process answered last, and when.
#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    document: Result<Arc<Document>, Unavailable>,
}

/// One kind of document.
#[derive(Debug)]
struct Slot {
    newest: watch::Sender<Option<Answer>>,
    asked: Mutex<Option<Instant>>,
}

/// What is known of the engine process.
#[derive(Debug)]
struct Engine {
    heard: Instant,
    is_ready: bool,
}

/// The newest documents, and the channel to where they come from.
#[derive(Debug)]
pub(super) struct Store {
    channel: HttpEnd,
    slots: [Slot; DocumentKind::ALL.len()],
    engine: Mutex<Engine>,
    connections: mpsc::Sender<io::Result<OwnedFd>>,
}

impl Store {
    /// Connections to the OTLP receiver go to `connections`.
    pub(super) fn new(channel: HttpEnd, connections: mpsc::Sender<io::Result<OwnedFd>>) -> Self {
        let slots = DocumentKind::ALL.map(|_| Slot { newest: watch::Sender::new(None), asked: Mutex::new(None) });
        let engine = Mutex::new(Engine { heard: Instant::now(), is_ready: false });
        Self { channel, slots, engine, connections }
    }

    /// A document that is at most [`bounds::FRESH`] old when it is asked for.
    pub(super) async fn get(&self, kind: DocumentKind) -> Result<Arc<Document>, Unavailable> {
        let slot = &self.slots[kind as usize];
        let mut answers = slot.newest.subscribe();
        if let Some(Answer { at, document }) = &*answers.borrow_and_update()
            && at.elapsed() < bounds::FRESH
        {
            return document.clone();
        }
        self.ask(kind, slot);
        // The sender is a part of `self`.
        let answered = timeout(bounds::ANSWER_TIME, answers.changed()).await;
        if answered.is_err() {
            return Err(if self.is_ready() { Unavailable::Silent } else { Unavailable::NotYet });
        }
        answers.borrow().as_ref().map_or(Err(Unavailable::Silent), |answer| answer.document.clone())
    }

    /// Asks, unless a request is under way. One that was lost is made again.
    fn ask(&self, kind: DocumentKind, slot: &Slot) {
        let mut asked = slot.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|at| at.elapsed() >= bounds::FRESH) && self.channel.send(FromHttp::Want(kind)).is_ok() {
            *asked = Some(Instant::now());
        }
    }

    /// Asks for a connection to the OTLP receiver.
    #[cfg(feature = "otlp")]
    pub(super) fn connect(&self) -> io::Result<()> {
        self.channel.send(FromHttp::Connect)
    }

    /// Reports how an export ended.
    #[cfg(feature = "otlp")]
    pub(super) fn exported(&self, result: crate::frame::ExportResult, detail: u64) {
        // A channel that is full has as much of this in it that nobody reads.
        let _ = self.channel.send(FromHttp::Exported(result, detail));
    }

    /// How long nothing has come from the engine process.
    pub(super) fn silence(&self) -> Duration {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).heard.elapsed()
    }

    /// Whether the engine has something to show.
    pub(super) fn is_ready(&self) -> bool {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).is_ready
    }

    /// Takes what the engine process sends, until that ends this process or itself.
    pub(super) async fn receive_all(&self) {
        while let Some((message, fds)) = self.channel.receive().await {
            match message {
                ToHttp::Ping { is_ready } => {
                    self.hear(Some(is_ready));
                    // A channel that is full has pongs in it.
                    let _ = self.channel.send(FromHttp::Pong);
                }
                ToHttp::Document(kind, length) => {
                    self.hear(None);
                    let document = read(fds, length).map_err(|_| Unavailable::Failed);
                    self.answer(kind, document.map(Arc::new));
                }
                ToHttp::None(kind, why) => {
                    self.hear(None);
                    self.answer(kind, Err(why));
                }
                ToHttp::Connection => {
                    let fd = fds.into_iter().next().ok_or(io::ErrorKind::UnexpectedEof.into());
                    // Whoever did not wait for it needs none.
                    drop(self.connections.try_send(fd));
                }
                ToHttp::NoConnection(errno) => {
                    drop(self.connections.try_send(Err(io::Error::from_raw_os_error(errno.cast_signed()))));
                }
                ToHttp::Listeners(_) | ToHttp::End => return,
            }
        }
    }

    fn hear(&self, is_ready: Option<bool>) {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.heard = Instant::now();
        engine.is_ready = is_ready.unwrap_or(engine.is_ready);
    }

    fn answer(&self, kind: DocumentKind, document: Result<Arc<Document>, Unavailable>) {
        let slot = &self.slots[kind as usize];
        *slot.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        slot.newest.send_replace(Some(Answer { at: Instant::now(), document }));
    }
}

/// A store that has a document of each kind, save for one that the engine could not make.
#[cfg(any(test, feature = "fuzzing"))]
impl Store {
    pub(super) fn filled(channel: HttpEnd, plain: &'static [u8]) -> Self {
        let store = Self::new(channel, mpsc::channel(1).0);
        for kind in DocumentKind::ALL {
            let document = Document { plain: Bytes::from_static(plain), gzip: OnceLock::new() };
            let is_made = kind != DocumentKind::State;
            store.answer(kind, is_made.then(|| Arc::new(document)).ok_or(Unavailable::Failed));
        }
        store
    }
}

/// All of a memory file.
fn read(fds: Vec<OwnedFd>, length: u64) -> io::Result<Document> {
    let file = fds.into_iter().next().ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = usize::try_from(length.min(bounds::DOCUMENT_BYTES)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match rustix::io::pread(&file, &mut bytes[filled..], filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => filled += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Document { plain: bytes.into(), gzip: OnceLock::new() })
}
