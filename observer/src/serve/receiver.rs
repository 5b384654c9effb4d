//! The OTLP receiver in the engine process: its address, and connections to it. The HTTP process gets these as descriptors: it
//! can reach nothing else, and this process reads none of them.

use std::{
    future, io,
    net::{SocketAddr, TcpStream as StdTcpStream, ToSocketAddrs as _},
    os::fd::OwnedFd,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hyper::http::Uri;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use super::{bounds, report};
use crate::{
    errno,
    frame::{ExportCounts, ExportResult},
};

/// Where an OTLP receiver takes metrics, if its URL has no path.
const METRICS_PATH: &str = "/v1/metrics";

/// The URL of an OTLP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverUrl {
    /// Host and port.
    authority: String,
    /// Path and query.
    target: String,
}

impl FromStr for ReceiverUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("observer has no TLS: run a collector or a proxy on this host, and push to that".to_owned());
            }
            _ => return Err("not a URL such as http://127.0.0.1:4318".to_owned()),
        }
        let authority = uri.authority().ok_or("no host")?.as_str();
        if authority.contains('@') {
            return Err(
                "observer sends no passwords: run a collector or a proxy on this host, and push to that".to_owned()
            );
        }
        if uri.port_u16().is_none_or(|port| port == 0) {
            return Err("no port: OTLP over HTTP has 4318 by convention".to_owned());
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target == "/" { METRICS_PATH } else { target };
        Ok(Self { authority: authority.to_owned(), target: target.to_owned() })
    }
}

/// What to push, to whom, and how often.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The receiver.
    pub url: ReceiverUrl,
    /// Time between two exports.
    pub interval: Duration,
}

impl PushOptions {
    /// What the HTTP process has to know, as arguments of its command.
    pub(super) fn args(&self) -> [String; 3] {
        let Self { url: ReceiverUrl { authority, target }, interval } = self;
        [authority.clone(), target.clone(), interval.as_millis().to_string()]
    }

    /// The same in the HTTP process.
    pub(super) fn from_args(args: impl IntoIterator<Item = String>) -> Option<Push> {
        let mut args = args.into_iter();
        let (authority, target) = (args.next()?, args.next()?);
        Some(Push { authority, target, interval: Duration::from_millis(args.next()?.parse().ok()?) })
    }
}

/// What the HTTP process knows of the receiver.
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "read by the module that pushes"))]
#[derive(Debug)]
pub(super) struct Push {
    /// For the header `Host`.
    pub(super) authority: String,
    pub(super) target: String,
    pub(super) interval: Duration,
}

/// The receiver, and how exports to it ended.
#[derive(Debug)]
pub(super) struct Receiver {
    options: PushOptions,
    addresses: Vec<SocketAddr>,
    connecting: Option<JoinHandle<io::Result<OwnedFd>>>,
    connected: Option<Instant>,
    counts: ExportCounts,
    last: Option<ExportResult>,
}

impl Receiver {
    /// Looks its host up: once, before this process observes anything.
    pub(super) fn find(options: PushOptions) -> anyhow::Result<Self> {
        let authority = &options.url.authority;
        let found = authority.to_socket_addrs().with_context(|| format!("look up the OTLP receiver {authority}"))?;
        let addresses: Vec<SocketAddr> = found.take(bounds::RECEIVER_ADDRESSES).collect();
        ensure!(!addresses.is_empty(), "the OTLP receiver {authority} has no address");
        for address in addresses.iter().filter(|address| !address.ip().is_loopback()) {
            report(&format!(
                "the OTLP receiver {address} is no loopback address: names and addresses of this host go to it unencrypted"
            ));
        }
        let counts = ExportResult::ALL.map(|result| (result, 0));
        Ok(Self { options, addresses, connecting: None, connected: None, counts, last: None })
    }

    pub(super) fn options(&self) -> &PushOptions {
        &self.options
    }

    pub(super) fn counts(&self) -> ExportCounts {
        self.counts
    }

    /// Connects, unless it does so or has just done so. Returns whether [`Self::connection`] has an answer later.
    pub(super) fn connect(&mut self) -> bool {
        let is_too_soon = self.connected.is_some_and(|at| at.elapsed() < bounds::CONNECT_PAUSE);
        if self.connecting.is_none() && is_too_soon {
            return false;
        }
        let addresses = self.addresses.clone();
        self.connecting.get_or_insert_with(|| tokio::spawn(connect(addresses)));
        true
    }

    /// Waits for the connection that was asked for.
    pub(super) async fn connection(&mut self) -> io::Result<OwnedFd> {
        let Some(task) = &mut self.connecting else { return future::pending().await };
        let connection = task.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        (self.connecting, self.connected) = (None, Some(Instant::now()));
        connection
    }

    /// The process that asked for a connection has ended.
    pub(super) fn forget_connection(&mut self) {
        if let Some(task) = self.connecting.take() {
            task.abort();
        }
    }

    /// Counts an export. Says how it ended where the one before ended otherwise.
    pub(super) fn exported(&mut self, result: ExportResult, detail: u64) {
        for (_, count) in self.counts.iter_mut().filter(|(of, _)| *of == result) {
            *count = count.saturating_add(1);
        }
        if self.last.replace(result) == Some(result) {
            return;
        }
        let receiver = format!("the OTLP receiver {}", self.options.url.authority);
        report(&match result {
            ExportResult::Success => format!("{receiver} takes exports"),
            ExportResult::Partial => format!("{receiver} rejected {detail} points of an export"),
            ExportResult::Rejected => format!("{receiver} refuses exports: HTTP status {detail}"),
            ExportResult::Unavailable => {
                format!("{receiver} is not available: HTTP status {detail}; observer goes on trying")
            }
            ExportResult::Failed => {
                let errno = errno::describe_number(i32::try_from(detail).unwrap_or(0));
                format!("cannot export to {receiver}: {errno}; observer goes on trying")
            }
        });
    }
}

/// The first address that answers.
async fn connect(addresses: Vec<SocketAddr>) -> io::Result<OwnedFd> {
    let connect = async {
        let mut refused = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream.into_std(),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    };
    let stream: io::Result<StdTcpStream> = timeout(bounds::CONNECT_TIME, connect)
        .await
        .unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)));
    stream.map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_gets_that_of_metrics() {
        for (text, authority, target) in [
            ("http://127.0.0.1:4318", "127.0.0.1:4318", "/v1/metrics"),
            ("http://[::1]:4318/", "[::1]:4318", "/v1/metrics"),
            ("http://collector.example:80/otlp/metrics?tenant=a", "collector.example:80", "/otlp/metrics?tenant=a"),
        ] {
            let url = ReceiverUrl { authority: authority.to_owned(), target: target.to_owned() };
            assert_eq!(text.parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_observer_cannot_push_to_is_refused_with_what_to_do() {
        for (text, word) in [
            ("https://collector.example:4318", "TLS"),
            ("http://me:secret@127.0.0.1:4318", "passwords"),
            ("http://127.0.0.1", "4318"),
            ("127.0.0.1:4318", "http://"),
            ("grpc://127.0.0.1:4317", "http://"),
            ("", "URL"),
        ] {
            let error = text.parse::<ReceiverUrl>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
