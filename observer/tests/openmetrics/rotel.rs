//! rotel, a collector for OTLP, and what it says that it received.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
};

use super::running::{Running, eventually, free_address};

pub(crate) type Attributes = BTreeMap<String, String>;

/// A running collector.
pub(crate) struct Rotel {
    dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    _running: Running,
}

/// A point as rotel shows it. Numbers are `Int(1)`, texts `Str(a)`, and a name that a test gives is in `attributes` as well.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) description: String,
    /// `Gauge`, or `Sum` with its temporality and whether it is monotonic.
    pub(crate) kind: Vec<String>,
    pub(crate) attributes: Attributes,
    pub(crate) start: u64,
    pub(crate) time: u64,
    pub(crate) value: f64,
}

/// Where `cargo xtask test` puts it.
fn program() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache"))).unwrap();
    let program = cache.join("observer/rotel/rotel/rotel-agent");
    assert!(program.exists(), "no {}: `cargo xtask test` installs it", program.display());
    program
}

impl Rotel {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (http, grpc) = (free_address(), free_address());
        let mut command = Command::new(program());
        command.args([
            "start",
            "--exporter",
            "blackhole",
            "--debug-log",
            "metrics",
            "--debug-log-verbosity",
            "detailed",
        ]);
        command.args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()]);
        command.arg("--pid-file").arg(dir.path().join("pid"));
        let running = Running::start(&mut command, &dir.path().join("log"));
        let rotel = Self { dir, address: http, _running: running };
        eventually("rotel listens", &rotel.dir.path().join("log"), || TcpStream::connect(http).ok());
        rotel
    }

    /// The attributes of the resource and the points that it received, once there are as many as `wanted`.
    pub(crate) fn received(&self, wanted: usize) -> (Attributes, Vec<Point>) {
        let log = self.dir.path().join("log");
        eventually("rotel shows all points", &log, || {
            let (resource, points) = parse(&fs::read_to_string(&log).unwrap());
            (points.len() >= wanted).then_some((resource, points))
        })
    }
}

/// Reads the output of `--debug-log-verbosity detailed`.
fn parse(text: &str) -> (Attributes, Vec<Point>) {
    let (mut resource, mut points, mut of_metric) = (Attributes::new(), Vec::new(), Point::default());
    let mut section = "";
    let mut point = Point::default();
    for line in text.lines() {
        if let Some(field) = line.trim_start().strip_prefix("-> ") {
            let (key, value) = field.split_once(": ").unwrap_or((field.trim_end_matches(':'), ""));
            match section {
                "Resource attributes:" => drop(resource.insert(key.to_owned(), value.to_owned())),
                "Data point attributes:" => drop(point.attributes.insert(key.to_owned(), value.to_owned())),
                "Descriptor:" => match key {
                    "Name" => of_metric = Point { name: value.to_owned(), ..Point::default() },
                    "Description" => value.clone_into(&mut of_metric.description),
                    "Unit" => value.clone_into(&mut of_metric.unit),
                    _ => of_metric.kind.push(value.to_owned()),
                },
                _ => {}
            }
        } else if line.starts_with("NumberDataPoints #") {
            point = of_metric.clone();
        } else if let Some(time) = line.strip_prefix("StartTimestamp: ") {
            point.start = time.trim().parse().unwrap();
        } else if let Some(time) = line.strip_prefix("Timestamp: ") {
            point.time = time.trim().parse().unwrap();
        } else if let Some(value) = line.strip_prefix("Value: ") {
            point.value = value.trim().parse().unwrap();
            points.push(point.clone());
        } else {
            section = line.trim();
        }
    }
    (resource, points)
}
