//! Every series that Prometheus and OTLP receivers get, defined once: its names, type, labels, unit, help, source and bound.
//! What a field of a row explains already is taken from there.

mod list;
#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "read by the encoder of OTLP and the test that writes docs/metrics.md")
)]
pub(crate) mod otel;
mod serving;

use self::otel::{Convention, Otel, Start};
pub(crate) use self::{list::*, serving::*};
use super::{Field, Fields};

/// Namespaces with series of their own.
pub(crate) const NAMESPACES: usize = 128;
/// Rows near a limit of one kind.
pub(crate) const NEAR: usize = 10;
/// Listeners.
pub(crate) const LISTENERS: usize = 50;
/// Command names of processes.
pub(crate) const COMMS: usize = 200;
/// All series together.
pub(crate) const SERIES: usize = 5_000;
/// The label of all namespaces beyond [`NAMESPACES`]. No namespace gets it as its own.
pub(crate) const OTHER: &str = "~other";

/// The type of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricType {
    /// Goes up and down.
    Gauge,
    /// Only grows, while what it counts lives.
    Counter,
    /// Always 1: the labels are what it says.
    Info,
}

impl MetricType {
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes docs/metrics.md"))]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Info => "info",
        }
    }

    /// What the encoder appends to the name of a family.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Gauge => "",
            Self::Counter => "_total",
            Self::Info => "_info",
        }
    }
}

/// Which rows have the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// A known number.
    Fixed,
    /// [`NAMESPACES`]; the others are one.
    Namespaces(Rest),
    /// The [`NEAR`] that are nearest, from notice on.
    Near,
    /// [`LISTENERS`].
    Listeners,
    /// [`COMMS`].
    Comms,
}

/// What namespaces beyond the bound have under [`OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Sum,
    Least,
    Most,
    Nothing,
}

impl Bound {
    /// For people.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes docs/metrics.md"))]
    pub(crate) fn text(self) -> String {
        match self {
            Self::Fixed => String::new(),
            Self::Namespaces(rest) => {
                let rest = match rest {
                    Rest::Sum => "the sum of",
                    Rest::Least => "the least of",
                    Rest::Most => "the most of",
                    Rest::Nothing => return format!("{NAMESPACES} namespaces"),
                };
                format!("{NAMESPACES} namespaces; {rest} the others as `{OTHER}`")
            }
            Self::Near => format!("the {NEAR} nearest to the limit, from notice on"),
            Self::Listeners => format!("{LISTENERS} listeners"),
            Self::Comms => format!("{COMMS} command names"),
        }
    }
}

/// What a series is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meaning {
    /// A quantity of its own: help and source.
    Own(&'static str, &'static str),
    /// A field of a row.
    Field(fn() -> (&'static str, &'static str)),
}

/// Help and source of a field.
fn field<R: Fields>(id: &str) -> (&'static str, &'static str) {
    // A test finds every id.
    R::field(id).map_or(("", ""), |Field { help, source, .. }| (*help, *source))
}

/// A series.
#[derive(Debug)]
pub(crate) struct Metric {
    /// As Prometheus stores it.
    pub(crate) name: &'static str,
    pub(crate) kind: MetricType,
    /// In their order. A label without a value is absent.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by tests and by the one that writes docs/metrics.md"))]
    pub(crate) labels: &'static [&'static str],
    /// What it counts.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "read by the encoder of OTLP and the test that writes docs/metrics.md")
    )]
    pub(crate) unit: &'static str,
    meaning: Meaning,
    pub(crate) bound: Bound,
    /// As OpenTelemetry has it.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "read by the encoder of OTLP and the test that writes docs/metrics.md")
    )]
    pub(crate) otel: Otel,
    /// When it began, if it is a counter.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "read by the encoder of OTLP and the test that writes docs/metrics.md")
    )]
    pub(crate) start: Start,
}

impl Metric {
    const fn new(
        name: &'static str,
        kind: MetricType,
        labels: &'static [&'static str],
        unit: &'static str,
        meaning: Meaning,
    ) -> Self {
        // A test finds every metric's name.
        let otel = Otel::Own("");
        Self { name, kind, labels, unit, meaning, bound: Bound::Fixed, otel, start: Start::Observer }
    }

    const fn bound(self, bound: Bound) -> Self {
        Self { bound, ..self }
    }

    const fn otel(self, name: &'static str) -> Self {
        Self { otel: Otel::Own(name), ..self }
    }

    const fn convention(self, convention: &'static Convention) -> Self {
        Self { otel: Otel::Convention(convention), ..self }
    }

    const fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// What it is, in a sentence.
    pub(crate) fn help(&self) -> &'static str {
        match self.meaning {
            Meaning::Own(help, _) => help,
            Meaning::Field(field) => field().0,
        }
    }

    /// Where it comes from.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes docs/metrics.md"))]
    pub(crate) fn source(&self) -> &'static str {
        match self.meaning {
            Meaning::Own(_, source) => source,
            Meaning::Field(field) => field().1,
        }
    }

    /// The base unit that its name ends in, as OpenMetrics has it.
    pub(crate) fn base_unit(&self) -> Option<&'static str> {
        let units = ["bytes", "seconds", "ratio"];
        let ends_in = |unit: &&str| self.name.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'));
        units.into_iter().find(ends_in)
    }
}
