//! Prometheus scrapes both formats from a file server and stores every series. node_exporter takes the text format.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use observer::export::openmetrics::Format;

use super::{
    exposition::Exposition,
    http::get,
    running::{PATIENCE, Running, eventually, free_address},
    synthetic, text,
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves files by their path; each request is reported with its path.
fn serve(files: Vec<(&'static str, &'static str, String)>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &files, &sender);
        }
    });
    (address, requests)
}

fn answer(mut stream: TcpStream, files: &[(&str, &str, String)], sender: &Sender<String>) {
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(length) if length > 0 => request.extend_from_slice(&bytes[..length]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap();
    let (_, kind, body) = files.iter().find(|(of, ..)| *of == path).unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).unwrap();
    // The test may be over.
    let _ = sender.send(path.to_owned());
}

#[test]
fn prometheus_stores_every_series_of_both_formats() {
    let frame = synthetic::large_host();
    let (openmetrics, plain) = (text(&frame, Format::OpenMetrics), text(&frame, Format::Text));
    let ours = Exposition::parse(&openmetrics).len();
    let files = vec![("/openmetrics", OPENMETRICS, openmetrics), ("/text", TEXT, plain)];
    let (server, requests) = serve(files);
    let dir = tempfile::tempdir().unwrap();
    let (config, log, address) = (dir.path().join("prometheus.yml"), dir.path().join("log"), free_address());
    let job = |name: &str| {
        format!("  - {{job_name: {name}, metrics_path: /{name}, static_configs: [{{targets: [\"{server}\"]}}]}}\n")
    };
    let jobs = job("openmetrics") + &job("text");
    fs::write(&config, format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}")).unwrap();
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}", config.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    prometheus.arg(format!("--web.listen-address={address}"));
    let running = Running::start(&mut prometheus, &log);

    // A second request of a path says that the first answer is stored.
    let mut scrapes = Vec::new();
    while ["/openmetrics", "/text"].iter().any(|path| scrapes.iter().filter(|it| it == path).count() < 2) {
        let request = requests.recv_timeout(PATIENCE);
        scrapes.push(request.unwrap_or_else(|_| panic!("no scrape: {}", fs::read_to_string(&log).unwrap())));
    }
    for job in ["openmetrics", "text"] {
        // count({__name__=~"observer_.+",job="..."})
        let query = format!("count(%7B__name__%3D~%22observer_.%2B%22%2Cjob%3D%22{job}%22%7D)");
        let count = eventually("Prometheus answers", &log, || {
            let answer = get(address, &format!("/api/v1/query?query={query}"))?;
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
        });
        assert_eq!(count, ours.to_string(), "series of {job}");
    }
    drop(running);
}

#[test]
fn node_exporter_takes_the_text_format() {
    let frame = synthetic::frame();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("observer.prom"), text(&frame, Format::Text)).unwrap();
    let (log, address) = (dir.path().join("log"), free_address());
    let mut exporter = Command::new("prometheus-node-exporter");
    exporter.args(["--collector.disable-defaults", "--collector.textfile"]);
    exporter.arg(format!("--collector.textfile.directory={}", dir.path().display()));
    exporter.arg(format!("--web.listen-address={address}"));
    let running = Running::start(&mut exporter, &log);
    let answer = eventually("node_exporter answers", &log, || get(address, "/metrics"));
    assert!(answer.contains("\nnode_textfile_scrape_error 0\n"), "{}", fs::read_to_string(&log).unwrap());
    let mut series = Exposition::parse(&answer).series;
    series.retain(|(name, _), _| name.starts_with("observer_"));
    // Its library gives every series of a name the same labels: an empty one is as good as none.
    let series = series.into_iter().map(|((name, mut labels), number)| {
        labels.retain(|_, value| !value.is_empty());
        ((name, labels), number)
    });
    assert_eq!(series.collect::<std::collections::BTreeMap<_, _>>(), super::exposition(&frame).series);
    drop(running);
}
