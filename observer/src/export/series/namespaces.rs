//! Series of each network namespace, and the sums of those beyond the bound.
//!
//! Namespaces come in the order of their numbers: which ones have series of their own then changes with namespaces that come
//! and go, and not with load. What matters beyond the bound has series of its own near a limit.

use std::collections::BTreeMap;

use super::{
    Kept,
    counted::Counted,
    labels::Labels,
    sample::{Sample, Series},
};
use crate::{
    model::{
        address::Direction,
        failure::FailureKind,
        hook::Hook,
        snapshot::{NamespaceRow, Snapshot},
        units::{NetnsId, StateCounts, TcpState},
    },
    present::metric::{self, Metric},
};

/// States that a snapshot counts: those of sockets that are connected, connecting, or closing.
const STATES: [TcpState; 9] = [
    TcpState::Established,
    TcpState::SynSent,
    TcpState::SynReceived,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::TimeWait,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::Closing,
];

/// What the series of a namespace say.
#[derive(Clone, Debug, Default)]
struct Totals {
    states: StateCounts,
    counted: Counted,
    local_ports: Option<u64>,
    reserved: Option<u64>,
    blocked: Option<u64>,
    left_min: Option<u32>,
    ratio_max: Option<f64>,
}

impl Totals {
    fn read(&mut self, row: &NamespaceRow) {
        self.local_ports = row.port_range.map(|range| range.size().into());
        self.reserved = row.port_range.map(|_| row.reserved_ports.into());
        self.blocked = row.port_range.and(row.blocked_ports).map(u64::from);
        self.counted.listen_drops = row.listen_drops;
    }

    /// Adds what is not counted.
    fn add(&mut self, other: &Self) {
        self.states = self.states + other.states;
        self.local_ports = merged(self.local_ports, other.local_ports, |a, b| a + b);
        self.reserved = merged(self.reserved, other.reserved, |a, b| a + b);
        self.blocked = merged(self.blocked, other.blocked, |a, b| a + b);
        self.left_min = merged(self.left_min, other.left_min, u32::min);
        self.ratio_max = merged(self.ratio_max, other.ratio_max, f64::max);
    }

    fn samples(&self, netns: &str) -> Vec<Sample> {
        let own = [("netns", netns)];
        let mut row: Vec<Sample> = STATES
            .iter()
            .map(|state| {
                let labels = [own[0], ("state", state.name())];
                Sample::new(&metric::SOCKETS, &labels, self.states.get(*state))
            })
            .collect();
        for (direction, flow) in &self.counted.flows {
            let labels = [own[0], ("direction", direction.name())];
            let metrics = [&metric::OPENED, &metric::CLOSED, &metric::FAILED];
            row.extend(metrics.into_iter().zip(flow).map(|(metric, count)| Sample::new(metric, &labels, *count)));
        }
        let counts: [(&Metric, Option<u64>); 5] = [
            (&metric::LOCAL_PORTS, self.local_ports),
            (&metric::LOCAL_PORTS_RESERVED, self.reserved),
            (&metric::LOCAL_PORTS_BLOCKED, self.blocked),
            (&metric::PORTS_LEFT_MIN, self.left_min.map(u64::from)),
            (&metric::LISTEN_DROPS, self.counted.listen_drops),
        ];
        row.extend(counts.into_iter().filter_map(|(metric, count)| Some(Sample::new(metric, &own, count?))));
        row.extend(self.ratio_max.map(|ratio| Sample::new(&metric::PORTS_RATIO_MAX, &own, ratio)));
        row.extend(self.counted.failures.iter().map(|(kind, count)| {
            let labels = [own[0], ("failure", kind.name()), ("errno", kind.errno().unwrap_or(""))];
            Sample::new(&metric::FAILURES, &labels, *count)
        }));
        row
    }
}

/// The sum of all from `own` on, with what these have counted.
fn others(all: &BTreeMap<NetnsId, Totals>, own: usize, counted: Counted) -> Totals {
    let mut sum = Totals { counted, ..Totals::default() };
    for totals in all.values().skip(own) {
        sum.add(totals);
    }
    sum
}

/// What is known of either.
fn merged<T>(a: Option<T>, b: Option<T>, merge: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(merge(a, b)),
        (a, b) => a.or(b),
    }
}

pub(super) fn add(series: &mut Series, snapshot: &Snapshot, labels: &Labels, kept: &mut Kept) {
    let totals = totals(snapshot, labels);
    let row = |(netns, totals): (&NetnsId, &Totals)| {
        let info = labels.of_namespace(*netns);
        let info: Vec<_> = info.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let mut row = vec![Sample::new(&metric::NETNS_INFO, &info, 1_u32)];
        row.extend(totals.samples(labels.netns(*netns)));
        row
    };
    let rows: Vec<Vec<Sample>> = totals.iter().map(row).collect();
    let counted: BTreeMap<NetnsId, Counted> =
        totals.iter().map(|(netns, totals)| (*netns, totals.counted.clone())).collect();
    let most_others = others(&totals, 0, kept.others.with_all_kinds(&counted)).samples(metric::OTHER).len();
    let own = rows_that_fit(&rows, series.free(), most_others);
    for (i, row) in rows.into_iter().enumerate() {
        if i < own { series.add(row) } else { series.leave_out(&row) }
    }
    let counted = kept.others.grow(counted, own).clone();
    if own < totals.len() {
        series.add(others(&totals, own, counted).samples(metric::OTHER));
    }
}

/// How many rows there can be within `room`, with one of `others` series after them where these are not all.
fn rows_that_fit(rows: &[Vec<Sample>], room: usize, others: usize) -> usize {
    let all: usize = rows.iter().map(Vec::len).sum();
    if rows.len() <= metric::NAMESPACES && all <= room {
        return rows.len();
    }
    let mut room = room.saturating_sub(others);
    let fits = |row: &&Vec<Sample>| {
        let fits = row.len() <= room;
        room = room.saturating_sub(row.len());
        fits
    };
    rows.iter().take(metric::NAMESPACES).take_while(fits).count()
}

fn totals(snapshot: &Snapshot, labels: &Labels) -> BTreeMap<NetnsId, Totals> {
    let failures_are_seen =
        snapshot.quality.hooks.iter().any(|status| status.hook == Hook::Failures && status.method.is_some());
    let new = || {
        let flows = Direction::ALL.into_iter().map(|direction| (direction, [0; 3])).collect();
        // An alert on the rate of these misses the first ones if their series begins with them.
        let failures = failures_are_seen.then_some((FailureKind::PortsExhausted, 0));
        let failures = failures.into_iter().collect();
        Totals { counted: Counted { flows, failures, ..Counted::default() }, ..Totals::default() }
    };
    let mut all: BTreeMap<NetnsId, Totals> = labels.namespaces().map(|netns| (netns, new())).collect();
    for row in &snapshot.namespaces {
        all.entry(row.netns).or_default().read(row);
    }
    for row in &snapshot.endpoints {
        let totals = all.entry(row.key.netns).or_default();
        totals.states = totals.states + row.states;
        for ports in row.destinations.iter().filter_map(|destination| destination.ports) {
            totals.left_min = merged(totals.left_min, ports.left(), u32::min);
            totals.ratio_max = merged(totals.ratio_max, Some(ports.ratio()), f64::max);
        }
    }
    for row in &snapshot.flows {
        all.entry(row.netns).or_default().counted.set_flow(row);
    }
    for row in &snapshot.failure_counts {
        all.entry(row.netns).or_default().counted.failures.insert(row.kind, row.count);
    }
    all
}
