//! Series that `observer serve` alone has.

use super::{
    Meaning::Own,
    Metric,
    MetricType::{Counter, Gauge},
};

pub(crate) static HTTP_RESTARTS: Metric = Metric::new(
    "observer_http_restarts_total",
    Counter,
    &[],
    "restarts",
    Own("How often observer serve had to replace the process that speaks HTTP. Absent elsewhere.", "observer serve"),
)
.otel("observer.http.restarts");
pub(crate) static HTTP_SANDBOX_MISSING: Metric = Metric::new(
    "observer_http_sandbox_missing",
    Gauge,
    &["part"],
    "parts",
    Own(
        "1 for each part of its sandbox that the process that speaks HTTP does without, and 0 for each that it has: landlock (a \
         kernel before 5.13, or without it), whole_landlock (a kernel before 6.12), other_user, no_groups, empty_bounding_set \
         (capabilities that observer serve was not given). Absent elsewhere.",
        "observer serve",
    ),
)
.otel("observer.http.sandbox.missing");
pub(crate) static OTLP_EXPORTS: Metric = Metric::new(
    "observer_otlp_exports_total",
    Counter,
    &["result"],
    "exports",
    Own(
        "Exports of observer serve to its OTLP receiver: success, partial (it rejected points), rejected (it refused, and \
         would again), unavailable (it said to try later), failed (no connection, no answer, or no sense in it). Absent \
         without --otlp.",
        "observer serve",
    ),
)
.otel("observer.otlp.exports");
/// What a recorder says of itself.
const RECORDER: &str = "observer serve --recorder";
pub(crate) static RECORDER_BYTES: Metric = Metric::new(
    "observer_recorder_size_bytes",
    Gauge,
    &[],
    "bytes",
    Own("Room that everything in the recorder's directory takes. Absent without --recorder.", RECORDER),
)
.otel("observer.recorder.size");
pub(crate) static RECORDER_OLDEST: Metric = Metric::new(
    "observer_recorder_oldest_timestamp_seconds",
    Gauge,
    &[],
    "seconds since 1970",
    Own("When the oldest segment of the recorder's history began. Absent without --recorder.", RECORDER),
)
.otel("observer.recorder.oldest_timestamp");
pub(crate) static RECORDER_INCIDENTS: Metric = Metric::new(
    "observer_recorder_incidents",
    Gauge,
    &[],
    "incidents",
    Own("Incidents that the recorder keeps apart. Absent without --recorder.", RECORDER),
)
.otel("observer.recorder.incidents");
pub(crate) static RECORDER_ERRORS: Metric = Metric::new(
    "observer_recorder_errors_total",
    Counter,
    &[],
    "errors",
    Own(
        "How often the system refused the recorder to write: a segment ended there. Absent without --recorder.",
        RECORDER,
    ),
)
.otel("observer.recorder.errors");
pub(crate) static RECORDER_LOST: Metric = Metric::new(
    "observer_recorder_lost_total",
    Counter,
    &[],
    "inputs",
    Own(
        "Inputs that were not recorded: after an error, or because they came faster than the disk took them or the bound on \
         bytes allows. Absent without --recorder.",
        RECORDER,
    ),
)
.otel("observer.recorder.lost");
