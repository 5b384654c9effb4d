//! Receivers that refuse, hang, close, lie, or are not there: failures are counted and said once, and nothing else happens.

use std::{net::TcpListener, process::Command, sync::atomic::Ordering, time::Duration};

use super::{
    super::{
        eventually,
        running::PATIENCE,
        server::{OBSERVER, Server},
    },
    assert_unharmed, exports, pushing_to,
    receiver::{Receiver, Reply},
};

fn ok() -> Reply {
    Reply::status("200 OK", "", b"")
}

/// The next line that observer says about its receiver.
fn said(server: &mut Server) -> String {
    server.line().unwrap_or_else(|| panic!("it ended: {:?}", server.said))
}

#[track_caller]
fn assert_said(server: &mut Server, words: &str) {
    let line = said(server);
    assert!(line.contains(words), "{words}: {line}");
}

#[test]
fn a_request_is_gzip_of_protobuf_for_the_path_of_the_url() {
    let receiver = Receiver::start(vec![ok()]);
    let _server = pushing_to(receiver.address);
    let request = receiver.requests.recv_timeout(PATIENCE).unwrap();
    for line in [
        "post /v1/metrics http/1.1",
        &format!("host: {}", receiver.address),
        "content-type: application/x-protobuf",
        "content-encoding: gzip",
        concat!("user-agent: observer/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(request.head.lines().any(|it| it == line), "{line}: {}", request.head);
    }
    assert_eq!(request.body[..2], [0x1f, 0x8b], "no gzip");
}

#[test]
fn one_connection_serves_every_export() {
    let receiver = Receiver::start(vec![ok()]);
    let server = pushing_to(receiver.address);
    eventually("four exports", || (exports(&server, "success") >= 4).then_some(()));
    assert_eq!(receiver.most_open.load(Ordering::SeqCst), 1);
    assert_unharmed(&server);
}

#[test]
fn after_503_observer_waits_as_long_as_it_was_asked_to_and_goes_on() {
    const WAIT: Duration = Duration::from_secs(3);
    let away = Reply::status("503 Service Unavailable", "Retry-After: 3\r\n", b"");
    let receiver = Receiver::start(vec![away.clone(), away, ok()]);
    let mut server = pushing_to(receiver.address);
    let times: Vec<_> = (0..4).map(|_| receiver.requests.recv_timeout(PATIENCE).unwrap().at).collect();
    assert!(times[1] - times[0] >= WAIT && times[2] - times[1] >= WAIT, "{times:?}");
    eventually("two exports arrive", || (exports(&server, "success") >= 2).then_some(()));
    assert_eq!(exports(&server, "unavailable"), 2);
    assert_said(&mut server, "is not available: HTTP status 503; observer goes on trying");
    assert_said(&mut server, "takes exports");
    assert_unharmed(&server);
}

#[test]
fn a_receiver_that_never_answers_has_one_connection_and_one_document() {
    let receiver = Receiver::start(vec![Reply::Nothing]);
    let mut server = pushing_to(receiver.address);
    eventually("a failure", || (exports(&server, "failed") >= 2).then_some(()));
    assert_said(&mut server, "ETIMEDOUT");
    assert_eq!(receiver.most_open.load(Ordering::SeqCst), 1);
    assert!(receiver.open.load(Ordering::SeqCst) <= 1);
    assert_unharmed(&server);
}

#[test]
fn a_receiver_that_closes_is_a_failure_each_time_and_said_once() {
    let receiver = Receiver::start(vec![Reply::Close, Reply::Close, Reply::Close, ok()]);
    let mut server = pushing_to(receiver.address);
    eventually("an export arrives", || (exports(&server, "success") >= 1).then_some(()));
    assert_eq!(exports(&server, "failed"), 3);
    assert_said(&mut server, "cannot export to the OTLP receiver");
    assert_said(&mut server, "takes exports");
    assert_unharmed(&server);
}

#[test]
fn a_receiver_that_is_gone_gets_the_next_export_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut server = pushing_to(address);
    eventually("two failures", || (exports(&server, "failed") >= 2).then_some(()));
    assert_said(&mut server, "ECONNREFUSED");
    let receiver = Receiver::at(TcpListener::bind(address).unwrap(), vec![ok()]);
    receiver.requests.recv_timeout(PATIENCE).unwrap();
    eventually("an export arrives", || (exports(&server, "success") >= 1).then_some(()));
    assert_said(&mut server, "takes exports");
    assert_unharmed(&server);
}

#[test]
fn answers_that_make_no_sense_are_failures_and_end_their_connection() {
    let fields = "X: y\r\n".repeat(1_000);
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1 << 20));
    let replies: Vec<Reply> = [
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes(),
        endless.into_bytes(),
    ]
    .into_iter()
    .map(Reply::Bytes)
    .chain([ok()])
    .collect();
    let receiver = Receiver::start(replies);
    let mut server = pushing_to(receiver.address);
    eventually("an export arrives", || (exports(&server, "success") >= 1).then_some(()));
    assert_eq!(exports(&server, "failed"), 3);
    assert_said(&mut server, "EPROTO");
    assert_unharmed(&server);
}

#[test]
fn rejections_are_counted_apart_from_failures() {
    let partial: &[u8] = b"\x0a\x02\x08\x05";
    let receiver = Receiver::start(vec![
        Reply::status("200 OK", "", partial),
        Reply::status("400 Bad Request", "", b"no"),
        // A body that is longer than observer reads, and one that is no protobuf.
        Reply::status("200 OK", "", &[b'x'; 100_000]),
        Reply::status("200 OK", "", b"\xff\xff\xff"),
    ]);
    let mut server = pushing_to(receiver.address);
    eventually("exports arrive", || (exports(&server, "success") >= 2).then_some(()));
    assert_eq!([exports(&server, "partial"), exports(&server, "rejected"), exports(&server, "failed")], [1, 1, 0]);
    assert_said(&mut server, "rejected 5 points");
    assert_said(&mut server, "refuses exports: HTTP status 400");
    assert_said(&mut server, "takes exports");
    assert_unharmed(&server);
}

#[test]
fn counts_outlast_an_http_process_that_is_killed() {
    let receiver = Receiver::start(vec![ok()]);
    let server = pushing_to(receiver.address);
    eventually("two exports", || (exports(&server, "success") >= 2).then_some(()));
    let before = server.http_pid().unwrap();
    super::super::server::send_signal(before, "KILL");
    super::super::server::another_http_process(&server, before);
    eventually("more exports", || (exports(&server, "success") >= 4).then_some(()));
    assert!(server.sum("observer_events_lost_total") < 0.5);
}

#[test]
fn what_observer_cannot_push_to_is_refused_before_it_starts() {
    for (url, words) in [
        ("https://127.0.0.1:4318", "has no TLS: run a collector or a proxy on this host"),
        ("http://127.0.0.1", "4318"),
    ] {
        let output = Command::new(OBSERVER).args(["serve", "--otlp", url]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let output = Command::new(OBSERVER).args(["serve", "--otlp", "http://no-such-host.invalid:4318"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("look up the OTLP receiver no-such-host.invalid:4318"), "{said}");
}
