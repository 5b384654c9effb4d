//! `observer explain`: the theory of each lab and of each limit, with this host's numbers.

use std::{collections::BTreeSet, io::Write};

use rustix::process::{Resource, getrlimit};

use super::{LABS, Lab, name, names};
use crate::{
    host::{addresses, files, memory, netns, text::Reads},
    model::{
        limit::{About, LimitKind},
        namespace::NamespaceReading,
        units::grouped,
    },
    present::labelled::{self, PLAIN_WIDTH},
};

/// Columns of the label before an entry.
const LABEL: usize = 12;
/// Columns of the number before its description.
const NUMBER: usize = 24;

/// What can be explained.
#[derive(Clone, Copy, Debug)]
pub enum Topic {
    /// A lab.
    Lab(&'static Lab),
    /// A limit.
    Limit(&'static About),
}

impl Topic {
    /// Labs come first: where a lab and a limit have the same name, the lab explains both.
    fn all() -> impl Iterator<Item = Self> {
        LABS.into_iter().map(Self::Lab).chain(LimitKind::ALL.map(|kind| Self::Limit(About::of(kind))))
    }

    fn name(self) -> String {
        match self {
            Self::Lab(lab) => lab.name.to_owned(),
            Self::Limit(about) => about.id.replace('_', "-"),
        }
    }

    /// The topic of this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::all().find(|topic| topic.name() == name.replace('_', "-"));
        found.ok_or_else(|| {
            // A lab and the limit that it is about can have one name: the lab is found.
            let mut names: Vec<_> = Self::all().map(Self::name).collect();
            let mut seen = BTreeSet::new();
            names.retain(|name| seen.insert(name.clone()));
            format!("no such topic; there are {}", names.join(", "))
        })
    }
}

/// Prints a topic, or the list of topics.
pub fn print(topic: Option<Topic>, out: &mut impl Write) -> anyhow::Result<()> {
    match topic {
        None => list(out),
        Some(Topic::Lab(lab)) => {
            paragraph(out, lab.claim)?;
            for words in lab.theory {
                writeln!(out)?;
                paragraph(out, words)?;
            }
            for kind in lab.limits {
                writeln!(out)?;
                limit(About::of(*kind), out)?;
            }
            writeln!(out, "\nSee it happen: observer lab {}", lab.name)?;
            Ok(())
        }
        Some(Topic::Limit(about)) => {
            limit(about, out)?;
            let labs = LABS.into_iter().filter(|lab| lab.limits.contains(&about.kind)).map(|lab| lab.name);
            let labs = labs.collect::<Vec<_>>().join(", ");
            writeln!(out)?;
            paragraph(out, &format!("Labs that reach it: {}", if labs.is_empty() { "none" } else { &labs }))?;
            Ok(())
        }
    }
}

/// Prints where a limit comes from, how to raise it, and this host's numbers.
fn limit(about: &About, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "The limit: {}", about.name)?;
    for (label, words) in
        [("from", about.source), ("when full", about.refusal), ("raise", about.remedy), ("risk", about.risk)]
    {
        labelled::write(out, label, LABEL, words, PLAIN_WIDTH)?;
    }
    numbers(about.kind).iter().try_for_each(|(number, what)| entry(out, number, what))
}

fn list(out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "Labs: each tests one claim.")?;
    names(out)?;
    writeln!(out, "\nLimits: what can run out.")?;
    // The lab of the same name explains the limit, too.
    for topic in Topic::all().filter(|topic| Lab::named(&topic.name()).is_none()) {
        let Topic::Limit(about) = topic else { continue };
        name(&topic.name(), about.source, out)?;
    }
    writeln!(out, "\nobserver explain TOPIC explains it with this host's numbers.")?;
    Ok(())
}

fn paragraph(out: &mut impl Write, words: &str) -> std::io::Result<()> {
    labelled::write(out, "", 0, words, PLAIN_WIDTH)
}

fn entry(out: &mut impl Write, number: &str, what: &str) -> std::io::Result<()> {
    labelled::write(out, &format!("{number:>NUMBER$}"), NUMBER + 2, what, PLAIN_WIDTH)
}

/// This host's numbers for a kind of limit; unreadable ones are "not known".
fn numbers(kind: LimitKind) -> Vec<(String, String)> {
    let reading = netns::read(&BTreeSet::new()).namespace;
    match kind {
        LimitKind::Ports => ports(&reading),
        LimitKind::ProcessFiles => {
            let limit = getrlimit(Resource::Nofile);
            vec![
                line(limit.current, "fd limit of a process started here (ulimit -n)"),
                line(limit.maximum, "its hard limit (ulimit -Hn)"),
                line(files::nr_open(&Reads::default()), "the highest hard limit that the kernel allows (fs.nr_open)"),
            ]
        }
        LimitKind::HostFiles => {
            let used = files::read(&Reads::default());
            vec![
                line(used.map(|used| used.max), "open files that the whole host may have (fs.file-max)"),
                line(used.map(|used| used.allocated), "open files now"),
            ]
        }
        LimitKind::AcceptQueue | LimitKind::SynQueue => vec![line(
            reading.somaxconn.map(Into::into),
            "the longest backlog that listen() gets (net.core.somaxconn); the queue holds one more",
        )],
        LimitKind::Conntrack => vec![
            line(reading.conntrack.map(|conntrack| conntrack.max), "connections that netfilter can track"),
            line(reading.conntrack.map(|conntrack| conntrack.count), "tracked connections now"),
        ],
        LimitKind::TimeWait => vec![
            line(reading.tcp_max_tw_buckets, "sockets that can be in TIME_WAIT (tcp_max_tw_buckets)"),
            line(reading.time_wait.map(Into::into), "sockets in TIME_WAIT now"),
            line(
                reading.tcp_tw_reuse.map(Into::into),
                "tcp_tw_reuse: connect() reuses ports in TIME_WAIT 0 never, 1 always, 2 on loopback only",
            ),
        ],
        LimitKind::Orphans => vec![
            line(reading.shared.tcp_max_orphans, "orphans that the kernel keeps (tcp_max_orphans)"),
            line(reading.shared.orphans, "orphans now"),
        ],
        LimitKind::TcpMemory => vec![
            line(reading.shared.tcp_mem_max_pages, "pages that TCP buffers can use (third number of tcp_mem)"),
            line(reading.shared.memory_pages, "pages in use now"),
        ],
        LimitKind::SocketMemory => {
            let (available, each) = (memory::available(&Reads::default()), memory::per_socket(&Reads::default()));
            vec![
                line(each, "bytes of an idle socket (/proc/slabinfo, root only)"),
                line(available.map(|bytes| bytes >> 20), "MiB of memory available (MemAvailable)"),
                line(available.zip(each).map(|(all, each)| all / each.max(1)), "more idle sockets fit into that"),
            ]
        }
    }
}

/// A number with its description.
fn line(number: Option<u64>, what: &str) -> (String, String) {
    (number.map_or_else(|| "not known".to_owned(), grouped), what.to_owned())
}

/// This host's numbers for ports.
fn ports(reading: &NamespaceReading) -> Vec<(String, String)> {
    let range = reading.port_range;
    let reserved: u32 = reading.reserved.iter().map(|ports| ports.size()).sum();
    let named = range.map_or_else(String::new, |range| format!(" {}-{}", range.low, range.high));
    let ips = addresses::read().map(|ips| ips.iter().filter(|ip| ip.is_ipv4()).count() as u64).ok();
    let mut lines = vec![
        line(
            range.map(|range| range.size().into()),
            &format!("ports that connect() can choose, ip_local_port_range{named}, for each destination"),
        ),
        line(Some(reserved.into()), "ports in ip_local_reserved_ports"),
        line(ips, "local IPv4 addresses without lo's: each has all these ports"),
    ];
    let is_odd = range.is_some_and(|range| range.found().0 != range.size());
    lines.extend(is_odd.then(|| line(range.map(|range| range.found().0.into()), ODD)));
    lines.extend(reading.port_step_width.map(|width| line(Some(width.into()), step_width(width))));
    lines
}

/// How connect() treats a range of odd size.
const ODD: &str = "of these are certain: in an odd range, connect() skips the lowest or the highest port by chance";

/// How `ip_local_port_step_width` changes the search for a port (`__inet_hash_connect`, since 7.2).
const fn step_width(width: u32) -> &'static str {
    if width == 0 {
        "ip_local_port_step_width: off, connect() takes the next free port of the same parity"
    } else {
        "ip_local_port_step_width: connect() steps through the ports of one parity with a random step up to this \
         width. The step has no common divisor with their number. connect() still tries every second port first and \
         skips none: the number of ports left and the slow half do not change"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_explained_in_80_columns() {
        for topic in Topic::all() {
            let mut text = Vec::new();
            print(Some(Topic::parse(&topic.name()).unwrap()), &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.lines().count() > 5, "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= PLAIN_WIDTH, "{line}");
            }
        }
        assert!(Topic::parse("nonsense").unwrap_err().contains("client-ceiling"));
    }
}
