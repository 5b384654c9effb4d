//! A receiver that answers as a test wants.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Says nothing, until the other end closes.
    Nothing,
    /// Closes.
    Close,
}

impl Reply {
    /// A status with a body, and header fields that each end in a line break.
    pub(crate) fn status(status: &str, fields: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }
}

/// A request, and when it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Connections that are open.
    pub(crate) open: Arc<AtomicUsize>,
    /// The most at a time.
    pub(crate) most_open: Arc<AtomicUsize>,
}

impl Receiver {
    /// Gives the replies in their order, the last one for ever.
    pub(crate) fn start(replies: Vec<Reply>) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), replies)
    }

    pub(crate) fn at(listener: TcpListener, replies: Vec<Reply>) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        let (open, most_open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (open_now, most) = (Arc::clone(&open), Arc::clone(&most_open));
        let given = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (replies, given, sender, open) =
                    (replies.clone(), Arc::clone(&given), sender.clone(), Arc::clone(&open_now));
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while let Some(request) = read(&mut stream) {
                        let reply = &replies[given.fetch_add(1, Ordering::SeqCst).min(replies.len() - 1)];
                        // The test may be over.
                        let _ = sender.send(request);
                        if !answer(&mut stream, reply) {
                            break;
                        }
                    }
                    drop(stream);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, requests, open, most_open }
    }
}

/// Whether the connection goes on.
fn answer(stream: &mut TcpStream, reply: &Reply) -> bool {
    match reply {
        Reply::Bytes(bytes) => stream.write_all(bytes).is_ok(),
        Reply::Nothing => {
            let _ = stream.read(&mut [0]);
            false
        }
        Reply::Close => false,
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let field = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let length: usize = field.parse().unwrap();
            if bytes.len() >= end + 4 + length {
                assert_eq!(bytes.len(), end + 4 + length, "a request before the answer to the one before");
                return Some(Request { head, body: bytes.split_off(end + 4), at: Instant::now() });
            }
        }
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => bytes.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
}
