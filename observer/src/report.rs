//! `observer report`: what a recorder's directory says about all the time that it has. Everything is replayed, and looked at once a
//! second.

use std::{borrow::Cow, collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use crate::{
    errno,
    frame::timeline::IncidentMark,
    model::{
        failure::{FailureKind, FailureRow},
        finding::{Finding, FindingKind},
        limit::{Limit, LimitKind},
        service::Service,
        snapshot::Snapshot,
        units::{NetnsId, Process},
    },
    replay::{Tape, Trail},
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks at most: beyond so many seconds they are further apart.
const LOOKS: u32 = 7_200;

/// A number, and when it was so: wall-clock time, since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peak<T> {
    /// The highest.
    pub value: T,
    /// When it was first so high.
    pub at: Duration,
}

/// The highest use of a kind of limit.
#[derive(Clone, Debug)]
pub struct LimitPeak {
    /// As it was then.
    pub limit: Limit,
    /// When.
    pub at: Duration,
}

/// Failures of one kind that one process got.
#[derive(Clone, Debug)]
pub struct FailureSum {
    /// Why.
    pub kind: FailureKind,
    /// The system call and its errno, or what was dropped.
    pub what: String,
    /// Who, where that is known.
    pub process: Option<Process>,
    /// Whose service that was.
    pub service: Option<Arc<Service>>,
    /// How many.
    pub count: u64,
    /// The first,
    pub first: Duration,
    /// and the last.
    pub last: Duration,
    /// In numbers, of the last.
    pub reason: String,
}

/// A finding, and from when to when it was there.
#[derive(Clone, Debug)]
pub struct FindingSpan {
    /// As it was last.
    pub finding: Finding,
    /// The name of its namespace.
    pub netns_name: Option<String>,
    /// The first look that found it,
    pub first: Duration,
    /// and the last.
    pub last: Duration,
}

/// All of it. Times are wall-clock times, since the Unix epoch.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Between which times something is recorded.
    pub spans: Vec<(Duration, Duration)>,
    /// The most sockets at once.
    pub sockets: Peak<u32>,
    /// Of each kind of limit that was in use, the fullest first.
    pub limits: Vec<LimitPeak>,
    /// The most frequent first.
    pub failures: Vec<FailureSum>,
    /// All failures, also those of groups that are not listed any more.
    pub failures_total: u64,
    /// The oldest first.
    pub findings: Vec<FindingSpan>,
    /// What is kept apart.
    pub incidents: Vec<IncidentMark>,
    /// Records and inputs that did not come into the recording.
    pub lost: u64,
    /// What could not be read of it, in words.
    pub unread: Vec<String>,
}

/// What makes two findings the same.
type FindingKey = (FindingKind, NetnsId, Cow<'static, str>);

#[derive(Default)]
struct Gathered {
    report: Report,
    limits: BTreeMap<LimitKind, LimitPeak>,
    findings: BTreeMap<FindingKey, FindingSpan>,
}

/// Replays a directory, or a single recording.
pub fn of(path: &Path) -> anyhow::Result<Report> {
    let trail = if path.is_dir() { Trail::open(path) } else { Trail::of_file(path) }?;
    let unread =
        trail.unread().iter().map(|(path, error)| format!("{}: {}", errno::printable(path), errno::chain(error)));
    let report = Report {
        spans: trail.spans(),
        incidents: trail.incidents().to_vec(),
        unread: unread.collect(),
        ..Report::default()
    };
    let look = LOOK.max(trail.end() / LOOKS);
    let mut gathered = Gathered { report, ..Gathered::default() };
    let mut tape = Tape::whole(trail, Duration::ZERO)?;
    loop {
        let is_whole = gathered.add_recording(&mut tape, look);
        let goes_on = if is_whole { tape.next_recording()? } else { tape.skip_damage()? };
        if !goes_on {
            return Ok(gathered.finish());
        }
    }
}

impl Gathered {
    /// The recording that has the present position. False where it is damaged: what follows has a model of its own.
    fn add_recording(&mut self, tape: &mut Tape, look: Duration) -> bool {
        let end = tape.end_of_recording();
        let mut next = tape.now();
        let snapshot = loop {
            next = (next + look).min(end);
            let read = tape.advance_within(next);
            let snapshot = tape.replay_mut().snapshot(0);
            self.look(tape, &snapshot);
            if let Err(error) = read {
                self.report.unread.push(errno::chain(&error));
                self.end_recording(tape, &snapshot);
                return false;
            }
            if next >= end {
                break snapshot;
            }
        };
        self.end_recording(tape, &snapshot);
        true
    }

    fn look(&mut self, tape: &Tape, snapshot: &Snapshot) {
        let at = tape.trail().wall_clock(tape.now());
        // The first look is the highest so far, even with no socket: it has a time.
        let peak = self.report.sockets;
        if peak.at.is_zero() || snapshot.totals.peak_sockets > peak.value {
            self.report.sockets = Peak { value: snapshot.totals.peak_sockets, at };
        }
        for limit in snapshot.limits.iter().filter(|limit| limit.used > 0 && limit.practical_maximum().is_some()) {
            let is_higher = self.limits.get(&limit.kind).is_none_or(|peak| limit.ratio() > peak.limit.ratio());
            if is_higher {
                self.limits.insert(limit.kind, LimitPeak { limit: limit.clone(), at });
            }
        }
        for finding in &snapshot.findings {
            let key = (finding.kind, finding.netns, finding.sentence.clone());
            let netns_name = snapshot.name_of(finding.netns).map(ToString::to_string);
            let new = FindingSpan { finding: finding.clone(), netns_name, first: at, last: at };
            let span = self.findings.entry(key).or_insert(new);
            span.finding.clone_from(finding);
            span.last = at;
        }
    }

    /// What a model counts from its beginning.
    fn end_recording(&mut self, tape: &Tape, snapshot: &Snapshot) {
        self.report.failures_total += snapshot.failures_total;
        self.report.lost += snapshot.quality.lost_total();
        for row in &snapshot.failures {
            let wall_clock = |at: Duration| tape.trail().wall_clock(tape.position_of(at));
            self.add_failures(row, wall_clock(row.first_at), wall_clock(row.last_at));
        }
    }

    fn add_failures(&mut self, row: &FailureRow, first: Duration, last: Duration) {
        let (what, process) = (row.what(), row.key.process);
        let failures = &mut self.report.failures;
        let known = failures.iter_mut().find(|sum| {
            let is_same = sum.kind == row.key.kind && sum.process == process && sum.what == what;
            is_same && sum.service == row.service
        });
        if let Some(sum) = known {
            sum.count += row.count;
            sum.first = sum.first.min(first);
            if last >= sum.last {
                (sum.last, sum.reason) = (last, row.reason());
            }
            return;
        }
        let (kind, service, count) = (row.key.kind, row.service.clone(), row.count);
        failures.push(FailureSum { kind, what, process, service, count, first, last, reason: row.reason() });
    }

    fn finish(self) -> Report {
        let Self { mut report, limits, findings } = self;
        report.limits = limits.into_values().collect();
        report.limits.sort_by(|a, b| b.limit.ratio().total_cmp(&a.limit.ratio()));
        report.failures.sort_by_key(|sum| (std::cmp::Reverse(sum.count), sum.first));
        report.findings = findings.into_values().collect();
        report.findings.sort_by_key(|span| span.first);
        report
    }
}
