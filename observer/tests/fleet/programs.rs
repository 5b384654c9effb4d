//! Three observers, Prometheus and Alertmanager, and what these say.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    http::get,
    network::{HOSTS, HUB, Network},
    packaging,
};

const PATIENCE: Duration = Duration::from_mins(2);
const OBSERVER_PORT: u16 = 28_232;
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(HUB), 9_090);
const ALERTMANAGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(HUB), 9_093);

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The fleet as it runs.
pub(crate) struct Fleet {
    pub(crate) network: Network,
    /// What Alertmanager sent to its receiver: one alert each.
    pub(crate) notifications: Receiver<Value>,
    _programs: Vec<Running>,
    dir: TempDir,
}

/// The result of an instant query; `None` while Prometheus does not answer, or refuses it. For the hub alone.
pub(crate) fn query(expr: &str) -> Option<Vec<Value>> {
    let answer = get(PROMETHEUS, &format!("/api/v1/query?query={}", encoded(expr)))?;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    match &answer["data"]["result"] {
        Value::Array(rows) => Some(rows.clone()),
        _ => None,
    }
}

/// The alerts that Alertmanager has, by its API. For the hub alone.
pub(crate) fn alerts() -> Option<Vec<Value>> {
    serde_json::from_str(&get(ALERTMANAGER, "/api/v2/alerts")?).ok()
}

/// The `instance` of a host.
pub(crate) fn instance(host: Ipv4Addr) -> String {
    format!("{host}:{OBSERVER_PORT}")
}

impl Fleet {
    /// Starts it. The calling thread is in the hub from here on.
    pub(crate) fn start() -> Self {
        let network = Network::new();
        network.hub.enter();
        let dir = tempfile::tempdir().unwrap();
        let mut programs: Vec<Running> = network
            .hosts
            .iter()
            .zip(HOSTS)
            .map(|(host, address)| {
                let mut observer = Command::new(env!("CARGO_BIN_EXE_observer"));
                observer.args(["--own-netns", "serve", "--listen", &instance(address)]);
                host.inside(|| Running::start(&mut observer, &dir.path().join(format!("{address}.log"))))
            })
            .collect();
        let (webhook, notifications) = receive_notifications();
        write_configuration(dir.path(), webhook);
        programs.push(Running::start(&mut alertmanager(dir.path()), &dir.path().join("alertmanager.log")));
        programs.push(Running::start(&mut prometheus(dir.path()), &dir.path().join("prometheus.log")));
        let fleet = Self { network, notifications, _programs: programs, dir };
        fleet.eventually("three hosts answer", || {
            let up = query("up{job=\"observer\"} == 1")?;
            (up.len() == HOSTS.len()).then_some(())
        });
        fleet
    }

    /// Waits until `wanted` is there. What the programs logged says why it did not come.
    #[track_caller]
    pub(crate) fn eventually<T>(&self, what: &str, mut wanted: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = wanted() {
                return value;
            }
            assert!(Instant::now() < deadline, "did not come: {what}\n{}", self.logs());
            // Between two questions Prometheus has time for its work.
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|extension| extension == "log") {
                let log = fs::read_to_string(&entry).unwrap();
                let last = log.lines().count().saturating_sub(20);
                let lines: Vec<&str> = log.lines().skip(last).collect();
                let _ = writeln!(text, "{}:\n{}", entry.display(), lines.join("\n"));
            }
        }
        text
    }
}

/// The files of `packaging/` with other addresses and shorter times: a scrape each second, and alerts that wait two seconds
/// instead of minutes. What they ask for stays.
fn write_configuration(dir: &Path, webhook: SocketAddr) {
    let read = |name: &str| fs::read_to_string(packaging("prometheus").join(name)).unwrap();
    let targets = HOSTS.map(|host| format!("\"{}\"", instance(host))).join(", ");
    let shipped = read("prometheus.yml");
    let documented = "\"web-1:28232\", \"web-2:28232\", \"web-3:28232\"";
    let interval = "scrape_interval: 15s";
    assert!(shipped.contains(documented) && shipped.contains(interval), "{shipped}");
    let scrape = shipped.replace(documented, &targets).replace(interval, "scrape_interval: 1s");
    let global = "global: {evaluation_interval: 1s}";
    let alerting = format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: [\"{ALERTMANAGER}\"]}}]}}]}}");
    fs::write(dir.join("prometheus.yml"), format!("{global}\n{alerting}\n{scrape}")).unwrap();
    fs::write(dir.join("rules.yml"), read("rules.yml")).unwrap();
    let alerts = read("alerts.yml");
    let short = |line: &str| match line.split_once("for: ") {
        Some((before, _)) if before.trim().is_empty() => format!("{before}for: 2s"),
        _ => line.to_owned(),
    };
    let alerts: Vec<String> = alerts.lines().map(short).collect();
    fs::write(dir.join("alerts.yml"), alerts.join("\n") + "\n").unwrap();
    let route = "{receiver: test, group_by: [...], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}";
    let receiver = format!("{{name: test, webhook_configs: [{{url: \"http://{webhook}/\", send_resolved: true}}]}}");
    fs::write(dir.join("alertmanager.yml"), format!("route: {route}\nreceivers: [{receiver}]\n")).unwrap();
}

fn prometheus(dir: &Path) -> Command {
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}"));
    command
}

fn alertmanager(dir: &Path) -> Command {
    let mut command = Command::new("prometheus-alertmanager");
    command.arg(format!("--config.file={}", dir.join("alertmanager.yml").display()));
    command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
    command.arg(format!("--web.listen-address={ALERTMANAGER}"));
    // It is alone.
    command.arg("--cluster.listen-address=");
    command
}

/// Alertmanager's receiver: a web server in the namespace of the calling thread.
fn receive_notifications() -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind((HUB, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, notifications) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            take_notification(&mut stream.unwrap(), &sender);
        }
    });
    (address, notifications)
}

fn take_notification(stream: &mut TcpStream, sender: &Sender<Value>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let group: Value = serde_json::from_slice(&body).unwrap();
    for alert in group["alerts"].as_array().unwrap() {
        // The test may be over.
        let _ = sender.send(alert.clone());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()
}

/// For an address.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
