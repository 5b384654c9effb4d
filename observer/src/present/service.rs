//! The name of a service beside what belongs to it, and the fields of the row of a service.

use super::{Cell, Field, Fields, format};
use crate::model::{
    finding::Finding,
    limit::{LimitKind, practical},
    name::Name,
    service::Service,
    snapshot::{ProcessFiles, ServiceRow, Snapshot},
    units::{NetnsId, TcpState},
};

/// What a row is called whose service nobody could name.
pub(crate) const UNKNOWN: &str = "unknown";

/// The name of the service that every output shows beside a process or a row.
pub(crate) fn name(service: Option<&Service>) -> Option<Name> {
    beside(service).map(Service::label)
}

/// The service that every output shows beside a process or a row. The root cgroup is none.
pub(crate) fn beside(service: Option<&Service>) -> Option<&Service> {
    service.filter(|service| !service.is_root())
}

/// What follows a process, a listener or a destination: ` in nginx.service`; empty where there is nothing to add.
pub(crate) fn within(service: Option<&Service>) -> String {
    name(service).map_or_else(String::new, |name| format!(" in {name}"))
}

/// The same before ` in blue`, the namespace: a pod often gives its name to both.
pub(crate) fn within_beside(service: Option<&Service>, elsewhere: &str) -> String {
    let within = within(service);
    if within == elsewhere { String::new() } else { within }
}

/// The sentence of a finding, with its service, and its namespace where that is not `own`.
pub(crate) fn sentence_beside(data: &Snapshot, finding: &Finding, own: NetnsId) -> String {
    let elsewhere = match finding.netns {
        netns if netns == own => String::new(),
        netns => format!(" in {}", netns.label(data.name_of(netns))),
    };
    let place = within_beside(finding.service.as_deref(), &elsewhere) + &elsewhere;
    match place.trim_start() {
        "" => finding.sentence.to_string(),
        place => format!("{} ({place}).", finding.sentence.trim_end_matches('.')),
    }
}

/// The same for those who do not know where observer was started, as in a replay: with its namespace where there are
/// several, and it is not that of the host.
pub(crate) fn sentence_on_screen(data: &Snapshot, finding: &Finding) -> String {
    let is_plain = data.namespaces.len() < 2 || data.name_of(finding.netns).is_some_and(|name| &**name == "host");
    sentence_beside(data, finding, if is_plain { finding.netns } else { NetnsId(0) })
}

impl Fields for ServiceRow {
    const NOUN: &'static str = "service";
    const FIELDS: &'static [Field<Self>] = FIELDS;
}

type Column = Field<ServiceRow>;

/// Where counts of sockets come from.
const COUNTS: &str = "state changes (inet_sock_set_state) and scans (iter/tcp); the socket's cgroup, else its owner's";
/// Where numbers of descriptors come from.
const DESCRIPTORS: &str = "/proc/PID/fd, /proc/PID/limits and fs.nr_open";
/// Where totals come from.
const CHANGES: &str = "state changes (inet_sock_set_state)";

const FIELDS: &[Column] = &[
    Column::text(
        super::field::SERVICE_ID,
        &["SERVICE"],
        "A systemd unit, a pod with all of its containers, a container, a machine, or a cgroup of another kind. `unknown` sums \
         sockets that ended before their service could be read, and those of services that nothing names.",
        |row, _| Cell::Text(row.service.as_ref().map_or_else(|| UNKNOWN.to_owned(), |service| service.label().to_string())),
    )
    .source(super::field::SERVICE_SOURCE)
    .json(&["service"])
    .width(20, 24, 40),
    Column::text("kind", &["KIND"], "unit, session, pod, container, machine, or cgroup for any other.", |row, _| {
        row.service.as_ref().map_or(Cell::Absent, |service| Cell::Text(service.kind().to_owned()))
    })
    .source("the path of the cgroup")
    .json(&["service.kind"])
    .width(10, 10, 10)
    .rank(13),
    Column::number(
        "sockets",
        &["SOCKETS"],
        "sockets",
        "Full sockets, connected or connecting. TIME_WAIT sockets and requests in SYN_RECV belong to no cgroup: no service \
         counts them.",
        |row, _| Cell::Count(row.sockets.into()),
    )
    .source(COUNTS)
    .json(&["sockets"])
    .width(9, 9, 12)
    .rank(1),
    Column::number("established", &["ESTABLISHED", "ESTAB"], "sockets", "Sockets in ESTABLISHED.", |row, _| {
        state(row, TcpState::Established)
    })
    .source(COUNTS)
    .json(&["states.established"])
    .width(7, 8, 12)
    .rank(2),
    Column::number(
        "syn_sent",
        &["SYN_SENT", "SYN_S"],
        "sockets",
        "connect() sent a SYN and has no answer yet. Many of them: a destination does not answer.",
        |row, _| state(row, TcpState::SynSent),
    )
    .source(COUNTS)
    .json(&["states.syn_sent"])
    .width(9, 9, 10)
    .tight(6)
    .rank(8),
    Column::number(
        "close_wait",
        &["CLOSE_WAIT", "CLOSE_W"],
        "sockets",
        "The other end closed, the service has not. Many of them that stay: it forgets to close them.",
        |row, _| state(row, TcpState::CloseWait),
    )
    .source(COUNTS)
    .json(&["states.close_wait"])
    .width(11, 11, 12)
    .tight(8)
    .rank(7),
    Column::number(
        "other_states",
        &["OTHER STATES", "OTHER"],
        "sockets",
        "FIN_WAIT1, FIN_WAIT2, LAST_ACK and CLOSING: sockets that close.",
        |row, _| Cell::Count(other_states(row).into()),
    )
    .source(COUNTS)
    .width(6, 6, 13)
    .tight(6)
    .rank(11),
    Column::number("listeners", &["LISTENERS", "LISTEN"], "sockets", "Listening sockets.", |row, _| {
        Cell::Count(row.listeners.into())
    })
    .source(COUNTS)
    .json(&["listeners"])
    .width(7, 7, 10)
    .rank(9),
    Column::number(
        "opened_per_second",
        &["OPENED/s", "OPEN/s"],
        "connections per second",
        "Handshakes completed over the last second.",
        |row, _| Cell::Rate(row.opened_per_second),
    )
    .source(CHANGES)
    .width(9, 9, 9)
    .tight(7)
    .rank(6),
    Column::number(
        "closed_per_second",
        &["CLOSED/s", "CLOSE/s"],
        "connections per second",
        "Connections ended over the last second.",
        |row, _| Cell::Rate(row.closed_per_second),
    )
    .source(CHANGES)
    .width(9, 9, 9)
    .rank(10),
    Column::number(
        "left",
        &["PORTS LEFT"],
        "ports",
        "Ports left towards NEAREST DESTINATION: of the destinations where this service has the most sockets, the one with \
         the largest share of its ports in use. –: there is none.",
        |row, _| match row.nearest.as_ref().map(|nearest| nearest.ports) {
            None => Cell::Absent,
            Some(ports) if ports.left().is_some() => Cell::Left(ports),
            Some(_) => Cell::Unknown,
        },
    )
    .source("the fields of destinations")
    .json(&["nearest.ports.left"])
    .width(11, 11, 12)
    .rank(4),
    Column::number(
        "descriptors",
        &["FDS USED/LIMIT", "FDS USED"],
        "descriptors",
        "Open file descriptors and their limit, of FULLEST PROCESS: the process of this service that is nearest to its \
         limit. Read for the processes with the most sockets and those nearest to their limit.",
        descriptors,
    )
    .source(DESCRIPTORS)
    .json(&["fullest.open_fds", "fullest.maximum_fds"])
    .width(15, 15, 17)
    .tight(12)
    .rank(5),
    Column::number(
        "failures_total",
        &["FAILURES", "FAILED"],
        "failures",
        "Calls that the kernel refused and handshakes that it dropped, since observer started: see the Failures screen.",
        |row, _| Cell::Count(row.failures_total),
    )
    .source("the failures hook, and the kernel's counters of full queues and tables")
    .json(&["failures_total"])
    .width(9, 9, 11)
    .tight(8)
    .rank(3),
    Column::number(
        "orphans",
        &["ORPHANS"],
        "sockets",
        "Of SOCKETS, those whose last descriptor was closed: the kernel finishes them alone.",
        |row, _| Cell::Count(row.orphans.into()),
    )
    .source("scans (iter/tcp) and the destroy hook")
    .json(&["orphans"])
    .width(8, 8, 9)
    .rank(12),
    Column::text("fullest_process", &["FULLEST PROCESS", "FULLEST"], "The process that FDS USED/LIMIT is about.", |row, _| {
        row.fullest.map_or(Cell::Absent, |files| Cell::process(Some(files.process)))
    })
    .source(DESCRIPTORS)
    .json(&["fullest.process.pid", "fullest.process.comm"])
    .width(16, 22, 26)
    .rank(14)
    .from(150),
    Column::text("nearest_destination", &["NEAREST DESTINATION", "NEAREST"], "The destination that PORTS LEFT is about.", nearest)
        .source("the fields of destinations")
        .json(&["nearest.local_ip", "nearest.remote_ip", "nearest.remote_port"])
        .width(24, 32, 48)
        .rank(15)
        .from(150),
];

fn state(row: &ServiceRow, state: TcpState) -> Cell<'_> {
    Cell::Count(row.states.get(state).into())
}

/// Those that have no column of their own.
fn other_states(row: &ServiceRow) -> u32 {
    use TcpState::{CloseWait, Established, SynSent};
    row.states.sum() - [Established, SynSent, CloseWait].map(|state| row.states.get(state)).iter().sum::<u32>()
}

fn descriptors<'a>(row: &'a ServiceRow, data: &'a Snapshot) -> Cell<'a> {
    row.fullest.map_or(Cell::Unknown, |files| used_of(&files, data))
}

fn used_of<'a>(files: &ProcessFiles, data: &Snapshot) -> Cell<'a> {
    let ratio = data.host.descriptor_ratio(files);
    let maximum = data.host.most_descriptors(files).and_then(practical);
    Cell::UsedOf { used: files.open, maximum, part: ratio.map(|ratio| (ratio, LimitKind::ProcessFiles.level(ratio))) }
}

fn nearest<'a>(row: &'a ServiceRow, _: &'a Snapshot) -> Cell<'a> {
    row.nearest.as_ref().map_or(Cell::Absent, |nearest| Cell::Towards(nearest.local_ip, nearest.device, nearest.remote))
}

/// A destination's line in words: `10.0.0.5 → 10.0.0.9:5432: 23 ports left`.
pub(crate) fn nearest_in_words(row: &ServiceRow) -> Option<String> {
    let nearest = row.nearest.as_ref()?;
    let towards = format::towards(nearest.local_ip, nearest.device, nearest.remote, usize::MAX);
    let netns = format::printable(&nearest.netns.label(nearest.netns_name.as_ref()));
    let left = nearest.ports.left_text(|count| format::count(count.into()));
    Some(format!(
        "{towards} in namespace {netns}: {left} ports left, {} used",
        format::count(nearest.ports.used.into())
    ))
}
