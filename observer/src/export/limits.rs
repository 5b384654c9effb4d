//! `observer limits`: every limit of this host, where each comes from, and the arithmetic behind the myth of 65,536
//! connections with this host's own numbers.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    arithmetic::Arithmetic,
    gaps::UnreadObject,
    limit::{FindingObject, HitsObject, LimitObject},
    table::write_whole,
    value::rfc_3339,
};
use crate::{
    frame::Frame,
    model::{
        hits::{Hits, Since},
        limit::{About, Limit, LimitKind},
        snapshot::Snapshot,
        units::{NetnsId, grouped_digits},
    },
    present::{
        Field, Fields as _, Order, format,
        labelled::{PLAIN_WIDTH, labelled},
        scope, service, sort,
    },
};

/// The limits and the arithmetic, the table in the order of the field `sort`.
#[must_use]
pub fn text(frame: &Frame, sort: Option<&str>) -> String {
    render(&frame.snapshot, frame.unnamed(), &Arithmetic::new(frame), sort)
}

/// The same as one JSON object.
pub fn json(frame: &Frame) -> serde_json::Result<Vec<u8>> {
    super::pretty(&Document::new(&frame.snapshot, Arithmetic::new(frame)))
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    taken_at: String,
    uptime_seconds: f64,
    kernel: String,
    limits: Vec<LimitObject>,
    hits: Vec<HitsObject>,
    findings: Vec<FindingObject>,
    unread: Vec<UnreadObject>,
    arithmetic: Arithmetic,
}

impl Document {
    fn new(snapshot: &Snapshot, arithmetic: Arithmetic) -> Self {
        Self {
            schema: super::SCHEMA,
            taken_at: rfc_3339(snapshot.taken_at),
            uptime_seconds: snapshot.uptime.as_secs_f64(),
            kernel: snapshot.host.kernel.clone(),
            limits: snapshot.limits.iter().map(LimitObject::new).collect(),
            hits: snapshot.hits().map(HitsObject::new).collect(),
            findings: snapshot.findings.iter().map(|finding| FindingObject::new(finding, snapshot)).collect(),
            unread: UnreadObject::all(&snapshot.quality.gaps),
            arithmetic,
        }
    }
}

/// The fields of the table.
const COLUMNS: [&str; 7] = ["kind", SCOPE, "used", "maximum", "unit", "ratio", "seconds_to_full"];
const SCOPE: &str = "scope";
/// Limits of one kind in the table.
const OF_A_KIND: usize = 4;
/// Limits whose counters are listed.
const COUNTED: usize = 8;

fn render(snapshot: &Snapshot, own: NetnsId, arithmetic: &Arithmetic, sort: Option<&str>) -> String {
    let mut text = String::new();
    table(snapshot, own, sort, &mut text);
    // Writing to a String cannot fail.
    let _ = beyond(snapshot, own, &mut text);
    let _ = not_read(snapshot, &mut text);
    let _ = findings(snapshot, own, &mut text);
    let _ = counters(&snapshot.limits, own, &mut text);
    hits(snapshot, own, &mut text);
    let _ = sources(&snapshot.limits, &mut text);
    let _ = theory(arithmetic, &mut text);
    let _ = practice(arithmetic, &mut text);
    text
}

/// The first limits of each kind.
fn table(snapshot: &Snapshot, own: NetnsId, sort: Option<&str>, text: &mut String) {
    let fields: Vec<&Field<Limit>> = COLUMNS.iter().filter_map(|id| Limit::field(id)).collect();
    let orders: Vec<Order> = fields.iter().map(|field| field.order).collect();
    let mut lines = vec![fields.iter().map(|field| field.title().to_owned()).collect::<Vec<_>>()];
    let mut listed = [0; LimitKind::ALL.len()];
    for limit in sort::by_id(&snapshot.limits, snapshot, sort) {
        let of_kind = &mut listed[limit.kind as usize];
        *of_kind += 1;
        if *of_kind <= OF_A_KIND {
            lines.push(fields.iter().map(|field| cell(field, limit, snapshot, own)).collect());
        }
    }
    write_whole(&lines, &orders, text);
}

/// A scope names its namespace, unless observer was started in it.
fn cell(field: &Field<Limit>, limit: &Limit, snapshot: &Snapshot, own: NetnsId) -> String {
    if field.id == SCOPE { scope::beside(limit, own) } else { (field.get)(limit, snapshot).text(usize::MAX) }
}

/// Why more is in use than the maximum allows.
fn beyond(snapshot: &Snapshot, own: NetnsId, text: &mut String) -> std::fmt::Result {
    let mut lines = snapshot.limits.iter().filter_map(|limit| Some((limit, limit.excess()?))).peekable();
    if lines.peek().is_some() {
        writeln!(text, "\nOVER THE MAXIMUM")?;
    }
    lines.try_for_each(|(limit, why)| {
        entry("", &format!("{} {}: {why}", limit.about().name, scope::beside(limit, own)), text)
    })
}

/// A limit that could not be read is missing from the table: this says so below it.
fn not_read(snapshot: &Snapshot, text: &mut String) -> std::fmt::Result {
    let gaps = &snapshot.quality.gaps;
    let lines: Vec<String> = gaps.advice().into_iter().chain(gaps.skipped.sentence()).collect();
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nNOT READ")?;
    lines.iter().try_for_each(|line| entry("", line, text))
}

fn findings(snapshot: &Snapshot, own: NetnsId, text: &mut String) -> std::fmt::Result {
    if snapshot.findings.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nFINDINGS")?;
    for finding in &snapshot.findings {
        entry("", &format::printable(&service::sentence_beside(snapshot, finding, own)), text)?;
        entry("  evidence", &format::printable(&finding.evidence), text)?;
        entry("  remedy", &finding.remedy, text)?;
    }
    Ok(())
}

/// Of limits at which something was counted.
fn counters(limits: &[Limit], own: NetnsId, text: &mut String) -> std::fmt::Result {
    let has_counted = |limit: &&Limit| limit.counters.iter().any(|counter| counter.total > 0);
    for (i, limit) in limits.iter().filter(has_counted).take(COUNTED).enumerate() {
        if i == 0 {
            writeln!(text, "\nTHE KERNEL'S COUNTERS")?;
        }
        entry("", &format!("{} {}", limit.about().name, scope::beside(limit, own)), text)?;
        entry("  counted", &limit.counted(), text)?;
    }
    Ok(())
}

/// What was hit, and of the namespace in which observer was started also what was not.
fn hits(snapshot: &Snapshot, own: NetnsId, text: &mut String) {
    let is_shown = |hits: &Hits<'_>| hits.count > 0 || hits.netns == Some(own);
    let titles = ["LIMIT", "HITS", "SINCE", "COUNTED BY"].map(str::to_owned);
    let mut lines = vec![titles.to_vec()];
    lines.extend(snapshot.hits().filter(is_shown).map(|hit| {
        let since = match (hit.since, hit.netns) {
            (Since::Observer, _) => "observer's start".to_owned(),
            (Since::Namespace, Some(netns)) => format!("namespace {}", netns.label(hit.netns_name)),
            (Since::Boot | Since::Namespace, _) => "boot".to_owned(),
        };
        let name = About::of(hit.kind).name.to_owned();
        vec![name, format::count(hit.count), format::printable(&since), hit.counter.to_owned()]
    }));
    text.push('\n');
    write_whole(&lines, &[Order::Text, Order::Number, Order::Text, Order::Text], text);
}

fn sources(limits: &[Limit], text: &mut String) -> std::fmt::Result {
    writeln!(text, "\nSOURCE OF EACH LIMIT, HOW TO RAISE IT, AND THE RISK")?;
    for kind in LimitKind::ALL.into_iter().filter(|kind| limits.iter().any(|limit| limit.kind == *kind)) {
        let About { name, source, refusal, remedy, risk, .. } = About::of(kind);
        writeln!(text, "{name}")?;
        for (label, words) in [("  source", source), ("  when full", refusal), ("  raise", remedy), ("  risk", risk)] {
            entry(label, words, text)?;
        }
    }
    Ok(())
}

/// A label, and words beside it in as many lines as they need.
fn entry(label: &str, words: &str, text: &mut String) -> std::fmt::Result {
    const LABEL: usize = 12;
    let indent = if label.is_empty() { 0 } else { LABEL };
    labelled(label, indent, words, PLAIN_WIDTH).iter().try_for_each(|line| writeln!(text, "{}", line.joined()))
}

fn theory(arithmetic: &Arithmetic, text: &mut String) -> std::fmt::Result {
    writeln!(text, "\nTHE ARITHMETIC")?;
    entry("", "A connection is {local ip, local port, remote ip, remote port}. Over IPv4 there can be", text)?;
    let of_endpoint = arithmetic.connections_of_a_local_endpoint.to_string();
    let of_pair = arithmetic.connections_of_a_local_endpoint_with_a_remote_ip.to_string();
    for (power, number, which) in [
        (96, &arithmetic.connections_over_ipv4, "in all"),
        (64, &arithmetic.connections_of_a_local_ip, "of one local ip"),
        (48, &of_endpoint, "of one local ip and port, as a listener has"),
        (16, &of_pair, "of these with one remote ip: the myth"),
    ] {
        writeln!(text, "  2^{power} = {} {which}", grouped_digits(number))?;
    }
    Ok(())
}

fn practice(arithmetic: &Arithmetic, text: &mut String) -> std::fmt::Result {
    writeln!(text, "{}", arithmetic.place())?;
    let mut line = |number: u64, what: String| writeln!(text, "  {:>13}  {what}", format::count(number));
    if let Some(([low, high], usable)) = arithmetic.port_range.zip(arithmetic.usable_ports) {
        let reserved = arithmetic.reserved_ports.unwrap_or_default();
        line(
            usable.into(),
            format!("ports for connect(): {low}-{high}, less {} reserved", format::count(reserved.into())),
        )?;
    }
    if let Some((ipv4, ipv6)) = arithmetic.local_ipv4_addresses.zip(arithmetic.local_ipv6_addresses) {
        line(ipv4 as u64, format!("local IPv4 addresses, and {ipv6} IPv6 (not those of lo)"))?;
    }
    if let Some(connections) = arithmetic.connections_to_an_ipv4_destination {
        line(connections, "connections from these to any one IPv4 destination".to_owned())?;
    }
    if let Some(soft) = arithmetic.own_soft_nofile {
        let hard = format::maximum(arithmetic.own_hard_nofile);
        line(soft, format!("file descriptors of a process started here (hard limit {hard})"))?;
    }
    if let Some(nr_open) = arithmetic.nr_open {
        line(nr_open, "as high as that can be raised (fs.nr_open)".to_owned())?;
    }
    if let Some(max) = arithmetic.file_max {
        line(max, "open files of the whole host (fs.file-max)".to_owned())?;
    }
    if let Some((bytes, available)) = arithmetic.idle_socket_bytes.zip(arithmetic.available_memory_bytes) {
        let more = available / bytes.max(1);
        line(
            more,
            format!(
                "more idle sockets in {} MiB of free memory ({} bytes each)",
                format::count(available >> 20),
                format::count(bytes)
            ),
        )?;
    }
    if !arithmetic.is_local() {
        entry("", "Addresses and RLIMIT_NOFILE of the recorded host: not in a recording.", text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
