//! `observer report`: as tables in local time, and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{
    limit::LimitObject,
    service::ServiceObject,
    table::write_whole,
    value::{ProcessObject, rfc_3339},
};
use crate::{
    frame::timeline::IncidentMark,
    model::{
        name::fold_text,
        units::{NetnsId, grouped},
    },
    present::{Order, format},
    report::{FailureSum, FindingSpan, LimitPeak, Report},
};

/// Tables for people.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = render(report, &mut text);
    text
}

fn render(report: &Report, text: &mut String) -> std::fmt::Result {
    let time = format::local_time;
    for (from, to) in &report.spans {
        let length = format::duration(to.saturating_sub(*from));
        writeln!(text, "recorded {} to {}, {length}", time(*from), time(*to))?;
    }
    if report.lost > 0 {
        writeln!(text, "{} records lost", grouped(report.lost))?;
    }
    for words in &report.unread {
        writeln!(text, "not read: {}", fold_text(words))?;
    }
    writeln!(text, "most sockets: {} at {}", grouped(report.sockets.value.into()), time(report.sockets.at))?;
    let cells = report.incidents.iter().map(|mark| vec![mark.number.to_string(), time(mark.at), mark.name()]);
    section(text, &["INCIDENT", "TIME", "WHAT"], &[Order::Number, Order::Text, Order::Text], cells.collect());
    let orders = [Order::Text, Order::Number, Order::Number, Order::Number, Order::Text, Order::Text, Order::Text];
    let titles = ["HIGHEST USE OF", "USED %", "USED", "MAXIMUM", "LEVEL", "TIME", "SCOPE"];
    section(text, &titles, &orders, report.limits.iter().map(limit).collect());
    let orders = [Order::Text, Order::Number, Order::Text, Order::Text, Order::Text, Order::Text];
    let titles = ["FAILURE", "COUNT", "PROCESS", "FIRST", "LAST", "REASON"];
    section(text, &titles, &orders, report.failures.iter().map(failure).collect());
    let listed: u64 = report.failures.iter().map(|sum| sum.count).sum();
    if listed < report.failures_total {
        writeln!(text, "and {} failures of groups that were not kept", grouped(report.failures_total - listed))?;
    }
    for FindingSpan { finding, first, last, .. } in &report.findings {
        writeln!(text, "\n{} to {}: {}", time(*first), time(*last), fold_text(&finding.sentence))?;
        writeln!(text, "  {}", fold_text(&finding.evidence))?;
        writeln!(text, "  {}", fold_text(&finding.remedy))?;
    }
    Ok(())
}

/// A table, where it has a row.
fn section(text: &mut String, titles: &[&str], orders: &[Order], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    text.push('\n');
    let mut lines = vec![titles.iter().map(|title| (*title).to_owned()).collect()];
    lines.extend(rows);
    write_whole(&lines, orders, text);
}

/// A recording of several namespaces names the namespace of each limit.
fn owner(peak: &LimitPeak) -> String {
    format!("{}{}", peak.limit.owner(), peak.limit.elsewhere(NetnsId(0)))
}

fn limit(peak: &LimitPeak) -> Vec<String> {
    let limit = &peak.limit;
    vec![
        limit.about().name.to_owned(),
        format::percent(limit.ratio()),
        grouped(limit.used),
        grouped(limit.maximum),
        limit.level().name().to_owned(),
        format::local_time(peak.at),
        fold_text(&owner(peak)),
    ]
}

fn failure(sum: &FailureSum) -> Vec<String> {
    vec![
        sum.what.clone(),
        grouped(sum.count),
        sum.process.map_or_else(|| "-".to_owned(), |process| process.to_string()),
        format::local_time(sum.first),
        format::local_time(sum.last),
        fold_text(&sum.reason),
    ]
}

/// The same as one JSON object.
pub fn json(report: &Report) -> serde_json::Result<Vec<u8>> {
    super::pretty(&Document::new(report))
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    spans: Vec<SpanObject>,
    peak_sockets: PeakObject,
    limits: Vec<LimitPeakObject>,
    failures: Vec<FailureSumObject>,
    failures_total: u64,
    findings: Vec<FindingSpanObject>,
    incidents: Vec<IncidentObject>,
    lost: u64,
    unread: Vec<String>,
}

#[derive(Serialize)]
struct SpanObject {
    from: String,
    to: String,
}

#[derive(Serialize)]
struct PeakObject {
    sockets: u32,
    at: String,
}

#[derive(Serialize)]
struct LimitPeakObject {
    at: String,
    level: &'static str,
    #[serde(flatten)]
    limit: LimitObject,
}

#[derive(Serialize)]
struct FailureSumObject {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<ProcessObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject>,
    count: u64,
    first_at: String,
    last_at: String,
    reason: String,
}

#[derive(Serialize)]
struct FindingSpanObject {
    kind: &'static str,
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns_name: Option<String>,
    first_at: String,
    last_at: String,
    sentence: String,
    evidence: String,
    remedy: String,
}

#[derive(Serialize)]
struct IncidentObject {
    number: u64,
    at: String,
    what: String,
}

fn stamp(since_1970: Duration) -> String {
    rfc_3339(std::time::SystemTime::UNIX_EPOCH + since_1970)
}

impl Document {
    fn new(report: &Report) -> Self {
        let Report { spans, sockets, limits, failures, failures_total, findings, incidents, lost, unread } = report;
        let span = |(from, to): &(Duration, Duration)| SpanObject { from: stamp(*from), to: stamp(*to) };
        Self {
            schema: super::SCHEMA,
            spans: spans.iter().map(span).collect(),
            peak_sockets: PeakObject { sockets: sockets.value, at: stamp(sockets.at) },
            limits: limits.iter().map(LimitPeakObject::new).collect(),
            failures: failures.iter().map(FailureSumObject::new).collect(),
            failures_total: *failures_total,
            findings: findings.iter().map(FindingSpanObject::new).collect(),
            incidents: incidents.iter().map(IncidentObject::new).collect(),
            lost: *lost,
            unread: unread.iter().map(|words| fold_text(words)).collect(),
        }
    }
}

impl LimitPeakObject {
    fn new(peak: &LimitPeak) -> Self {
        let LimitPeak { limit, at } = peak;
        Self { at: stamp(*at), level: limit.level().name(), limit: LimitObject::new(limit) }
    }
}

impl FailureSumObject {
    fn new(sum: &FailureSum) -> Self {
        let FailureSum { kind, what: _, process, service, count, first, last, reason } = sum;
        Self {
            kind: kind.name(),
            errno: kind.errno(),
            process: process.as_ref().map(ProcessObject::new),
            service: ServiceObject::beside(service.as_deref()),
            count: *count,
            first_at: stamp(*first),
            last_at: stamp(*last),
            reason: reason.clone(),
        }
    }
}

impl FindingSpanObject {
    fn new(span: &FindingSpan) -> Self {
        let FindingSpan { finding, netns_name, first, last } = span.clone();
        Self {
            kind: finding.kind.id(),
            netns: finding.netns.0,
            netns_name,
            first_at: stamp(first),
            last_at: stamp(last),
            sentence: finding.sentence.into_owned(),
            evidence: finding.evidence.to_string(),
            remedy: finding.remedy.into_owned(),
        }
    }
}

impl IncidentObject {
    fn new(mark: &IncidentMark) -> Self {
        Self { number: mark.number, at: stamp(mark.at), what: mark.words.clone() }
    }
}
