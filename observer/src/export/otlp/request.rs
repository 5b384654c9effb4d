//! Families as messages.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    super::series::{Family, Number},
    proto::{
        AggregationTemporality, Any, AnyValue, Data, ExportMetricsServiceRequest, Gauge, InstrumentationScope,
        KeyValue, Metric, NumberDataPoint, Resource, ResourceMetrics, ScopeMetrics, Sum, Value,
    },
};
use crate::{
    host::machine::Machine,
    present::metric::{
        Metric as Definition,
        otel::{Attribute, Instrument, Start},
    },
};

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn of(
    families: Vec<Family>,
    resource: Resource,
    started: SystemTime,
    taken_at: SystemTime,
) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope { name: NAME.to_owned(), version: VERSION.to_owned() };
    let times = Times { started: nanoseconds(started), taken_at: nanoseconds(taken_at) };
    let metrics = families.into_iter().map(|family| metric(family, times)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics }];
    ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics { resource: Some(resource), scope_metrics }] }
}

/// Who reports, as the semantic conventions have it.
pub(super) fn resource(machine: &Machine, instance: Option<&str>) -> Resource {
    let always = [("service.name", NAME), ("service.version", VERSION), ("os.type", "linux")];
    let known =
        [("host.name", machine.name.as_deref()), ("host.id", machine.id.as_deref()), ("service.instance.id", instance)];
    let known = known.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let attributes = always.into_iter().chain(known).map(|(key, value)| text(key, value.to_owned())).collect();
    Resource { attributes }
}

/// Nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    started: u64,
    taken_at: u64,
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

fn metric(Family { metric, samples }: Family, times: Times) -> Metric {
    let instrument = metric.instrument();
    // A point of a sum that ends before its start is wrong for every receiver: the wall clock was set back.
    let start_time_unix_nano = match (instrument, metric.start) {
        (Instrument::Gauge, _) | (_, Start::Unknown) => 0,
        (_, Start::Observer) => times.started.min(times.taken_at),
    };
    let point = |(labels, number)| NumberDataPoint {
        start_time_unix_nano,
        time_unix_nano: times.taken_at,
        value: Some(value(number)),
        attributes: attributes(metric, labels),
    };
    let data_points = samples.into_iter().map(point).collect();
    let sum = |data_points, is_monotonic| {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
    };
    let data = match instrument {
        Instrument::Gauge => Data::Gauge(Gauge { data_points }),
        Instrument::Counter => sum(data_points, true),
        Instrument::UpDownCounter => sum(data_points, false),
    };
    Metric {
        name: metric.otel.name().to_owned(),
        description: metric.help().to_owned(),
        unit: metric.otel_unit().to_owned(),
        data: Some(data),
    }
}

fn value(number: Number) -> Value {
    match number {
        Number::Whole(number) => Value::Int(number.try_into().unwrap_or(i64::MAX)),
        Number::Real(number) => Value::Double(number),
    }
}

fn attributes(metric: &Definition, labels: Vec<(&'static str, String)>) -> Vec<KeyValue> {
    let constants = metric.otel.constants().iter().map(|(key, value)| text(key, (*value).to_owned()));
    constants.chain(labels.into_iter().map(attribute)).collect()
}

fn attribute((label, value): (&'static str, String)) -> KeyValue {
    let Attribute { name, is_number, .. } = Attribute::of(label);
    match value.parse() {
        Ok(number) if is_number => key_value(name, Any::Int(number)),
        _ => text(name, value),
    }
}

fn text(key: &str, value: String) -> KeyValue {
    key_value(key, Any::String(value))
}

fn key_value(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
