//! Exports to an OTLP receiver, from the HTTP process: its answers are input from the network.
//!
//! Every export is of the newest document, one that follows a failure too. Nothing queues: a receiver that was away gets
//! cumulative counters, which lack nothing.

use std::{
    error::Error as _,
    future::Future,
    hash::{BuildHasher as _, RandomState},
    io,
    net::TcpStream as StdTcpStream,
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    bounds,
    channel::{DocumentKind, Unavailable},
    http,
    receiver::Push,
    store::{Document, Store},
};
use crate::{export::otlp, frame::ExportResult};

/// How an export ended.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    result: ExportResult,
    /// Points, an HTTP status, or an errno.
    detail: u64,
    /// How long the receiver wants us to wait, at least.
    wait: Duration,
}

impl Outcome {
    fn new(result: ExportResult, detail: impl Into<u64>) -> Self {
        Self { result, detail: detail.into(), wait: Duration::ZERO }
    }

    fn failed(errno: i32) -> Self {
        Self::new(ExportResult::Failed, errno.unsigned_abs())
    }
}

/// Exports from now on.
pub(super) async fn run(push: Push, store: Arc<Store>, connections: mpsc::Receiver<io::Result<OwnedFd>>) {
    let mut exporter = Exporter { push, store, connections, connection: None };
    let mut pause = bounds::RETRY_PAUSE;
    loop {
        let started = Instant::now();
        let document = match exporter.store.get(DocumentKind::Otlp).await {
            Ok(document) => Ok(document),
            // The engine starts, or stands still: `/-/healthy` says that.
            Err(Unavailable::NotYet | Unavailable::Silent) => {
                sleep_until(started + bounds::FRESH).await;
                continue;
            }
            Err(Unavailable::TooLarge) => Err(libc::EMSGSIZE),
            Err(Unavailable::Failed) => Err(libc::EIO),
        };
        let outcome = match document {
            Ok(document) => exporter.export(&document).await.unwrap_or_else(Outcome::failed),
            Err(errno) => Outcome::failed(errno),
        };
        exporter.store.exported(outcome.result, outcome.detail);
        let next = match outcome.result {
            ExportResult::Unavailable | ExportResult::Failed => {
                let wait = jittered(pause).max(outcome.wait.min(bounds::RETRY_PAUSE_MOST));
                pause = (pause * 2).min(bounds::RETRY_PAUSE_MOST);
                Instant::now() + wait
            }
            ExportResult::Success | ExportResult::Partial | ExportResult::Rejected => {
                pause = bounds::RETRY_PAUSE;
                started + exporter.push.interval
            }
        };
        sleep_until(next).await;
    }
}

/// Half of a pause to one and a half: observers that lost one receiver do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    // Every `RandomState` has other keys.
    let thousandths = RandomState::new().hash_one(()) % 1_000;
    pause / 2 + pause.mul_f64(f64::from(u32::try_from(thousandths).unwrap_or(0)) / 1_000.0)
}

/// A connection to the receiver. Its task ends with it.
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Exporter {
    push: Push,
    store: Arc<Store>,
    connections: mpsc::Receiver<io::Result<OwnedFd>>,
    /// Kept for the next export, unless one failed on it.
    connection: Option<Connection>,
}

impl Exporter {
    /// Exports a document. Fails with an errno.
    async fn export(&mut self, document: &Document) -> Result<Outcome, i32> {
        let mut connection = match self.connection.take().filter(|connection| !connection.requests.is_closed()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let request = self.request(document)?;
        let outcome = within(bounds::EXPORT_TIME, async {
            connection.requests.ready().await.map_err(|error| errno_of(&error))?;
            let response = connection.requests.send_request(request).await.map_err(|error| errno_of(&error))?;
            Ok(outcome_of(response).await)
        })
        .await?;
        self.connection = Some(connection);
        Ok(outcome)
    }

    /// A new connection, which the engine process makes.
    async fn connect(&mut self) -> Result<Connection, i32> {
        // Of an earlier request that took too long.
        while self.connections.try_recv().is_ok() {}
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        self.store.connect().map_err(errno)?;
        // The engine process gives up first.
        let answer = within(bounds::CONNECT_TIME + bounds::ANSWER_TIME, async {
            self.connections.recv().await.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into())).map_err(errno)
        });
        let stream = TcpStream::from_std(StdTcpStream::from(answer.await?)).map_err(errno)?;
        let handshake = http1::Builder::new()
            .max_buf_size(bounds::HEADER_BYTES)
            .max_headers(bounds::HEADER_FIELDS)
            .handshake(TokioIo::new(stream));
        let (requests, connection) = handshake.await.map_err(|error| errno_of(&error))?;
        // Its error is that of the request as well.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { requests, task })
    }

    fn request(&self, document: &Document) -> Result<Request<Full<Bytes>>, i32> {
        let request = Request::post(&self.push.target)
            .header(HOST, &self.push.authority)
            .header(USER_AGENT, concat!("observer/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, http::content_type(DocumentKind::Otlp));
        let request = match document.gzip() {
            Some(body) => request.header(CONTENT_ENCODING, "gzip").body(body.into()),
            None => request.body(document.plain().into()),
        };
        request.map_err(|_| libc::EINVAL)
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, i32>>) -> Result<T, i32> {
    timeout(time, work).await.unwrap_or(Err(libc::ETIMEDOUT))
}

/// What the receiver says. A status says more than a body that cannot be read.
async fn outcome_of(response: Response<Incoming>) -> Outcome {
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    // The whole body, within its bound: the connection can have another request after it.
    let body = Limited::new(response.into_body(), bounds::RESPONSE_BYTES).collect().await.ok().map(Collected::to_bytes);
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome {
            wait: wait.map_or(Duration::ZERO, Duration::from_secs),
            ..Outcome::new(ExportResult::Unavailable, status.as_u16())
        },
        status if status.is_success() => match body.map_or(0, |body| otlp::rejected_points(&body)) {
            0 => Outcome::new(ExportResult::Success, 0_u64),
            points => Outcome::new(ExportResult::Partial, points),
        },
        status => Outcome::new(ExportResult::Rejected, status.as_u16()),
    }
}

/// The kernel's errno where there is one, or one that says what went wrong.
fn errno_of(error: &hyper::Error) -> i32 {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return errno;
        }
        cause = error.source();
    }
    if error.is_parse() { libc::EPROTO } else { libc::ECONNRESET }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_by_half_at_most() {
        let pause = Duration::from_secs(2);
        let pauses: Vec<Duration> = (0..100).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|it| (pause / 2..pause * 3 / 2).contains(it)), "{pauses:?}");
        assert!(pauses.iter().any(|it| *it != pauses[0]), "all alike: {pauses:?}");
    }
}
