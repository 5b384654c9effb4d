//! `docs/metrics.md`: written from the fields, and held to them by a test.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, iter, path::Path};

use super::{
    Field, Fields, Order,
    metric::{
        METRICS, Metric, MetricType,
        otel::{ATTRIBUTES, Attribute, Instrument, Otel, Start, UNITS},
    },
};
use crate::{
    export,
    frame::Frame,
    model::{
        device::Device,
        failure::FailureRow,
        limit::{Limit, LimitKind, Scope},
        query::ConnectionRow,
        snapshot::{DestinationRow, EndpointRow, ProcessRow, ServiceRow, Snapshot},
    },
    tui,
};

/// Set, the test writes the page.
const WRITE: &str = "OBSERVER_WRITE_DOCS";
const COMMAND: &str = "OBSERVER_WRITE_DOCS=1 cargo test -p observer --lib present::metrics";
const PAGE: &str = "docs/metrics.md";

const HEAD: &str = "\
# Metrics

<!-- Written by `OBSERVER_WRITE_DOCS=1 cargo test -p observer --lib present::metrics`. Change the fields in
observer/src/present, not this page. -->

Each quantity that observer shows has one definition. The screens, their `i` explanations, the tables of `observer snapshot`
and `observer limits`, `--sort ID`, the series for Prometheus and OTLP, and this page read it. Where JSON has a quantity, it has it under the same id; a few ids
stand for several JSON fields. The last column has their paths in the row's object.
";

const PROMETHEUS: &str = "\
## Prometheus

`observer serve` at `/metrics`, `observer snapshot --openmetrics` (OpenMetrics 1.0) and `--prometheus` (text format 0.0.4). What
could not be read is absent. A label without a value is absent, as Prometheus has it.

- A namespace's label is its name, or its number where it has none. Where two namespaces have one name, or a name looks like
  something else, the number follows: `web (4026532281)`. The namespace with the lowest number keeps its name; where observer
  sees the whole host, that is the host's.
- At most 5,000 series in all (`--max-series`): processes go first, then listeners, then namespaces, which count as `~other`
  instead. `observer_series_left_out` says what each bound cut.
- Namespaces have series of their own in the order of their numbers: which these are does not change with load. Counters of
  `~other` sum what namespaces count while they have no series of their own. They do not fall when one ends.
- `observer_netns_info` has a label for each part of the name of a namespace. Join it:
  `observer_sockets * on (instance, netns) group_left (pod_namespace, pod) observer_netns_info`.
- *From notice on*: destinations that use half of their ports, accept queues at 80 %.
- `observer_limit_time_to_full_seconds` is `+Inf` where a limit does not fill up, and absent before observer has watched for
  4 s: a single snapshot of this host does not have it.
";

const OTLP: &str = "\
## OTLP

The same series, under the names of the table above. Those without `observer.` are of OpenTelemetry's semantic conventions:
sums that go up and down. Counters are cumulative, monotonic sums that start when observer started, or at an unknown time where
the kernel counted before: `observer.listen_drops`. Gauges are gauges, and so is what is called info, with the value 1.

`observer serve --otlp` pushes them ([usage.md](usage.md#pushing-to-a-collector)). The resource is `service.name` observer,
`service.version`, `service.instance.id`, `os.type`, `host.name`, and `host.id` where `/etc/machine-id` has one. The instance is
a UUID of version 5, made of the machine id, the addresses where observer listens, and, in another network namespace than the
host's own, the number of that: it stays the same over restarts, and no other observer of the host has it. Without a machine id
it is random. Labels become attributes of each point:
";

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn section<R: Fields>(text: &mut String, title: &str, place: &str) {
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n## {title}\n\n{place}\n\n| Id | Title | Unit | Help | Source | JSON |\n|---|---|---|---|---|---|\n"
    );
    for field in R::FIELDS {
        let Field { id, unit, help, source, json, .. } = field;
        let id = if field.order == Order::None { format!("{id} (no order)") } else { format!("`{id}`") };
        let json = json.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
        let cells = [&id, field.title(), unit, help, source, &json].map(cell);
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

fn metrics_section(text: &mut String) {
    let _ = write!(
        text,
        "\n{PROMETHEUS}\n| Series | Type | Labels | Unit | Help | Source | Bound | OTLP |\n|---|---|---|---|---|---|---|---|\n"
    );
    for metric in METRICS {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (name, bound) = (format!("`{}`", metric.name), metric.bound.text());
        let otlp = otlp(metric);
        let cells = [&name, metric.kind.name(), &labels, metric.unit, metric.help(), metric.source(), &bound, &otlp];
        let cells = cells.map(cell);
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

/// Its name, its unit, and the attributes that no label has.
fn otlp(metric: &Metric) -> String {
    let unit = Some(metric.otel_unit()).filter(|unit| !unit.is_empty());
    let constants = metric.otel.constants().iter().map(|(key, value)| format!("`{key}={value}`"));
    let rest = unit.map(|unit| format!("`{unit}`")).into_iter().chain(constants);
    iter::once(format!("`{}`", metric.otel.name())).chain(rest).collect::<Vec<_>>().join(", ")
}

fn attributes_section(text: &mut String) {
    let _ = write!(text, "\n{OTLP}\n| Label | Attribute |\n|---|---|\n");
    for Attribute { label, name, .. } in ATTRIBUTES {
        let _ = writeln!(text, "| `{label}` | `{name}` |");
    }
}

fn page() -> String {
    let mut text = HEAD.to_owned();
    let snapshot = "`observer snapshot --sort ID`. JSON: an object of `endpoints`.";
    section::<EndpointRow>(&mut text, "Endpoints", snapshot);
    section::<DestinationRow>(&mut text, "Destinations", "JSON: an object of `destinations` of an endpoint.");
    section::<ProcessRow>(&mut text, "Processes", "Not in JSON.");
    let services = "`observer snapshot --sort ID`. JSON: an object of `services`.";
    section::<ServiceRow>(&mut text, "Services", services);
    section::<ConnectionRow>(&mut text, "Connections", "Not in JSON.");
    section::<Limit>(&mut text, "Limits", "`observer limits --sort ID`. JSON: an object of `limits`.");
    section::<FailureRow>(&mut text, "Failures", "JSON: an object of `failures`.");
    metrics_section(&mut text);
    attributes_section(&mut text);
    text
}

#[test]
fn the_page_of_metrics_is_what_the_fields_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    if env::var_os(WRITE).is_some() {
        return fs::write(&path, page()).unwrap();
    }
    let page = page();
    assert!(include_str!("../../../docs/metrics.md") == page, "{PAGE} is stale: write it with {COMMAND}");
}

fn assert_documented<R: Fields>() {
    let ids: BTreeSet<_> = R::FIELDS.iter().map(|field| field.id).collect();
    assert_eq!(ids.len(), R::FIELDS.len(), "an id of {} stands twice", R::NOUN);
    let ranks: BTreeSet<_> = R::FIELDS.iter().map(|field| field.rank).collect();
    assert_eq!(ranks.len(), R::FIELDS.len(), "two columns of {} with one rank would go together", R::NOUN);
    for field in R::FIELDS {
        let Field { id, help, json, .. } = field;
        assert!(id.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{id}");
        assert!(help.ends_with('.') && !field.title().is_empty(), "{id}: {help}");
        let label = field.title_within(tui::LONGEST_LABEL);
        assert!(label.chars().count() <= tui::LONGEST_LABEL, "{id} has no title that is short enough");
        if let [path] = json {
            assert_eq!(path.rsplit('.').next(), Some(*id), "JSON has {id} under another name");
        }
    }
}

#[test]
fn every_field_has_an_id_of_its_own_and_is_documented() {
    assert_documented::<EndpointRow>();
    assert_documented::<DestinationRow>();
    assert_documented::<ProcessRow>();
    assert_documented::<ServiceRow>();
    assert_documented::<ConnectionRow>();
    assert_documented::<Limit>();
    assert_documented::<FailureRow>();
}

#[test]
fn every_metric_has_a_name_of_its_own_and_is_documented() {
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        let (name, help) = (metric.name, metric.help());
        assert!(name.starts_with("observer_") && name.ends_with(metric.kind.suffix()), "{name}");
        assert!(metric.kind == MetricType::Counter || !name.ends_with("_total"), "{name} is no counter");
        assert!(help.ends_with('.') && !metric.source().is_empty(), "{name}: {help} {}", metric.source());
        // OpenMetrics has to escape these, and the encoder does not.
        assert!(!help.contains(['"', '\\', '\n']), "{name}: {help}");
        let is_label = |label: &str| label.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
        assert!(metric.labels.iter().all(|label| is_label(label)), "{name}: {:?}", metric.labels);
    }
}

#[test]
fn every_metric_has_an_otlp_name_and_unit_and_each_label_an_attribute() {
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.otel.name()).collect();
    assert_eq!(names.len(), METRICS.len());
    let is_below = |name: &str, other: &str| name.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
    for metric in METRICS {
        let name = metric.otel.name();
        assert!(!names.iter().any(|other| is_below(name, other)), "{name} stands below another");
        if let Otel::Own(name) = metric.otel {
            let unit = metric.base_unit().map_or_else(String::new, |unit| format!("_{unit}"));
            let suffix = if metric.kind == MetricType::Counter { "_total" } else { "" };
            assert_eq!(format!("{}{unit}{suffix}", name.replace('.', "_")), metric.name);
            assert!(UNITS.iter().any(|(unit, _)| *unit == metric.unit), "{name}: {} has no unit in UCUM", metric.unit);
        }
        assert!(metric.start == Start::Observer || metric.instrument() == Instrument::Counter, "{name} has no start");
        for label in metric.labels {
            assert!(ATTRIBUTES.iter().any(|it| it.label == *label), "{name}: {label} has no attribute");
        }
    }
    let labels: BTreeSet<_> = METRICS.iter().flat_map(|metric| metric.labels).copied().collect();
    let attributes: BTreeSet<_> = ATTRIBUTES.iter().map(|it| it.name).collect();
    assert_eq!(attributes.len(), labels.len(), "one attribute for each label, and no other: {attributes:?}");
    assert!(UNITS.iter().all(|(unit, _)| METRICS.iter().any(|metric| metric.unit == *unit)), "a unit of no metric");
}

/// The paths of a field that no row's object has.
fn missing<R: Fields>(rows: &[&serde_json::Value]) -> Vec<String> {
    assert!(!rows.is_empty(), "no {} to look at", R::NOUN);
    let has = |path: &str| {
        let pointer = format!("/{}", path.replace('.', "/"));
        rows.iter().any(|row| row.pointer(&pointer).is_some())
    };
    let paths = R::FIELDS.iter().flat_map(|field| field.json);
    paths.filter(|path| !has(path)).map(|path| format!("{} {path}", R::NOUN)).collect()
}

/// A snapshot in which everything is known that JSON may leave out.
fn snapshot() -> Snapshot {
    use crate::model::units::TcpState::{CloseWait, SynSent, TimeWait};
    let mut data = tui::tests::fixture::busy().snapshot;
    for row in &mut data.endpoints {
        for state in [CloseWait, SynSent, TimeWait] {
            *row.states.get_mut(state) += 1;
        }
        row.key.device = Device::new(1).named("eth0".into());
    }
    let slope = Some(1.0);
    data.limits.push(Limit { slope, hits: Some(1), ..Limit::for_test(LimitKind::HostFiles, Scope::Host, 1, 10) });
    data
}

#[test]
fn json_has_what_the_fields_say_it_has() {
    let text = export::json(&Frame::from(snapshot())).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let rows = |name: &str| -> Vec<&serde_json::Value> { json[name].as_array().unwrap().iter().collect() };
    let destinations = |row: &serde_json::Value| row["destinations"].as_array().cloned().unwrap_or_default();
    let destinations: Vec<_> = rows("endpoints").into_iter().flat_map(destinations).collect();
    let missing: Vec<String> = [
        missing::<EndpointRow>(&rows("endpoints")),
        missing::<DestinationRow>(&destinations.iter().collect::<Vec<_>>()),
        missing::<ServiceRow>(&rows("services")),
        missing::<Limit>(&rows("limits")),
        missing::<FailureRow>(&rows("failures")),
    ]
    .concat();
    assert!(missing.is_empty(), "not in JSON: {missing:?}");
}
