//! Families as text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text, text},
    metrics::{MetricType as WireType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{
    super::series::{Family, Number},
    Format,
};
use crate::present::metric::MetricType;

/// What the encoder asks for families.
#[derive(Debug)]
struct Exposition(Vec<Family>);

pub(super) fn text(families: Vec<Family>, format: Format) -> Vec<u8> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(families)));
    let mut out = String::new();
    let written = match format {
        Format::OpenMetrics => text::encode(&mut out, &registry),
        Format::Text => prometheus_text::encode(&mut out, &registry),
    };
    written.expect("a String takes all text");
    out.into_bytes()
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let metric = self.metric;
        // The encoder appends what the type and the unit ask for.
        let name = metric.name.strip_suffix(metric.kind.suffix()).unwrap_or(metric.name);
        let unit = metric.base_unit();
        let name = unit.and_then(|unit| name.strip_suffix(unit)?.strip_suffix('_')).unwrap_or(name);
        let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
        let mut encoder = encoder.encode_descriptor(name, metric.help(), unit.as_ref(), wire_type(metric.kind))?;
        for (labels, number) in &self.samples {
            match (metric.kind, *number) {
                (MetricType::Info, _) => encoder.encode_info(labels)?,
                (MetricType::Counter, Number::Whole(number)) => {
                    ConstCounter::new(number).encode(encoder.encode_family(labels)?)?;
                }
                (MetricType::Counter, Number::Real(number)) => {
                    ConstCounter::new(number).encode(encoder.encode_family(labels)?)?;
                }
                (MetricType::Gauge, Number::Whole(number)) => {
                    ConstGauge::new(number).encode(encoder.encode_family(labels)?)?;
                }
                (MetricType::Gauge, Number::Real(number)) => {
                    ConstGauge::new(number).encode(encoder.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

const fn wire_type(kind: MetricType) -> WireType {
    match kind {
        MetricType::Gauge => WireType::Gauge,
        MetricType::Counter => WireType::Counter,
        MetricType::Info => WireType::Info,
    }
}
