//! Requests that are wrong get 4xx or a close, and nothing else.

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::server::{Server, status};

/// A request that is right, with this line and these header fields.
fn request(line: &str, fields: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
}

#[test]
fn each_wrong_request_has_its_answer() {
    let server = Server::start();
    let many = "X: y\r\n".repeat(70);
    let table: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("an unknown path", request("GET /nothing", ""), &[404]),
        ("a path beside a known one", request("GET /metrics/", ""), &[404]),
        ("dots", request("GET /../../etc/passwd", ""), &[404]),
        ("an escaped path", request("GET /%6detrics", ""), &[404]),
        ("an asterisk", request("GET *", ""), &[404]),
        ("another scheme", request("GET file:///etc/passwd", ""), &[400, 404]),
        ("POST", request("POST /metrics", "Content-Length: 3\r\n"), &[405]),
        ("DELETE", request("DELETE /metrics", ""), &[405]),
        ("OPTIONS", request("OPTIONS *", ""), &[405]),
        ("CONNECT", request("CONNECT 127.0.0.1:22", ""), &[405]),
        ("TRACE", request("TRACE /", ""), &[405]),
        ("an unknown method", request("BREW /metrics", ""), &[405]),
        ("a body", request("GET /metrics", "Content-Length: 5\r\n"), &[413]),
        ("a body in chunks", request("GET /metrics", "Transfer-Encoding: chunked\r\n"), &[413]),
        ("a body with permission", request("GET /metrics", "Content-Length: 5\r\nExpect: 100-continue\r\n"), &[413]),
        ("a length that is none", request("GET /metrics", "Content-Length: -1\r\n"), &[400]),
        ("two lengths", request("GET /metrics", "Content-Length: 1\r\nContent-Length: 2\r\n"), &[400]),
        ("a huge length", request("GET /metrics", "Content-Length: 99999999999999999999\r\n"), &[400]),
        ("an unknown coding", request("GET /metrics", "Transfer-Encoding: zip\r\n"), &[400]),
        ("a long target", request(&format!("GET /{}", "a".repeat(2000)), ""), &[414]),
        ("a very long target", request(&format!("GET /{}", "a".repeat(70_000)), ""), &[414, 431]),
        ("a large field", request("GET /metrics", &format!("X: {}\r\n", "a".repeat(9000))), &[431]),
        ("many fields", request("GET /metrics", &many), &[431]),
        ("no Host", b"GET /metrics HTTP/1.1\r\n\r\n".to_vec(), &[400]),
        ("two Hosts", request("GET /metrics", "Host: y\r\n"), &[400]),
        ("a field without a name", request("GET /metrics", ": y\r\n"), &[400]),
        ("a space in a name", request("GET /metrics", "X y: z\r\n"), &[400]),
        ("a zero in a field", request("GET /metrics", "X: \0\r\n"), &[400]),
        ("no version", b"GET /metrics\r\n\r\n".to_vec(), &[400]),
        ("another version", b"GET /metrics HTTP/3.0\r\nHost: x\r\n\r\n".to_vec(), &[400]),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400]),
        ("zeros", vec![0; 4096], &[400]),
    ];
    for (what, bytes, expected) in table {
        let response = server.exchange(&bytes);
        let status = status(&response).unwrap_or_else(|| panic!("{what}: no answer"));
        assert!(expected.contains(&status), "{what}: {status}: {}", String::from_utf8_lossy(&response));
        assert_eq!(String::from_utf8_lossy(&response).matches("HTTP/1.1 ").count(), 1, "{what}: one answer");
    }
    // HTTP/2 without TLS begins so: it is closed without a word.
    assert_eq!(status(&server.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), None);
    let allowed = String::from_utf8(server.exchange(&request("PUT /", ""))).unwrap().to_ascii_lowercase();
    assert!(allowed.contains("\r\nallow: get, head\r\n"), "{allowed}");
    let old = server.exchange(b"GET /-/healthy HTTP/1.0\r\n\r\n");
    assert_eq!(status(&old), Some(200), "HTTP/1.0 needs no Host");
    let absolute = server.exchange(&request("GET http://anywhere/-/healthy", "Connection: close\r\n"));
    assert_eq!(status(&absolute), Some(200));
    let twice = server.exchange(&[request("GET /-/healthy", ""), request("GET /-/ready", "")].concat());
    assert_eq!(String::from_utf8(twice).unwrap().matches("HTTP/1.1 200 ").count(), 2, "requests in one segment");
    server.assert_serves();
}

/// Bytes, some of them close to a request.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"GET ".to_vec()),
        Just(b"HEAD ".to_vec()),
        Just(b"/metrics".to_vec()),
        Just(b" HTTP/1.1".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"Host: x".to_vec()),
        Just(b"Content-Length: ".to_vec()),
        Just(b"Transfer-Encoding: chunked".to_vec()),
        Just(b"Connection: upgrade".to_vec()),
        Just(b"Accept: ;q=".to_vec()),
        "[0-9]{1,22}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let pieces = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    let mutated = (any::<prop::sample::Index>(), any::<u8>(), 0..200_usize).prop_map(|(at, byte, cut)| {
        let mut bytes = request("GET /metrics", "Accept: text/plain\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    });
    prop_oneof![pieces, mutated]
}

#[test]
fn whatever_bytes_come_the_answer_is_a_response_or_a_close() {
    let server = Server::start();
    let before = server.http_pid();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner =
        TestRunner::new_with_rng(Config { cases: 4000, failure_persistence: None, ..Config::default() }, rng);
    let (mut refused, mut closed) = (0, 0);
    let strategy = bytes();
    for _ in 0..4000 {
        let bytes = strategy.new_tree(&mut runner).unwrap().current();
        let response = server.exchange(&bytes);
        match status(&response) {
            // A mutation can be harmless.
            Some(200) => {}
            Some(status) => {
                assert!((400..500).contains(&status), "{status}: {:?}", String::from_utf8_lossy(&bytes));
                refused += 1;
            }
            None => {
                assert!(response.is_empty(), "{:?}: {:?}", String::from_utf8_lossy(&bytes), response);
                closed += 1;
            }
        }
    }
    assert!(refused > 500 && closed > 100, "{refused} refused, {closed} closed");
    assert_eq!(server.http_pid(), before, "the HTTP process is the same");
    server.assert_serves();
    assert!(server.sum("observer_http_restarts_total") < 0.5);
}
