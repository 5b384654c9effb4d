//! `observer serve --otlp`: what a collector receives, and receivers that refuse, hang, close, lie, or are not there.

mod receiver;
mod troubles;
mod values;

use std::net::SocketAddr;

use super::server::Server;

/// Pushes once a second, and serves on a free port.
fn pushing_to(address: SocketAddr) -> Server {
    let url = format!("http://{address}");
    Server::with(&["--listen", "127.0.0.1:0", "--otlp", &url, "--otlp-interval", "1"])
}

/// How many exports ended so.
fn exports(server: &Server, result: &str) -> u64 {
    let line = format!("observer_otlp_exports_total{{result=\"{result}\"}} ");
    let text = server.get("/metrics");
    let count = text.lines().find_map(|text| text.strip_prefix(&line)).unwrap();
    count.parse().unwrap()
}

/// What all troubles have in common: no event is lost, and observer serves.
#[track_caller]
fn assert_unharmed(server: &Server) {
    server.assert_serves();
    assert!(server.sum("observer_events_lost_total") < 0.5, "lost: {}", server.get("/metrics"));
    assert!(server.sum("observer_http_restarts_total") < 0.5, "the HTTP process ended");
}
