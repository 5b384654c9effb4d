//! A collector receives the series that Prometheus gets, under the names and attributes of docs/metrics.md.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use observer::{
    export::{otlp::Exporter, series::Bounds},
    frame::{Detail, Frame, FrameSource as _, RecordedSource},
    host::machine::Machine,
};

use super::{
    exposition,
    page::described,
    recordings,
    rotel::{Attributes, Point, Rotel},
    synthetic,
};

/// Labels whose values are whole numbers.
const NUMBERS: [&str; 3] = ["local_port", "peer_port", "inode"];

/// The number, unit and kind of each point, by its name and attributes.
type Points = BTreeMap<(String, Attributes), (u64, String, Vec<String>)>;

/// What the page says of a metric in OTLP.
struct Otlp {
    name: String,
    unit: String,
    /// Attributes without a label.
    constants: Vec<(String, String)>,
}

/// Each series of the page by its name for Prometheus, and each label with its attribute.
fn names() -> (BTreeMap<String, Otlp>, BTreeMap<String, String>) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    let (page, attributes) = page.split_once("\n## OTLP\n").unwrap();
    let series = page.lines().filter_map(|line| line.strip_prefix("| `observer_")).map(|row| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let words: Vec<&str> = cells[7].split('`').skip(1).step_by(2).collect();
        let (constants, unit): (Vec<&str>, Vec<&str>) = words[1..].iter().partition(|word| word.contains('='));
        let pair = |word: &str| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap();
        let otlp = Otlp {
            name: words[0].to_owned(),
            unit: unit.concat(),
            constants: constants.into_iter().map(pair).collect(),
        };
        (format!("observer_{}", cells[0].trim_end_matches('`')), otlp)
    });
    let rows = attributes.lines().filter_map(|line| line.strip_prefix("| `"));
    let attributes = rows.map(|row| {
        let words: Vec<&str> = row.split('`').step_by(2).collect();
        (words[0].to_owned(), words[1].to_owned())
    });
    (series.collect(), attributes.collect())
}

/// What Prometheus gets of the same frame, in the words of the page.
fn expected(frame: &Frame) -> Points {
    let (metrics, attributes) = names();
    let types = described();
    let point = |((name, labels), number): ((String, BTreeMap<String, String>), f64)| {
        let of = &metrics[&name];
        let attribute = |(label, value): (String, String)| {
            let value = if label == "metric" { metrics[&value].name.clone() } else { value };
            let value = if NUMBERS.contains(&&*label) { format!("Int({value})") } else { format!("Str({value})") };
            (attributes[&label].clone(), value)
        };
        let constants = of.constants.iter().map(|(key, value)| (key.clone(), format!("Str({value})")));
        let attributes = labels.into_iter().map(attribute).chain(constants).collect();
        let is_ours = of.name.starts_with("observer.");
        let kind: &[&str] = match types[&name].0.as_str() {
            "counter" => &["Sum", "true", "AGGREGATION_TEMPORALITY_CUMULATIVE"],
            _ if !is_ours => &["Sum", "false", "AGGREGATION_TEMPORALITY_CUMULATIVE"],
            _ => &["Gauge"],
        };
        let kind = kind.iter().map(|&word| word.to_owned()).collect();
        ((of.name.clone(), attributes), (number.to_bits(), of.unit.clone(), kind))
    };
    exposition(frame).series.into_iter().map(point).collect()
}

/// The status of the answer to a request.
fn post(rotel: &Rotel, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(rotel.address).unwrap();
    let head = format!(
        "POST /v1/metrics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).lines().next().unwrap().to_owned()
}

fn nanoseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

#[track_caller]
fn assert_received(frame: &Frame) {
    let rotel = Rotel::start();
    let expected = expected(frame);
    let request = Exporter::new(Machine::default(), "").render(frame, Bounds::default());
    assert_eq!(post(&rotel, &request), "HTTP/1.1 200 OK");
    let (_, points) = rotel.received(expected.len());
    let taken_at = frame.snapshot.taken_at;
    let started = nanoseconds(taken_at - frame.snapshot.uptime);
    for Point { name, kind, start, time, description, .. } in &points {
        assert_eq!(*time, nanoseconds(taken_at), "{name}");
        let is_known = kind[0] == "Sum" && name != "observer.listen_drops";
        assert_eq!(*start, if is_known { started } else { 0 }, "{name}");
        assert!(description.ends_with('.'), "{name}: {description}");
    }
    let count = points.len();
    let point = |point: Point| ((point.name, point.attributes), (point.value.to_bits(), point.unit, point.kind));
    let received: Points = points.into_iter().map(point).collect();
    assert_eq!(received.len(), count, "two points look alike");
    for (key, point) in &expected {
        assert_eq!(received.get(key), Some(point), "{key:?}");
    }
    assert_eq!(received.len(), expected.len());
}

#[test]
fn a_collector_receives_every_series_of_recordings() {
    for file in recordings() {
        let mut source = RecordedSource::open(&file).unwrap();
        source.seek(None).unwrap();
        assert_received(&source.frame(Detail::ALL).unwrap());
    }
}

#[test]
fn a_collector_receives_the_series_of_a_large_host_within_the_bound() {
    assert_received(&synthetic::large_host());
}

/// The UUID of an instance, by Python's own implementation.
fn uuid5(text: &str) -> String {
    let script = "import sys, uuid; print(uuid.uuid5(uuid.UUID('4d63009a-8d0f-11ee-aad7-4c796ed8e320'), sys.argv[1]))";
    let output = Command::new("python3").args(["-c", script, text]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_resource_is_this_host() {
    const PLACE: &str = "http://127.0.0.1:28232";
    let rotel = Rotel::start();
    let frame = synthetic::frame();
    let request = Exporter::new(Machine::this(), PLACE).render(&frame, Bounds::default());
    assert_eq!(post(&rotel, &request), "HTTP/1.1 200 OK");
    let (mut resource, _) = rotel.received(1);
    let uname = Command::new("uname").arg("-n").output().unwrap().stdout;
    let mut expected = vec![
        ("host.name", String::from_utf8(uname).unwrap()),
        ("os.type", "linux".to_owned()),
        ("service.name", "observer".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    // A machine that was never started has none.
    let id = fs::read_to_string("/etc/machine-id").ok().filter(|id| id.trim().len() == 32);
    if let Some(id) = id {
        expected.push(("service.instance.id", uuid5(&format!("{} observer {PLACE}", id.trim()))));
        expected.push(("host.id", id));
    } else {
        // A random one.
        assert_eq!(resource.remove("service.instance.id").unwrap().len(), "Str()".len() + 36);
    }
    let expected: Attributes =
        expected.into_iter().map(|(key, value)| (key.to_owned(), format!("Str({})", value.trim()))).collect();
    assert_eq!(resource, expected);
}

#[test]
fn counters_keep_their_start_when_the_wall_clock_moves() {
    let rotel = Rotel::start();
    let mut exporter = Exporter::new(Machine::default(), "");
    let mut frame = synthetic::frame();
    let started = nanoseconds(frame.snapshot.taken_at - frame.snapshot.uptime);
    let mut wanted = 0;
    for seconds in [0, 3_600] {
        let step = std::time::Duration::from_secs(seconds);
        frame.snapshot.taken_at += step;
        assert_eq!(post(&rotel, &exporter.render(&frame, Bounds::default())), "HTTP/1.1 200 OK");
        wanted += expected(&frame).len();
    }
    let (_, points) = rotel.received(wanted);
    let events: Vec<&Point> = points.iter().filter(|point| point.name == "observer.events").collect();
    assert_eq!(events.iter().map(|point| point.start).collect::<Vec<_>>(), [started; 2]);
    assert_eq!(events[1].time - events[0].time, 3_600_000_000_000);
}
