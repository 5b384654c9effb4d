//! A frame as OTLP carries it: the bytes of an `ExportMetricsServiceRequest`, for a collector that takes OTLP/HTTP.
//!
//! Its series are those that Prometheus gets. `present::metric` has both names of each.

mod proto;
mod request;

use std::time::SystemTime;

use prost::Message as _;

use self::proto::ExportMetricsServiceResponse;
use super::series::{self, Bounds, Kept};
use crate::{frame::Frame, host::machine::Machine};

/// What lasts from one export of a host to the next.
#[derive(Debug)]
pub struct Exporter {
    machine: Machine,
    /// `service.instance.id`.
    instance: Option<String>,
    kept: Kept,
    /// When observer started. Counters begin there: a receiver takes another start as a reset, and the wall clock moves.
    started: Option<SystemTime>,
}

impl Exporter {
    /// For the host that these facts are of, and the observer that listens at this place: no two on one host share it.
    #[must_use]
    pub fn new(machine: Machine, place: &str) -> Self {
        let instance = machine.instance(env!("CARGO_PKG_NAME"), place);
        Self { machine, instance, kept: Kept::default(), started: None }
    }

    /// The series of a frame.
    #[must_use]
    pub fn render(&mut self, frame: &Frame, bounds: Bounds) -> Vec<u8> {
        let families = series::families(frame, bounds, &mut self.kept, |metric| metric.otel.name());
        let taken_at = frame.snapshot.taken_at;
        let started = *self.started.get_or_insert_with(|| taken_at - frame.snapshot.uptime);
        let resource = request::resource(&self.machine, self.instance.as_deref());
        request::of(families, resource, started, taken_at).encode_to_vec()
    }
}

/// How many points a receiver says that it rejected, in the body of an answer that means success. Most say nothing.
#[must_use]
pub fn rejected_points(body: &[u8]) -> u64 {
    let answer = ExportMetricsServiceResponse::decode(body).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| partial.rejected_data_points.try_into().unwrap_or(0))
}
