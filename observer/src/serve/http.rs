//! HTTP/1.1 in the HTTP process: connections, and what each path has.

use std::{convert::Infallible, io, os::fd::OwnedFd, pin::pin, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body as _, Bytes, Incoming},
    header::{
        ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
        CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::{AddressFamily, sockopt::socket_domain};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    bounds,
    channel::{DocumentKind, Unavailable},
    negotiate,
    stall::Stalled,
    store::Store,
};

type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";

/// The pause after a refusal of accept(), which another descriptor may end.
const REFUSED: Duration = Duration::from_millis(100);

/// A listening socket in the event loop.
#[derive(Debug)]
pub(super) enum HttpListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl HttpListener {
    /// Takes a nonblocking socket of the engine process.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(if socket_domain(&fd)? == AddressFamily::UNIX {
            Self::Unix(UnixListener::from_std(fd.into())?)
        } else {
            Self::Tcp(TcpListener::from_std(fd.into())?)
        })
    }
}

/// Accepts connections from now on, [`bounds::CONNECTIONS`] at a time.
pub(super) fn accept_all(listeners: Vec<HttpListener>, store: &Arc<Store>) {
    let room = Arc::new(Semaphore::new(bounds::CONNECTIONS));
    for listener in listeners {
        tokio::spawn(accept(listener, Arc::clone(&room), Arc::clone(store)));
    }
}

async fn accept(listener: HttpListener, room: Arc<Semaphore>, store: Arc<Store>) {
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let accepted = match &listener {
            HttpListener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Without it the end of a response can wait for a delayed acknowledgment.
                let _ = stream.set_nodelay(true);
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    serve(stream, store).await;
                    drop(place);
                });
            }),
            HttpListener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    serve(stream, store).await;
                    drop(place);
                });
            }),
        };
        if accepted.is_err() {
            sleep(REFUSED).await;
        }
    }
}

/// Serves one connection within its bounds.
pub(super) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, store: Arc<Store>) {
    let service = service_fn(move |request| {
        let store = Arc::clone(&store);
        async move { Ok::<_, Infallible>(answer(&request, &store).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds::HEADER_TIME)
        .max_buf_size(bounds::HEADER_BYTES)
        .max_headers(bounds::HEADER_FIELDS)
        // A client may close its half once it has sent its request: it still reads the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Stalled::new(stream, bounds::STALL_TIME)), service);
    let mut connection = pin!(connection);
    // How a connection ends is nobody's concern: most often its client left.
    if timeout(bounds::CONNECTION_TIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(bounds::STALL_TIME, connection).await;
    }
}

/// Whatever is wrong with a request is answered before the engine is asked.
async fn answer(request: &Request<Incoming>, store: &Store) -> Answer {
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > bounds::TARGET_BYTES) {
        return closing(sentence(StatusCode::URI_TOO_LONG, "The request target is too long."));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let answer = sentence(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are served.");
        return closing(with(answer, ALLOW, "GET, HEAD"));
    }
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        return closing(sentence(StatusCode::BAD_REQUEST, "A request has one Host header field."));
    }
    if request.body().size_hint().exact() != Some(0) {
        return closing(sentence(StatusCode::PAYLOAD_TOO_LARGE, "A request has no body here."));
    }
    match request.uri().path() {
        "/metrics" => document(negotiate::metrics(&list(request, &ACCEPT)), request, store).await,
        "/snapshot" => document(DocumentKind::Snapshot, request, store).await,
        "/" => document(DocumentKind::State, request, store).await,
        "/-/healthy" => healthy(store),
        "/-/ready" => ready(store),
        _ => sentence(StatusCode::NOT_FOUND, "Paths: / /metrics /snapshot /-/healthy /-/ready"),
    }
}

/// All lines of a header field as one list.
fn list(request: &Request<Incoming>, name: &HeaderName) -> String {
    let lines = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.collect::<Vec<_>>().join(",")
}

async fn document(kind: DocumentKind, request: &Request<Incoming>, store: &Store) -> Answer {
    let document = match store.get(kind).await {
        Ok(document) => document,
        Err(why) => return unavailable(why),
    };
    let gzip = negotiate::takes_gzip(&list(request, &ACCEPT_ENCODING)).then(|| document.gzip()).flatten();
    let is_gzip = gzip.is_some();
    let answer = Response::new(Full::new(gzip.unwrap_or_else(|| document.plain())));
    let answer = with(answer, CONTENT_TYPE, content_type(kind));
    let answer = with(answer, VARY, "Accept, Accept-Encoding");
    let answer = if is_gzip { with(answer, CONTENT_ENCODING, "gzip") } else { answer };
    common(answer)
}

pub(super) const fn content_type(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        DocumentKind::MetricsText => "text/plain; version=0.0.4; charset=utf-8",
        DocumentKind::Snapshot => "application/json",
        DocumentKind::State => "text/html; charset=utf-8",
        DocumentKind::Otlp => "application/x-protobuf",
    }
}

fn unavailable(why: Unavailable) -> Answer {
    let text = match why {
        Unavailable::NotYet => "observer attaches and scans: it has nothing to show yet.".to_owned(),
        Unavailable::TooLarge => format!("The document is larger than {} MiB.", bounds::DOCUMENT_BYTES >> 20),
        Unavailable::Failed => "The document could not be made: the log of observer says why.".to_owned(),
        Unavailable::Silent => format!("The engine did not answer within {} s.", bounds::ANSWER_TIME.as_secs()),
    };
    with(sentence(StatusCode::SERVICE_UNAVAILABLE, &text), RETRY_AFTER, "1")
}

fn healthy(store: &Store) -> Answer {
    if store.silence() < bounds::ALIVE {
        return sentence(StatusCode::OK, "healthy");
    }
    let text = format!("The engine has not been heard of for {} s.", bounds::ALIVE.as_secs());
    sentence(StatusCode::SERVICE_UNAVAILABLE, &text)
}

fn ready(store: &Store) -> Answer {
    if store.is_ready() { sentence(StatusCode::OK, "ready") } else { unavailable(Unavailable::NotYet) }
}

fn sentence(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *answer.status_mut() = status;
    common(with(answer, CONTENT_TYPE, TEXT))
}

/// What every answer says: browsers neither keep it, nor guess its type, nor run anything of it.
fn common(answer: Answer) -> Answer {
    let answer = with(answer, CACHE_CONTROL, "no-store");
    let answer = with(answer, X_CONTENT_TYPE_OPTIONS, "nosniff");
    with(answer, CONTENT_SECURITY_POLICY, "default-src 'none'")
}

/// An answer after which the rest of the connection is not read.
fn closing(answer: Answer) -> Answer {
    with(answer, CONNECTION, "close")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}
