//! Every bound of `observer serve`: what clients may send, how long they may take, and what the two processes may send each
//! other. docs/usage.md lists those that users meet.

use std::time::Duration;

/// Connections at a time. Others wait in the accept queue until one ends.
pub(super) const CONNECTIONS: usize = 64;
/// Listening sockets.
pub(super) const LISTENERS: usize = 16;
/// Viewers of the live screen at a time. Others are refused, with this number.
pub(super) const VIEWERS: usize = 8;
/// How long a viewer may take no byte.
pub(super) const VIEWER_STALL: Duration = Duration::from_secs(30);
/// The pause after a viewer who could not be accepted.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a request's line and header fields together: beyond, 431.
pub(super) const HEADER_BYTES: usize = 8 << 10;
/// Header fields of a request: beyond, 431.
pub(super) const HEADER_FIELDS: usize = 64;
/// Bytes of a request's target: beyond, 414.
pub(super) const TARGET_BYTES: usize = 1 << 10;
/// How long a connection may wait for a complete header: for its first one, and between two requests.
pub(super) const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a client may take no byte of its response.
pub(super) const STALL_TIME: Duration = Duration::from_secs(10);
/// How long a connection may last. A response that is under way then has [`STALL_TIME`] more.
pub(super) const CONNECTION_TIME: Duration = Duration::from_mins(2);
/// How long a request waits for the engine: beyond, 503.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(5);
/// A document this old is made again for the next request. No kind is made more often.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// Bytes of a document: beyond, 503.
pub(super) const DOCUMENT_BYTES: u64 = 64 << 20;
/// Address space of the HTTP process.
pub(super) const ADDRESS_SPACE: u64 = 1 << 30;
/// Descriptors of the HTTP process: many times what its connections, listeners, channel and event loop need. It would otherwise
/// be the process nearest to its limit on a quiet host.
pub(super) const DESCRIPTORS: u64 = 4_096;

/// Addresses of an OTLP receiver's name that are tried.
pub(super) const RECEIVER_ADDRESSES: usize = 8;
/// How long a connection to the OTLP receiver may take, over all its addresses.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The least time between two connections to it.
pub(super) const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long an export may take, from its first byte to the last one of the answer.
#[cfg(feature = "otlp")]
pub(super) const EXPORT_TIME: Duration = Duration::from_secs(10);
/// Bytes of an answer's body that are read.
#[cfg(feature = "otlp")]
pub(super) const RESPONSE_BYTES: usize = 64 << 10;
/// The pause before the export that follows a failed one, doubled with each. A receiver's `Retry-After` can make it longer.
#[cfg(feature = "otlp")]
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses, whatever the receiver asks for.
#[cfg(feature = "otlp")]
pub(super) const RETRY_PAUSE_MOST: Duration = Duration::from_mins(2);

/// Time between two pings of the engine process to the HTTP process.
pub(super) const PING: Duration = Duration::from_secs(1);
/// Whoever has not been heard of for so long counts as stopped: the engine for `/-/healthy` and the service manager's watchdog,
/// the HTTP process for the watchdog.
pub(super) const ALIVE: Duration = Duration::from_secs(10);
/// An HTTP process that answers no ping for so long is killed, and replaced.
pub(super) const HUNG: Duration = Duration::from_secs(30);
/// Messages of the HTTP process in a second: one that sends more is replaced. It needs a pong and a request of each kind.
pub(super) const MESSAGES: u32 = 100;
/// How long an HTTP process may take to start.
pub(super) const CHILD_START: Duration = Duration::from_secs(10);
/// The pause before a new HTTP process, doubled with each one that ends early.
pub(super) const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// The longest of these pauses.
pub(super) const RESTART_PAUSE_MOST: Duration = Duration::from_secs(10);
/// An HTTP process that has run for so long did not end early.
pub(super) const STEADY: Duration = Duration::from_mins(1);
/// How long the HTTP process may take to end.
pub(super) const CHILD_END: Duration = Duration::from_secs(2);
