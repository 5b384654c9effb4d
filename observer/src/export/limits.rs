//! `observer limits`: every limit of this host, where each comes from, and the arithmetic behind the myth of 65,536
//! connections with this host's own numbers.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write},
    net::IpAddr,
    ops::Not,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    gaps::UnreadObject,
    limit::{FindingObject, HitsObject, LimitObject},
};
use crate::{
    engine::Options,
    host::{addresses, netns, proc, processes},
    model::{
        hits::{Hits, Since},
        limit::practical,
        limit::{About, Limit, LimitKind},
        name::{padded, padded_left},
        snapshot::{FileUse, NamespaceRow, ProcessFiles, Snapshot},
        units::{NetnsId, Pid, grouped_digits},
    },
    present::{Field, Fields as _, Order, format, labelled::labelled, scope, sort},
};

/// Attaches, scans, and prints the limits and the arithmetic.
pub fn print(options: Options, as_json: bool, sort: Option<&str>, out: &mut impl Write) -> anyhow::Result<()> {
    proc::require()?;
    let own = netns::current().context("read /proc/thread-self/ns/net")?;
    let snapshot = super::take(options, if as_json { usize::MAX } else { 1 })?;
    let arithmetic = Arithmetic::new(&snapshot, own)?;
    if as_json {
        serde_json::to_writer_pretty(&mut *out, &Document::new(&snapshot, arithmetic))?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(render(&snapshot, own, &arithmetic, sort).as_bytes())?;
    }
    out.flush().map_err(|error: io::Error| error.into())
}

#[derive(Serialize)]
struct Document {
    schema: u32,
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
            schema: 2,
            kernel: snapshot.host.kernel.clone(),
            limits: snapshot.limits.iter().map(LimitObject::new).collect(),
            hits: snapshot.hits.iter().map(HitsObject::new).collect(),
            findings: snapshot.findings.iter().map(|finding| FindingObject::new(finding, snapshot)).collect(),
            unread: UnreadObject::all(&snapshot.quality.gaps),
            arithmetic,
        }
    }
}

/// How many four-tuples there are, in theory and on this host; what is not known is absent. The host's numbers are
/// those of the namespace in which observer was started.
#[derive(Serialize)]
struct Arithmetic {
    /// 2^96: as text, for most readers of JSON would round it.
    connections_over_ipv4: String,
    /// 2^64, as text too.
    connections_of_a_local_ip: String,
    /// 2^48
    connections_of_a_local_endpoint: u64,
    /// 2^16
    connections_of_a_local_endpoint_with_a_remote_ip: u64,
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    port_range: Option<[u16; 2]>,
    reserved_ports: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    usable_ports: Option<u32>,
    local_ipv4: usize,
    local_ipv6: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_to_an_ipv4_destination: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_soft_nofile: Option<u64>,
    /// RLIM_INFINITY.
    #[serde(skip_serializing_if = "Not::not")]
    own_soft_nofile_unlimited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_hard_nofile: Option<u64>,
    #[serde(skip_serializing_if = "Not::not")]
    own_hard_nofile_unlimited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nr_open: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_max: Option<u64>,
    /// There is no limit in practice.
    #[serde(skip_serializing_if = "Not::not")]
    file_max_unlimited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_of_an_idle_socket: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_available: Option<u64>,
}

impl Arithmetic {
    fn new(snapshot: &Snapshot, own: NetnsId) -> anyhow::Result<Self> {
        let namespace = snapshot.namespaces.iter().find(|row| row.netns == own);
        let files = processes::read(&[Pid(std::process::id())]).pop();
        let addresses = addresses::read().context("list the addresses of this namespace")?;
        Ok(Self::of(snapshot, own, namespace, &addresses, files))
    }

    fn of(
        snapshot: &Snapshot,
        own: NetnsId,
        namespace: Option<&NamespaceRow>,
        addresses: &BTreeSet<IpAddr>,
        files: Option<ProcessFiles>,
    ) -> Self {
        let range = namespace.and_then(|row| row.port_range);
        let reserved_ports = namespace.map_or(0, |row| row.reserved_ports);
        let usable_ports = range.map(|range| range.size() - reserved_ports);
        let soft = files.and_then(|files| files.soft_limit).and_then(practical);
        let hard = files.and_then(|files| files.hard_limit).and_then(practical);
        let file_max = snapshot.host.files.and_then(FileUse::practical_max);
        let local_ipv4 = addresses.iter().filter(|ip| ip.is_ipv4()).count();
        Self {
            connections_over_ipv4: (1_u128 << 96).to_string(),
            connections_of_a_local_ip: (1_u128 << 64).to_string(),
            connections_of_a_local_endpoint: 1 << 48,
            connections_of_a_local_endpoint_with_a_remote_ip: 1 << 16,
            netns: own.0,
            port_range: range.map(|range| [range.low, range.high]),
            reserved_ports,
            usable_ports,
            local_ipv4,
            local_ipv6: addresses.len() - local_ipv4,
            connections_to_an_ipv4_destination: usable_ports.map(|ports| local_ipv4 as u64 * u64::from(ports)),
            own_soft_nofile: soft,
            own_soft_nofile_unlimited: files.is_some() && soft.is_none(),
            own_hard_nofile: hard,
            own_hard_nofile_unlimited: files.is_some() && hard.is_none(),
            nr_open: snapshot.host.nr_open,
            file_max,
            file_max_unlimited: snapshot.host.files.is_some() && file_max.is_none(),
            bytes_of_an_idle_socket: snapshot.host.memory.map(|memory| memory.per_socket),
            bytes_available: snapshot.host.memory.map(|memory| memory.available),
        }
    }
}

/// Columns of the whole.
const WIDTH: usize = 80;
/// The name of a limit.
const NAME: usize = 16;
const USED: usize = 9;
/// The fields of the table and their columns; a space between them. The scope has what the others leave.
const COLUMNS: [(&str, usize); 6] =
    [("kind", NAME), (SCOPE, 0), ("used", USED), ("maximum", 9), ("ratio", 6), ("seconds_to_full", 8)];
const SCOPE: &str = "scope";
/// Limits of one kind in the table.
const OF_A_KIND: usize = 4;
/// Limits whose counters are listed.
const COUNTED: usize = 8;

fn render(snapshot: &Snapshot, own: NetnsId, arithmetic: &Arithmetic, sort: Option<&str>) -> String {
    let fields: Vec<(&Field<Limit>, usize)> =
        COLUMNS.iter().filter_map(|(id, width)| Some((Limit::field(id)?, width_of(*width)))).collect();
    let titles = fields.iter().map(|(field, width)| aligned(field, field.title_within(*width), *width));
    let mut text = line(titles);
    let mut listed = [0; LimitKind::ALL.len()];
    for limit in sort::by_id(&snapshot.limits, snapshot, sort) {
        let of_kind = &mut listed[limit.kind as usize];
        *of_kind += 1;
        if *of_kind <= OF_A_KIND {
            let cells = fields.iter().map(|(field, width)| cell(field, *width, limit, snapshot, own));
            text.push_str(&line(cells));
        }
    }
    // Writing to a String cannot fail.
    let _ = not_read(snapshot, &mut text);
    let _ = findings(snapshot, own, &mut text);
    let _ = counters(&snapshot.limits, own, &mut text);
    let _ = hits(snapshot, own, &mut text);
    let _ = sources(&snapshot.limits, &mut text);
    let _ = theory(arithmetic, &mut text);
    let _ = practice(arithmetic, &mut text);
    text
}

/// The scope has what the other columns leave.
fn width_of(width: usize) -> usize {
    let others: usize = COLUMNS.iter().map(|(_, width)| width + 1).sum();
    if width == 0 { WIDTH + 1 - others } else { width }
}

fn aligned(field: &Field<Limit>, text: &str, width: usize) -> String {
    if field.order == Order::Text { padded(text, width) } else { padded_left(text, width) }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(" ").trim_end().to_owned() + "\n"
}

/// A scope names its namespace, unless observer was started in it.
fn cell(field: &Field<Limit>, width: usize, limit: &Limit, snapshot: &Snapshot, own: NetnsId) -> String {
    let text = if field.id == SCOPE {
        scope::fitted(limit, &format::printable(&limit.elsewhere(own)), width)
    } else {
        (field.get)(limit, snapshot).text(width)
    };
    aligned(field, &text, width)
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
        entry("", &format::printable(&snapshot.sentence_beside(finding, own)), text)?;
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
        entry("", &format::printable(&format!("{} {}", limit.about().name, limit.owner_beside(own))), text)?;
        entry("  counted", &limit.counted(), text)?;
    }
    Ok(())
}

/// What was hit, and of the namespace in which observer was started also what was not.
fn hits(snapshot: &Snapshot, own: NetnsId, text: &mut String) -> std::fmt::Result {
    const SINCE: usize = 22;
    let is_shown = |hits: &&Hits| hits.count > 0 || hits.netns == Some(own);
    writeln!(text, "\n{:<NAME$} {:>USED$}  {:<SINCE$}  COUNTED BY", "LIMIT", "HITS", "SINCE")?;
    for hit in snapshot.hits.iter().filter(is_shown) {
        let name = hit.netns_name.as_deref().map(str::to_owned).or(hit.netns.map(|netns| netns.0.to_string()));
        let since = match hit.since {
            Since::Boot => "boot".to_owned(),
            Since::Namespace => format!("namespace {}", name.unwrap_or_default()),
            Since::Observer => "observer's start".to_owned(),
        };
        let since = format::cut_end(&format::printable(&since), SINCE);
        let (name, count) = (About::of(hit.kind).name, format::count_within(hit.count, USED));
        let head = format!("{name:<NAME$} {count:>USED$}  {}", padded(&since, SINCE));
        let lines = labelled(&head, NAME + USED + SINCE + 5, hit.counter, WIDTH);
        lines.iter().try_for_each(|line| writeln!(text, "{}", line.joined()))?;
    }
    Ok(())
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
    labelled(label, indent, words, WIDTH).iter().try_for_each(|line| writeln!(text, "{}", line.joined()))
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
    let Arithmetic { reserved_ports, local_ipv4, local_ipv6, .. } = arithmetic;
    writeln!(text, "On this host, in this network namespace:")?;
    let mut line = |number: u64, what: String| writeln!(text, "  {:>13}  {what}", format::count(number));
    if let Some(([low, high], usable)) = arithmetic.port_range.zip(arithmetic.usable_ports) {
        line(usable.into(), format!("ports for connect(): {low}-{high}, less {reserved_ports} reserved"))?;
    }
    line(*local_ipv4 as u64, format!("local IPv4 addresses, and {local_ipv6} IPv6 (not those of lo)"))?;
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
    if let Some((bytes, available)) = arithmetic.bytes_of_an_idle_socket.zip(arithmetic.bytes_available) {
        let more = available / bytes.max(1);
        line(more, format!("more idle sockets in {} MiB of free memory ({bytes} bytes each)", available >> 20))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
