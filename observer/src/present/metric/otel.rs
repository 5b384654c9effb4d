//! What OpenTelemetry calls series, their units and their labels.

use super::{Metric, MetricType};

/// The name of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Otel {
    /// Our own: with underscores for dots, and the suffixes of a base unit and of counters, it is the name that
    /// Prometheus has.
    Own(&'static str),
    /// One of the semantic conventions.
    Convention(&'static Convention),
}

/// A series of the semantic conventions. All that observer has are `UpDownCounter`s there.
#[derive(Debug)]
pub(crate) struct Convention {
    pub(crate) name: &'static str,
    /// In UCUM.
    pub(crate) unit: &'static str,
    /// Attributes that every point has.
    pub(crate) constants: &'static [(&'static str, &'static str)],
}

/// How a number behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instrument {
    Gauge,
    /// A sum that only grows.
    Counter,
    /// A sum that goes up and down.
    UpDownCounter,
}

/// When a counter began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// When observer started.
    Observer,
    /// Before, nobody knows when: the kernel counts.
    Unknown,
}

impl Otel {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Own(name) => name,
            Self::Convention(convention) => convention.name,
        }
    }

    /// Attributes that every point has.
    pub(crate) const fn constants(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Own(_) => &[],
            Self::Convention(convention) => convention.constants,
        }
    }
}

impl Metric {
    pub(crate) const fn instrument(&self) -> Instrument {
        match (self.otel, self.kind) {
            (Otel::Convention(_), _) => Instrument::UpDownCounter,
            (Otel::Own(_), MetricType::Counter) => Instrument::Counter,
            (Otel::Own(_), MetricType::Gauge | MetricType::Info) => Instrument::Gauge,
        }
    }

    /// Its unit in UCUM, empty where there is none.
    pub(crate) fn otel_unit(&self) -> &'static str {
        match (self.otel, self.unit) {
            (Otel::Convention(convention), _) => convention.unit,
            (Otel::Own(_), unit) => UNITS.iter().find(|(of, _)| *of == unit).map_or("", |(_, ucum)| ucum),
        }
    }
}

/// The units of metrics, in words and in UCUM. A test finds every unit.
pub(crate) const UNITS: [(&str, &str); 23] = [
    ("", ""),
    ("bytes", "By"),
    ("capabilities", "{capability}"),
    ("connections", "{connection}"),
    ("descriptors", "{file_descriptor}"),
    ("errors", "{error}"),
    ("exports", "{export}"),
    ("failures", "{failure}"),
    ("findings", "{finding}"),
    ("incidents", "{incident}"),
    ("inputs", "{input}"),
    ("parts", "{part}"),
    ("ports", "{port}"),
    ("ratio", "1"),
    ("records", "{record}"),
    ("restarts", "{restart}"),
    ("scans", "{scan}"),
    ("seconds", "s"),
    ("seconds since 1970", "s"),
    ("segments", "{segment}"),
    ("series", "{series}"),
    ("sockets", "{socket}"),
    ("suspensions", "{suspension}"),
];

/// What a label is called there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) label: &'static str,
    pub(crate) name: &'static str,
    /// Its values are whole numbers.
    pub(crate) is_number: bool,
}

impl Attribute {
    const fn new(label: &'static str, name: &'static str) -> Self {
        Self { label, name, is_number: false }
    }

    const fn number(self) -> Self {
        Self { is_number: true, ..self }
    }

    /// A test finds every label.
    pub(crate) fn of(label: &'static str) -> Self {
        ATTRIBUTES.into_iter().find(|it| it.label == label).unwrap_or(Self::new(label, label))
    }
}

/// Those of the semantic conventions, and ours.
pub(crate) const ATTRIBUTES: [Attribute; 26] = [
    Attribute::new("capability", "observer.capability.name"),
    Attribute::new("comm", "observer.process.comm"),
    Attribute::new("container", "container.name"),
    Attribute::new("direction", "observer.connection.direction"),
    Attribute::new("errno", "error.type"),
    Attribute::new("failure", "observer.failure.kind"),
    Attribute::new("finding", "observer.finding.kind"),
    Attribute::new("hook", "observer.hook.name"),
    Attribute::new("inode", "observer.netns.inode").number(),
    Attribute::new("limit", "observer.limit.kind"),
    Attribute::new("local_address", "network.local.address"),
    Attribute::new("local_port", "network.local.port").number(),
    Attribute::new("method", "observer.hook.method"),
    Attribute::new("metric", "observer.metric.name"),
    Attribute::new("netns", "observer.netns.name"),
    Attribute::new("part", "observer.http.sandbox.part"),
    Attribute::new("peer_address", "network.peer.address"),
    Attribute::new("peer_port", "network.peer.port").number(),
    Attribute::new("pod", "k8s.pod.name"),
    Attribute::new("pod_namespace", "k8s.namespace.name"),
    Attribute::new("reason", "observer.loss.reason"),
    Attribute::new("result", "observer.otlp.result"),
    Attribute::new("runtime", "container.runtime"),
    Attribute::new("state", "network.connection.state"),
    Attribute::new("unit", "observer.systemd.unit"),
    Attribute::new("version", "service.version"),
];
