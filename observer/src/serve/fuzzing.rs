//! What fuzz targets send to the HTTP process, and to the engine process on the channel between the two.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    sync::Arc,
};

use rustix::net::{Shutdown, shutdown};
use tokio::{net::UnixStream, runtime::Runtime, task::yield_now};

use super::{
    channel::{EngineEnd, FromHttp, HttpEnd, ToHttp, decode, encode},
    http,
    store::Store,
};

const DOCUMENT: &[u8] = b"# EOF\n";
/// More than a request may have, and less than fills the socket.
const MOST: usize = 32 << 10;
/// What may be answered: a document, what is wrong with the request, or that there is no document.
const STATUSES: [u16; 10] = [200, 400, 404, 405, 413, 414, 431, 501, 503, 505];

thread_local! {
    static RUNTIME: io::Result<Runtime> = tokio::runtime::Builder::new_current_thread().enable_all().build();
}

fn run<T>(future: impl Future<Output = io::Result<T>>) -> T {
    RUNTIME.with(|runtime| match runtime {
        Ok(runtime) => runtime.block_on(future).unwrap_or_else(|error| panic!("this host refuses sockets: {error}")),
        Err(error) => panic!("this host refuses an event loop: {error}"),
    })
}

/// A connection on which a client sends these bytes, and no more. However they arrive, the statuses of the answers are the same.
pub(crate) fn http(bytes: &[u8]) {
    let bytes = bytes.get(..MOST).unwrap_or(bytes);
    let whole = run(exchange(bytes, MOST));
    let statuses = statuses(&whole);
    assert!(
        statuses.iter().all(|status| STATUSES.contains(status)),
        "{statuses:?} is no answer to {}",
        bytes.escape_ascii()
    );
}

async fn exchange(bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let (_engine, theirs) = EngineEnd::pair()?;
    let store = Arc::new(Store::filled(HttpEnd::new(theirs)?, DOCUMENT));
    let (client, server) = UnixStream::pair()?;
    let sending = async {
        for piece in bytes.chunks(piece) {
            send(&client, piece).await?;
            yield_now().await;
        }
        // The server may have left first.
        let _ = shutdown(&client, Shutdown::Write);
        receive(&client).await
    };
    let ((), received) = tokio::join!(http::serve(server, store), sending);
    received
}

/// Sends what the server takes: it may have ended the connection.
async fn send(client: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        client.writable().await?;
        match client.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// All that comes until the server ends the connection, in whichever way.
async fn receive(client: &UnixStream) -> io::Result<Vec<u8>> {
    let (mut all, mut room) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        client.readable().await?;
        match client.try_read(&mut room) {
            Ok(0) => return Ok(all),
            Ok(got) => all.extend_from_slice(&room[..got]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

/// The status of each answer: nothing that the server sends has such a line within.
fn statuses(answers: &[u8]) -> BTreeSet<u16> {
    let text = String::from_utf8_lossy(answers);
    let lines =
        text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 ")));
    lines.map(|line| line.get(..3).and_then(|status| status.parse().ok()).unwrap_or(0)).collect()
}

/// A message of the HTTP process, as the engine process receives it from the socket; and as one of the engine process.
pub(crate) fn channel(bytes: &[u8]) {
    let sent = decode(bytes).and_then(FromHttp::from_wire);
    if let Some(message) = sent {
        assert_eq!(encode(message.wire()), bytes, "{message:?} can be written in two ways");
    }
    if let Some(message) = decode(bytes).and_then(ToHttp::from_wire) {
        let again = decode(&encode(message.wire())).and_then(ToHttp::from_wire);
        assert_eq!(again, Some(message), "{}", bytes.escape_ascii());
    }
    // An empty message is the end of the channel.
    let bytes = bytes.get(..MOST).unwrap_or(bytes);
    let received = run(async {
        let (engine, theirs) = EngineEnd::pair()?;
        rustix::net::send(&theirs, bytes, rustix::net::SendFlags::NOSIGNAL)?;
        Ok(engine.receive().await)
    });
    assert_eq!(received, sent, "{}", bytes.escape_ascii());
}
