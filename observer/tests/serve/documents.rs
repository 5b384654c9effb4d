//! Documents are what their headers say, and what other commands print.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use super::server::{OBSERVER, Server, curl};

/// Headers in lower case, and the body.
fn parts(response: &[u8]) -> (String, Vec<u8>) {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8(response[..end].to_vec()).unwrap().to_ascii_lowercase(), response[end + 4..].to_vec())
}

/// promtool, which reads the text format alone.
fn assert_promtool_is_content(text: &[u8]) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "promtool: {}", String::from_utf8_lossy(&said));
}

/// The names of all objects' keys, with their place.
fn shape(value: &serde_json::Value, place: &str, into: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                into.insert(format!("{place}.{key}"));
                shape(value, &format!("{place}.{key}"), into);
            }
        }
        serde_json::Value::Array(rows) => rows.iter().for_each(|row| shape(row, place, into)),
        _ => {}
    }
}

#[test]
fn metrics_have_the_format_and_the_encoding_that_the_client_accepts() {
    let server = Server::start();
    let url = server.url("/metrics");
    let openmetrics = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = "content-type: text/plain; version=0.0.4; charset=utf-8";
    for (accept, expected) in [
        ("Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", openmetrics),
        ("Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2", openmetrics),
        ("Accept: text/plain;version=0.0.4", text),
        ("Accept: application/openmetrics-text;q=0.1, text/plain", text),
        ("Accept: */*", text),
        ("Accept:", text),
    ] {
        let (headers, body) = parts(&curl(&["-sSi", "-H", accept, &url]).stdout);
        assert!(headers.starts_with("http/1.1 200 ") && headers.contains(expected), "{accept}: {headers}");
        assert!(headers.contains("vary: accept, accept-encoding"), "{headers}");
        assert_eq!(body.ends_with(b"\n# EOF\n"), expected == openmetrics, "{accept}");
        if expected == text {
            assert_promtool_is_content(&body);
        }
    }
    // Within a second both are the same document; otherwise another attempt finds them so.
    let same = super::eventually("the same document, compressed and not", || {
        let pair = curl(&["-sS", &url, "--next", "-sS", "-H", "Accept-Encoding: gzip", "-D", "/dev/stderr", &url]);
        let headers = String::from_utf8(pair.stderr).unwrap().to_ascii_lowercase();
        assert!(headers.contains("content-encoding: gzip"), "{headers}");
        let split = pair.stdout.windows(2).position(|two| two == [0x1F, 0x8B])?;
        let (plain, gzip) = pair.stdout.split_at(split);
        (unzipped(gzip) == plain).then(|| plain.to_vec())
    });
    assert_promtool_is_content(&same);
    let head = curl(&["-sSI", &url]).stdout;
    let (headers, body) = parts(&head);
    assert!(headers.starts_with("http/1.1 200 ") && headers.contains(text) && body.is_empty(), "{headers}");
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert!(length.parse::<usize>().unwrap() > 1000, "{headers}");
}

/// By a program that this project did not write.
fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let output = Command::new("gzip").arg("-dc").stdin(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn other_paths_have_json_a_page_and_two_words() {
    let server = Server::start();
    let (headers, body) = parts(&curl(&["-sSi", &server.url("/snapshot")]).stdout);
    assert!(headers.contains("content-type: application/json"), "{headers}");
    let (mut over_http, mut printed) = (BTreeSet::new(), BTreeSet::new());
    shape(&serde_json::from_slice(&body).unwrap(), "", &mut over_http);
    let output = Command::new(OBSERVER).args(["snapshot", "--json"]).output().unwrap();
    shape(&serde_json::from_slice(&output.stdout).unwrap(), "", &mut printed);
    let top = |shape: &BTreeSet<String>| -> BTreeSet<String> {
        shape.iter().filter(|place| place.matches('.').count() == 1).cloned().collect()
    };
    // Rows of a busy host can have what those of a moment ago lack.
    assert_eq!(top(&over_http), top(&printed));
    assert!(over_http.contains(".quality.events_total") && printed.contains(".quality.events_total"));
    let page = server.get("/");
    for wanted in ["<a href=\"/metrics\">", "<a href=\"/snapshot\">", "HTTP process", "HTTP restarts"] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    assert!(!page.contains("<script"), "{page}");
    assert_eq!((server.get("/-/ready").as_str(), server.get("/-/healthy").as_str()), ("ready\n", "healthy\n"));
}

#[test]
fn many_scrapes_at_once_share_a_document() {
    let server = Server::start();
    let url = server.url("/metrics");
    let urls: Vec<&str> = std::iter::repeat_n(url.as_str(), 40).collect();
    let started = std::time::Instant::now();
    let mut args = vec!["-sS", "--no-progress-meter", "--parallel", "--parallel-immediate", "--parallel-max", "40"];
    args.extend(urls);
    let all = curl(&args).stdout;
    let seconds = started.elapsed().as_secs();
    let text = String::from_utf8(all).unwrap();
    // The time of a document is that of its last scan and its records: distinct ones are distinct documents.
    let records: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("observer_events_total ")).collect();
    assert_eq!(text.matches("# TYPE observer_build_info ").count(), 40);
    assert!(records.len() as u64 <= seconds + 2, "{} documents in {seconds} s", records.len());
}
