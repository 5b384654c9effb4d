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
    owner,
};
use crate::{
    engine::Options,
    host::{addresses, netns, proc, processes},
    model::{
        hits::{Hits, Since},
        limit::practical,
        limit::{About, Limit, LimitKind},
        name::padded,
        snapshot::{FileUse, NamespaceRow, ProcessFiles, Snapshot},
        units::{NetnsId, Pid, grouped_digits},
    },
    tui::format,
};

/// Attaches, scans, and prints the limits and the arithmetic.
pub fn print(options: Options, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    proc::require()?;
    let own = netns::current().context("read /proc/thread-self/ns/net")?;
    let snapshot = super::take(options, if as_json { usize::MAX } else { 1 })?;
    let arithmetic = Arithmetic::new(&snapshot, own)?;
    if as_json {
        serde_json::to_writer_pretty(&mut *out, &Document::new(&snapshot, arithmetic))?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(render(&snapshot, own, &arithmetic).as_bytes())?;
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
/// Columns of each part of the table of limits; two spaces between them.
const NAME: usize = 16;
const USED: usize = 9;
const MAXIMUM: usize = 9;
const PERCENT: usize = 5;
const FULL_IN: usize = 8;
const OWNER: usize = WIDTH - NAME - USED - MAXIMUM - PERCENT - FULL_IN - 5;
/// Limits of one kind in the table.
const OF_A_KIND: usize = 4;
/// Limits whose counters are listed.
const COUNTED: usize = 8;

fn render(snapshot: &Snapshot, own: NetnsId, arithmetic: &Arithmetic) -> String {
    let mut text = format!(
        "{:<NAME$} {:<OWNER$} {:>USED$} {:>MAXIMUM$} {:>PERCENT$} {:>FULL_IN$}\n",
        "LIMIT", "OF", "USED", "MAXIMUM", "%", "FULL IN"
    );
    let mut listed = [0; LimitKind::ALL.len()];
    for limit in &snapshot.limits {
        let of_kind = &mut listed[limit.kind as usize];
        *of_kind += 1;
        if *of_kind <= OF_A_KIND {
            text.push_str(&row(limit, own));
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

fn row(limit: &Limit, own: NetnsId) -> String {
    let count = |number: u64, room| format::count_within(number, room);
    let owner = owner::fitted(limit, &format::printable(&limit.elsewhere(own)), OWNER);
    let (maximum, percent) = match limit.practical_maximum() {
        Some(maximum) => (count(maximum, MAXIMUM), (limit.ratio() * 100.0).floor().min(999.0).to_string()),
        None => ("no limit".to_owned(), "-".to_owned()),
    };
    let full_in = match limit.time_to_full() {
        Some(time) if time.is_zero() => "full".to_owned(),
        Some(time) => format::forecast(time),
        None => "-".to_owned(),
    };
    let owner = padded(&owner, OWNER);
    // The rest is ASCII: padding by characters is padding by columns.
    format!(
        "{:<NAME$} {owner} {:>USED$} {maximum:>MAXIMUM$} {percent:>PERCENT$} {full_in:>FULL_IN$}\n",
        limit.about().name,
        count(limit.used, USED),
    )
}

/// A limit that nobody looked at is not in the table: that is said below it.
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
            writeln!(text, "\nWHAT THE KERNEL COUNTED THERE")?;
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
        let counted = format::wrapped(hit.counter, WIDTH - NAME - USED - SINCE - 5);
        let (name, count) = (About::of(hit.kind).name, format::count_within(hit.count, USED));
        for (i, line) in counted.into_iter().enumerate() {
            match i {
                0 => writeln!(text, "{name:<NAME$} {count:>USED$}  {since:<SINCE$}  {line}")?,
                _ => writeln!(text, "{:width$}{line}", "", width = NAME + USED + SINCE + 5)?,
            }
        }
    }
    Ok(())
}

fn sources(limits: &[Limit], text: &mut String) -> std::fmt::Result {
    writeln!(text, "\nWHERE EACH COMES FROM, HOW TO RAISE IT, AND WHAT THAT RISKS")?;
    for kind in LimitKind::ALL.into_iter().filter(|kind| limits.iter().any(|limit| limit.kind == *kind)) {
        let About { name, source, refusal, remedy, risk, .. } = About::of(kind);
        writeln!(text, "{name}")?;
        for (label, words) in [("  from", source), ("  when full", refusal), ("  raise", remedy), ("  risk", risk)] {
            entry(label, words, text)?;
        }
    }
    Ok(())
}

/// A label, and words beside it in as many lines as they need.
fn entry(label: &str, words: &str, text: &mut String) -> std::fmt::Result {
    const LABEL: usize = 12;
    let room = if label.is_empty() { WIDTH } else { WIDTH - LABEL };
    for (i, line) in format::wrapped(words, room).into_iter().enumerate() {
        match (label, i) {
            ("", _) => writeln!(text, "{line}")?,
            (label, 0) => writeln!(text, "{label:<LABEL$}{line}")?,
            (_, _) => writeln!(text, "{:LABEL$}{line}", "")?,
        }
    }
    Ok(())
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
        line(usable.into(), format!("ports for connect(): {low}-{high}, less {reserved_ports} that are reserved"))?;
    }
    line(*local_ipv4 as u64, format!("local IPv4 addresses, and {local_ipv6} IPv6 (not those of lo)"))?;
    if let Some(connections) = arithmetic.connections_to_an_ipv4_destination {
        line(connections, "connections from these to any one IPv4 destination".to_owned())?;
    }
    if let Some(soft) = arithmetic.own_soft_nofile {
        let hard = arithmetic.own_hard_nofile.map_or_else(|| "unlimited".to_owned(), format::count);
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
