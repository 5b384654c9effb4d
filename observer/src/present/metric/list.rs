//! The series.

use super::{
    Bound::{Comms, Listeners, Namespaces, Near},
    Meaning::{Field, Own},
    Metric,
    MetricType::{Counter, Gauge, Info},
    Rest, field,
    otel::{Convention, Start},
    serving::{
        HTTP_RESTARTS, HTTP_SANDBOX_MISSING, OTLP_EXPORTS, RECORDER_BYTES, RECORDER_ERRORS, RECORDER_INCIDENTS,
        RECORDER_LOST, RECORDER_OLDEST,
    },
};
use crate::model::snapshot::{DestinationRow, EndpointRow};

const STATES: &str = "state changes (inet_sock_set_state)";
const RING: &str = "the ring buffer";
const COST_LIMIT: &str = "--max-cost";
const SCANS: &str = "scans (iter/tcp)";
const NETNS: &[&str] = &["netns"];
const DIRECTION: &[&str] = &["netns", "direction"];
const LIMIT: &[&str] = &["limit"];
const DESTINATION: &[&str] = &["netns", "local_address", "peer_address", "peer_port"];
const LISTENER: &[&str] = &["netns", "local_address", "local_port"];
const COMM: &[&str] = &["netns", "container", "comm"];

static CONNECTION_COUNT: Convention = Convention {
    name: "system.network.connection.count",
    unit: "{connection}",
    constants: &[("network.transport", "tcp")],
};
static DESCRIPTOR_COUNT: Convention =
    Convention { name: "process.unix.file_descriptor.count", unit: "{file_descriptor}", constants: &[] };

pub(crate) static BUILD_INFO: Metric =
    Metric::new("observer_build_info", Info, &["version"], "", Own("The version of observer.", "the build"))
        .otel("observer.build.info");
pub(crate) static HOOK_INFO: Metric = Metric::new(
    "observer_hook_info",
    Info,
    &["hook", "method"],
    "",
    Own("A hook with its attach method: none where the hook is missing.", "the start of observer"),
)
.otel("observer.hook.info");
pub(crate) static CAPABILITY_HELD: Metric = Metric::new(
    "observer_capability_held",
    Gauge,
    &["capability"],
    "capabilities",
    Own("1 where observer has the capability, 0 where it never had it or has given it up.", "capget(2) after attach"),
)
.otel("observer.capability.held");
pub(crate) static EVENTS: Metric = Metric::new(
    "observer_events_total",
    Counter,
    &[],
    "records",
    Own("Records of hooks, without those of scans, since observer started.", RING),
)
.otel("observer.events");
pub(crate) static EVENTS_LOST: Metric = Metric::new(
    "observer_events_lost_total",
    Counter,
    &["reason"],
    "records",
    Own(
        "Lost records since observer started: ring_full, scan_ring_full, read_failed, undecodable, and missed_run where the \
         kernel counts these.",
        "the kernel side, decode, and recursion_misses of the programs",
    ),
).otel("observer.events_lost");
pub(crate) static SCANS_TOTAL: Metric = Metric::new(
    "observer_scans_total",
    Counter,
    &[],
    "scans",
    Own("Finished scans since observer started, each of the namespaces that were due.", SCANS),
)
.otel("observer.scans");
pub(crate) static LAST_SCAN: Metric = Metric::new(
    "observer_last_scan_timestamp_seconds",
    Gauge,
    &[],
    "seconds since 1970",
    Own("When the last scan ended.", SCANS),
)
.otel("observer.last_scan.timestamp");
pub(crate) static OLDEST_SCAN: Metric = Metric::new(
    "observer_oldest_scan_timestamp_seconds",
    Gauge,
    &[],
    "seconds since 1970",
    Own("When the last scan of that namespace ended whose last scan is longest ago.", SCANS),
)
.otel("observer.oldest_scan.timestamp");
pub(crate) static SCAN_DURATION: Metric =
    Metric::new("observer_scan_duration_seconds", Gauge, &[], "seconds", Own("How long the last scan ran.", SCANS))
        .otel("observer.scan.duration");
pub(crate) static DRIFT: Metric = Metric::new(
    "observer_drift_sockets_total",
    Counter,
    &[],
    "sockets",
    Own("Sockets that scans had to add, remove or change since the first scan.", SCANS),
)
.otel("observer.drift.sockets");
pub(crate) static COST: Metric = Metric::new(
    "observer_cost_ratio",
    Gauge,
    &[],
    "ratio",
    Own(
        "Share of all CPUs that observer and its hooks took in the last second, 0 to 1. While hooks are suspended: what it would \
         be with them.",
        "CLOCK_PROCESS_CPUTIME_ID, and events times the time of one by BPF_ENABLE_STATS",
    ),
)
.otel("observer.cost");
pub(crate) static HOOKS_SUSPENDED: Metric = Metric::new(
    "observer_hooks_suspended",
    Gauge,
    &[],
    "suspensions",
    Own(
        "1 while the hooks that follow sockets are suspended, because they cost more than --max-cost. Otherwise 0.",
        COST_LIMIT,
    ),
)
.otel("observer.hooks.suspended");
pub(crate) static SUSPENSIONS: Metric = Metric::new(
    "observer_hook_suspensions_total",
    Counter,
    &[],
    "suspensions",
    Own("How often hooks were suspended since observer started.", COST_LIMIT),
)
.otel("observer.hook.suspensions");
pub(crate) static EVENTS_SKIPPED: Metric = Metric::new(
    "observer_events_skipped_total",
    Counter,
    &[],
    "records",
    Own("Records that suspended hooks did not write since observer started.", "the kernel side"),
)
.otel("observer.events_skipped");
pub(crate) static LIMIT_RATIO: Metric = Metric::new(
    "observer_limit_used_ratio",
    Gauge,
    LIMIT,
    "ratio",
    Own(
        "Used share of the fullest limit of a kind, 0 to 1; soft limits can have more. Absent where there is none.",
        "used / maximum",
    ),
)
.otel("observer.limit.used");
pub(crate) static LIMIT_TIME: Metric = Metric::new(
    "observer_limit_time_to_full_seconds",
    Gauge,
    LIMIT,
    "seconds",
    Own(
        "Predicted time until the first limit of a kind is full, at the slope of the last half minute: 0 where one is full, \
         +Inf where none fills up.",
        "the number in use over the last half minute",
    ),
).otel("observer.limit.time_to_full");
pub(crate) static FINDINGS: Metric = Metric::new(
    "observer_findings",
    Gauge,
    &["finding"],
    "findings",
    Own("Findings of a kind at this moment, at most 8.", "the rules of findings"),
)
.otel("observer.findings");
pub(crate) static LEFT_OUT: Metric = Metric::new(
    "observer_series_left_out",
    Gauge,
    &["metric"],
    "series",
    Own("Series of a metric that a bound left out.", "this exposition"),
)
.otel("observer.series_left_out");

pub(crate) static SOCKETS: Metric = Metric::new(
    "observer_sockets",
    Gauge,
    &["netns", "state"],
    "sockets",
    Own(
        "TCP sockets by state, TIME_WAIT and requests in SYN_RECV included, without listeners.",
        "state changes (inet_sock_set_state), set right by each scan (iter/tcp)",
    ),
)
.bound(Namespaces(Rest::Sum))
.convention(&CONNECTION_COUNT);
pub(crate) static OPENED: Metric = Metric::new(
    "observer_connections_opened_total",
    Counter,
    DIRECTION,
    "connections",
    Own("Handshakes completed since observer started.", STATES),
)
.bound(Namespaces(Rest::Sum))
.otel("observer.connections.opened");
pub(crate) static CLOSED: Metric = Metric::new(
    "observer_connections_closed_total",
    Counter,
    DIRECTION,
    "connections",
    Own("Connections that ended after their handshake, since observer started.", STATES),
)
.bound(Namespaces(Rest::Sum))
.otel("observer.connections.closed");
pub(crate) static FAILED: Metric = Metric::new(
    "observer_connections_failed_total",
    Counter,
    DIRECTION,
    "connections",
    Own("Connections that ended before their handshake was complete, since observer started: refused, timed out, or given up.", STATES),
)
.bound(Namespaces(Rest::Sum)).otel("observer.connections.failed");
pub(crate) static LOCAL_PORTS: Metric =
    Metric::new("observer_local_ports", Gauge, NETNS, "ports", Field(|| field::<DestinationRow>("range")))
        .bound(Namespaces(Rest::Sum))
        .otel("observer.local_ports");
pub(crate) static LOCAL_PORTS_RESERVED: Metric =
    Metric::new("observer_local_ports_reserved", Gauge, NETNS, "ports", Field(|| field::<DestinationRow>("reserved")))
        .bound(Namespaces(Rest::Sum))
        .otel("observer.local_ports_reserved");
pub(crate) static LOCAL_PORTS_BLOCKED: Metric =
    Metric::new("observer_local_ports_blocked", Gauge, NETNS, "ports", Field(|| field::<DestinationRow>("blocked")))
        .bound(Namespaces(Rest::Sum))
        .otel("observer.local_ports_blocked");
pub(crate) static PORTS_LEFT_MIN: Metric = Metric::new(
    "observer_destination_ports_left_min",
    Gauge,
    NETNS,
    "ports",
    Own("Ports left towards the destination that has the fewest.", "the ports left of all destinations"),
)
.bound(Namespaces(Rest::Least))
.otel("observer.destination.ports_left_min");
pub(crate) static PORTS_RATIO_MAX: Metric = Metric::new(
    "observer_destination_ports_used_ratio_max",
    Gauge,
    NETNS,
    "ratio",
    Own(
        "Used share of the ports towards the destination that uses the most, 0 to 1. From 0.5 on connect() is slow.",
        "the ports left of all destinations",
    ),
)
.bound(Namespaces(Rest::Most))
.otel("observer.destination.ports_used_ratio_max");
pub(crate) static FAILURES: Metric = Metric::new(
    "observer_failures_total",
    Counter,
    &["netns", "failure", "errno"],
    "failures",
    Own(
        "Failed calls with their errno, and what the kernel dropped without a failed call, since observer started.",
        "the failures hook, and the kernel's counters of full queues and tables",
    ),
)
.bound(Namespaces(Rest::Sum))
.otel("observer.failures");
pub(crate) static LISTEN_DROPS: Metric = Metric::new(
    "observer_listen_drops_total",
    Counter,
    NETNS,
    "segments",
    Own(
        "SYNs and final ACKs that listeners dropped, since the namespace was created.",
        "ListenDrops of /proc/net/netstat",
    ),
)
.bound(Namespaces(Rest::Sum))
.otel("observer.listen_drops")
.start(Start::Unknown);
pub(crate) static NETNS_INFO: Metric = Metric::new(
    "observer_netns_info",
    Info,
    &["netns", "inode", "pod_namespace", "pod", "container", "runtime", "unit"],
    "",
    Own(
        "A network namespace and its inode number, with the pod, the container or machine, or the systemd unit that it is \
         named by. A pod's namespace belongs to all containers of the pod: it has no container. The host's has none of these.",
        super::super::field::NETNS_SOURCE,
    ),
)
.bound(Namespaces(Rest::Nothing))
.otel("observer.netns.info");

pub(crate) static PORTS_LEFT: Metric = Metric::new(
    "observer_destination_ports_left",
    Gauge,
    DESTINATION,
    "ports",
    Own(
        "How many more connect() calls certainly get a port.",
        "the range less the ports of the other columns, as __inet_hash_connect() chooses",
    ),
)
.bound(Near)
.otel("observer.destination.ports_left");
pub(crate) static PORTS_USED: Metric = Metric::new(
    "observer_destination_ports_used",
    Gauge,
    DESTINATION,
    "ports",
    Field(|| field::<DestinationRow>("used")),
)
.bound(Near)
.otel("observer.destination.ports_used");
pub(crate) static PORTS_TIME_WAIT: Metric = Metric::new(
    "observer_destination_ports_time_wait",
    Gauge,
    DESTINATION,
    "ports",
    Field(|| field::<DestinationRow>("time_wait")),
)
.bound(Near)
.otel("observer.destination.ports_time_wait");
pub(crate) static QUEUE_LENGTH: Metric = Metric::new(
    "observer_listener_accept_queue_length",
    Gauge,
    LISTENER,
    "connections",
    Own("Connections that wait for accept(); of listeners with one address the fullest.", SCANS),
)
.bound(Near)
.otel("observer.listener.accept_queue.length");
pub(crate) static QUEUE_LIMIT: Metric = Metric::new(
    "observer_listener_accept_queue_limit",
    Gauge,
    LISTENER,
    "connections",
    Own("How many can wait for accept(): the listener's backlog and one more.", SCANS),
)
.bound(Near)
.otel("observer.listener.accept_queue.limit");
pub(crate) static LISTENER_SOCKETS: Metric =
    Metric::new("observer_listener_sockets", Gauge, LISTENER, "sockets", Field(|| field::<EndpointRow>("sockets")))
        .bound(Listeners)
        .otel("observer.listener.sockets");
pub(crate) static OPEN_FILES: Metric =
    Metric::new(
    "observer_process_open_files",
    Gauge,
    COMM,
    "descriptors",
    Own(
        "Open file descriptors; of the processes with one command name those of the one nearest to its limit. Read for the \
         processes with the most sockets and those nearest to their limit.",
        "/proc/PID/fd",
    ),
).bound(Comms).convention(&DESCRIPTOR_COUNT);
pub(crate) static OPEN_FILES_LIMIT: Metric = Metric::new(
    "observer_process_open_files_limit",
    Gauge,
    COMM,
    "descriptors",
    Own(
        "The soft RLIMIT_NOFILE, or fs.nr_open where that is lower; of the processes with one command name of the one \
         nearest to its limit. Absent where there is no limit in practice.",
        "/proc/PID/limits and fs.nr_open",
    ),
)
.bound(Comms)
.otel("observer.process.open_files_limit");

/// All of them, in the order in which they are written.
pub(crate) static METRICS: [&Metric; 46] = [
    &BUILD_INFO,
    &HOOK_INFO,
    &CAPABILITY_HELD,
    &EVENTS,
    &EVENTS_LOST,
    &SCANS_TOTAL,
    &LAST_SCAN,
    &OLDEST_SCAN,
    &SCAN_DURATION,
    &DRIFT,
    &COST,
    &HOOKS_SUSPENDED,
    &SUSPENSIONS,
    &EVENTS_SKIPPED,
    &LIMIT_RATIO,
    &LIMIT_TIME,
    &FINDINGS,
    &HTTP_RESTARTS,
    &HTTP_SANDBOX_MISSING,
    &OTLP_EXPORTS,
    &RECORDER_BYTES,
    &RECORDER_OLDEST,
    &RECORDER_INCIDENTS,
    &RECORDER_ERRORS,
    &RECORDER_LOST,
    &NETNS_INFO,
    &SOCKETS,
    &OPENED,
    &CLOSED,
    &FAILED,
    &LOCAL_PORTS,
    &LOCAL_PORTS_RESERVED,
    &LOCAL_PORTS_BLOCKED,
    &PORTS_LEFT_MIN,
    &PORTS_RATIO_MAX,
    &FAILURES,
    &LISTEN_DROPS,
    &PORTS_LEFT,
    &PORTS_USED,
    &PORTS_TIME_WAIT,
    &QUEUE_LENGTH,
    &QUEUE_LIMIT,
    &LISTENER_SOCKETS,
    &OPEN_FILES,
    &OPEN_FILES_LIMIT,
    &LEFT_OUT,
];
